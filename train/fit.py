"""The training loop: ``train`` starts a run, ``resume`` goes on with one from its newest whole checkpoint."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import lightning_fabric
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from edgeunip import durable
from edgeunip.errors import RunError, TrainingError, UsageError
from edgeunip.train import check, checkpoint, report
from edgeunip.train import run as runs
from edgeunip.train.augment import Augmentation
from edgeunip.train.checkpoint import State
from edgeunip.train.datasets import DataSet
from edgeunip.train.evaluate import Score, evaluate
from edgeunip.train.launch import launch, one_rank_first, owned
from edgeunip.train.loader import CACHE_BYTES, Batches, Draw, Pictures, loader, workers_watched
from edgeunip.train.log import Log
from edgeunip.train.optim import parameter_groups, poly_lr
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run, TorchModel
from edgeunip.train.segmentor import SegmentationTask
from edgeunip.train.vit import PATCH, SIZES

LOG_EVERY = 10


def train(recipe: Recipe, data: DataSet, out: Path | None = None) -> Run:
    """Train a model on ``data`` and leave the run in the folder ``out`` (by default a new one in ``runs/``).

    Every image of the train and val splits is checked first, so that no bad file can end the run later.

    Raises:
        DataError: the data set has a defect.
        UsageError: the recipe does not fit the data.
        RunError: ``out`` holds a run already.
        TrainingError: the loss is not finite, or memory is exhausted.
        StorageError: something cannot be written; checkpoints already written stay.
    """
    fabric = launch(recipe)
    with one_rank_first(fabric):
        sound = check.require_sound(data, ["train", "val"])
    recipe = resolve(recipe, data)
    out = fabric.broadcast(out or _new_folder(recipe, data))
    with owned(fabric, out):
        if fabric.global_rank == 0:
            facts = {
                "fingerprints": {name: data.fingerprint(name) for name in ("train", "val")},
                "class_pixels": {name: dict(pixels) for name, pixels in sound.class_pixels.items()},
            }
            runs.create(out, recipe, data, facts)
        fabric.barrier()
        return Trainer(fabric, runs.open_run(out), data).fit()


def resume(path: Path, data: DataSet | None = None) -> Run:
    """Go on with the run in ``path`` from its newest whole checkpoint, to the very weights it would have ended with.

    Args:
        path: the run's folder.
        data: the data set, where it is no longer at the place the run was started with.

    Raises:
        RunError: the folder is no run, or the data are not those it was started with.
    """
    run = runs.open_run(path)
    data = data or run.data()
    fabric = launch(run.recipe)
    expected = run.provenance["data"]["fingerprints"]
    for name, fingerprint in expected.items():
        if data.fingerprint(name) != fingerprint:
            raise RunError(f"The {name} split has changed since the run was started", where=data.source)
    with owned(fabric, path):
        return Trainer(fabric, run, data).fit()


def resolve(recipe: Recipe, data: DataSet) -> Recipe:
    """Fill in the values a recipe leaves to the data (0): input size, crop size, heads of the last block.

    Raises:
        UsageError: no model can be built or trained with the values.
    """
    shape = data.read_image(data.split("train")[0]).shape
    height, width = (
        given or max(PATCH, round(have / PATCH) * PATCH)
        for given, have in zip((recipe.height, recipe.width), shape, strict=True)
    )
    resolved = replace(
        recipe,
        height=height,
        width=width,
        crop_height=recipe.crop_height or height,
        crop_width=recipe.crop_width or width,
        last_heads=recipe.last_heads or SIZES[recipe.size].last_heads,
    )
    _require_buildable(resolved)
    return resolved


def _require_buildable(recipe: Recipe) -> None:
    dim = SIZES[recipe.size].dim
    if dim % recipe.last_heads:
        raise UsageError(f"{recipe.last_heads} last_heads do not divide the width {dim} of the {recipe.size} model")
    smallest = min(recipe.height, recipe.width, recipe.crop_height, recipe.crop_width)
    if recipe.head == "uper" and smallest < 2 * PATCH:
        raise UsageError(f"The uper head needs inputs and crops of {2 * PATCH} pixels or more, not {smallest}")
    if recipe.head == "uper" and recipe.batch < 2:
        raise UsageError("The uper head needs a batch of 2 or more: it normalises one value a picture")


def class_weights(pixels: list[int], balance: float) -> Tensor:
    """Return a weight a class, frequency^-balance, scaled so that the mean over the pixels is 1; float32 [classes]."""
    share = np.asarray(pixels, np.float64) / sum(pixels)
    weights = np.where(share > 0, np.maximum(share, 1e-12) ** -balance, 0.0)
    return torch.from_numpy(weights / (weights * share).sum()).float()


def _new_folder(recipe: Recipe, data: DataSet) -> Path:
    name = Path(data.location.partition(":")[2] or data.location).name
    return Path("runs") / f"{recipe.size}-{recipe.head}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"


class Trainer:
    """One rank's view of a run: model, optimiser, data, log."""

    def __init__(self, fabric: lightning_fabric.Fabric, run: Run, data: DataSet) -> None:
        self.fabric, self.run, self.recipe = fabric, run, run.recipe
        torch.manual_seed(self.recipe.seed)
        self.model = runs.build_model(self.recipe, run.classes)
        groups = parameter_groups(
            self.model,
            SIZES[self.recipe.size].depth,
            weight_decay=self.recipe.weight_decay,
            layer_decay=self.recipe.layer_decay,
        )
        pixels = run.provenance["data"]["class_pixels"]["train"]
        weights = class_weights([pixels[name] for name in run.classes.names], self.recipe.balance)
        task = SegmentationTask(self.model, weights, run.classes.ignore)
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.lr, fused=fabric.device.type == "cuda")
        self.task, self.stepper = fabric.setup(task, self.optimizer)
        self.state = State(self.model, self.optimizer, torch.zeros(2, dtype=torch.float64, device=fabric.device))
        agc = self.recipe.agc_parameters()
        share = CACHE_BYTES // max(1, self._workers())
        self.train_pictures = Pictures(data, data.split("train"), agc, cache=share)
        self.val_pictures = Pictures(data, data.split("val"), agc)
        self.stop_signal = 0

    def fit(self) -> Run:
        """Run the remaining steps, evaluate, write weights and report."""
        first, damaged = checkpoint.restore(self.run.path / "checkpoints", self.state)
        for line in damaged:
            self.fabric.print(line)
        log = Log(self.run.path, first=first, steps=self.recipe.steps, on=self.fabric.global_rank == 0)
        with _signals(self), workers_watched(), log:
            for step, (images, labels) in enumerate(self._batches(first), start=first):
                if step and step % self.recipe.evaluate_every == 0:
                    self._evaluate(step, log)
                self._step(step, images, labels)
                self._after(step + 1, log)
            self._require_finite(self.recipe.steps)
            score = self._evaluate(self.recipe.steps, log)
        if self.fabric.global_rank == 0:
            self._finish(score)
        self.fabric.barrier()
        return self.run

    def _batches(self, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        recipe, fabric = self.recipe, self.fabric
        crop = recipe.crop_height, recipe.crop_width
        augment = Augmentation(recipe.height, recipe.width, crop, self.run.classes.ignore, recipe)
        draw = Draw(recipe.seed, recipe.batch, len(self.train_pictures))
        share = {"rank": fabric.global_rank, "ranks": fabric.world_size}
        batches = Batches(self.train_pictures, augment, draw, first=first, last=recipe.steps, **share)
        for images, labels in loader(batches, workers=self._workers(), pin=fabric.device.type == "cuda"):
            yield images.to(fabric.device, non_blocking=True), labels.to(fabric.device, non_blocking=True)

    def _workers(self) -> int:
        on_gpu = self.fabric.device.type == "cuda"
        return (4 if on_gpu else 0) if self.recipe.workers < 0 else self.recipe.workers

    def _step(self, step: int, images: Tensor, labels: Tensor) -> None:
        recipe = self.recipe
        rate = poly_lr(step, base=recipe.lr, steps=recipe.steps, warmup=min(recipe.warmup, recipe.steps // 2))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        # Dropout and drop path draw from the global generator: seeded by the step, so that a resumed run repeats it.
        torch.manual_seed((recipe.seed * 1_000_003 + step) * 1024 + self.fabric.global_rank)
        try:
            loss: Tensor = self.task(images, labels)
            self.fabric.backward(loss)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
                raise
            raise TrainingError(
                f"Out of memory at batch {recipe.batch} of {tuple(images.shape[-2:])} pixels",
                remedy="Lower batch, crop_height and crop_width, or take a smaller --size.",
            ) from error
        if recipe.clip:
            self.fabric.clip_gradients(self.task, self.stepper, max_norm=recipe.clip, error_if_nonfinite=False)
        self.stepper.step()
        self.stepper.zero_grad()
        self.state.loss[0] += loss.detach()
        self.state.loss[1] += 1

    def _after(self, done: int, log: Log) -> None:
        """Log, save, leave: what happens between two steps. ``done`` steps are behind."""
        log.advance()
        if done % LOG_EVERY == 0 or done == self.recipe.steps:
            self._log_loss(done, log)
        stop = self._agreed_stop()
        if stop or (done % self.recipe.checkpoint_every == 0 and done < self.recipe.steps):
            self._save(done)
        if stop:
            self.fabric.print(f"Stopped after step {done}; go on with: edgeunip train --resume {self.run.path}")
            raise SystemExit(128 + stop)

    def _agreed_stop(self) -> int:
        """Return the signal that asked any rank to stop, 0 if none: all ranks leave together."""
        if self.fabric.world_size == 1:
            return self.stop_signal
        asked: Any = self.fabric.all_reduce(torch.tensor(self.stop_signal), reduce_op="max")
        return int(asked)

    def _save(self, done: int) -> None:
        self._require_finite(done)
        self.state.loss.copy_(self._loss_of_all_ranks())
        if self.fabric.global_rank == 0:
            checkpoint.save(self.run.path / "checkpoints", self.state, done)
        self.fabric.barrier()

    def _log_loss(self, done: int, log: Log) -> None:
        """Log the mean loss since the last time, over all ranks.

        Raises:
            TrainingError: it is not finite; the checkpoints on disk are from before.
        """
        total, steps = self._loss_of_all_ranks().tolist()
        if not math.isfinite(total):
            raise self._diverged(f"The loss is {total} by step {done}")
        log.loss(done, total / steps, float(self.optimizer.param_groups[-1]["lr"]))
        self.state.loss.zero_()

    def _loss_of_all_ranks(self) -> Tensor:
        """Return ``state.loss`` as the mean over the ranks, float64 [2]; all ranks must call it."""
        return torch.as_tensor(self.fabric.all_reduce(self.state.loss.clone(), reduce_op="mean"))

    def _diverged(self, what: str) -> TrainingError:
        remedy = "Start a new run with a lower lr or a longer warmup; checkpoints are from before."
        return TrainingError(what, where=self.run.path, remedy=remedy)

    def _require_finite(self, done: int) -> None:
        """Refuse to keep a model that is lost: weights that are not finite never reach the disk."""
        if not all(bool(value.isfinite().all()) for value in (self.state.loss, *self.model.state_dict().values())):
            raise self._diverged(f"The loss or a weight is not finite after step {done}")

    def _evaluate(self, done: int, log: Log) -> Score | None:
        """Score the val split on rank 0."""
        if self.fabric.global_rank:
            return None
        started = time.monotonic()
        self.model.eval()
        score = evaluate(TorchModel(self.model, self.recipe), self.val_pictures, size=self.run.size)
        self.model.train()
        log.score(done, score, took_s=time.monotonic() - started)
        return score

    def _finish(self, score: Score | None) -> None:
        weights = {name: value.contiguous().cpu() for name, value in self.model.state_dict().items()}
        durable.write_bytes(self.run.path / runs.WEIGHTS, safetensors.torch.save(weights))
        if score is not None:
            self.model.eval()
            report.write(self.run, score, TorchModel(self.model, self.recipe), self.val_pictures)


@contextmanager
def _signals(trainer: Trainer) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the run after the step at hand; a second one ends it at once."""

    def ask(number: int, _: FrameType | None) -> None:
        trainer.stop_signal = number
        signal.signal(number, old[signal.Signals(number)])

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
