"""The training loop: ``train`` starts a run, ``resume`` goes on with one from its newest whole checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning_fabric
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from edgeunip import durable
from edgeunip.errors import RunError
from edgeunip.train import check, checkpoint, init, layerwise, report
from edgeunip.train import run as runs
from edgeunip.train.augment import Augmentation
from edgeunip.train.checkpoint import State
from edgeunip.train.datasets import DataSet
from edgeunip.train.encoder import Encoder
from edgeunip.train.evaluate import Score, evaluate_probes
from edgeunip.train.launch import launch, one_rank_first, owned
from edgeunip.train.loader import CACHE_BYTES, Batches, Draw, Pictures, loader
from edgeunip.train.loop import Loop, memory_told
from edgeunip.train.optim import adamw, parameter_groups, poly_lr
from edgeunip.train.recipe import Recipe
from edgeunip.train.resolve import differences, resolve
from edgeunip.train.run import Run, TorchModel
from edgeunip.train.segmentor import SegmentationTask, Segmentor

Start = Callable[[Segmentor], None]
"""What fills an untrained model with the weights it starts from."""


def train(recipe: Recipe, data: DataSet, out: Path | None = None, *, start: Encoder | None = None) -> Run:
    """Train a model on ``data`` and leave the run in the folder ``out`` (by default a new one in ``runs/``).

    Every image of the train and val splits is checked first, so that no bad file can end the run later.

    Args:
        recipe: its values of 0 are filled in from the data, its ``auto`` from the encoder it starts from.
        data: what is trained on.
        out: the run's folder.
        start: the encoder ``recipe.init`` names, where it is open already.

    Raises:
        DataError: the data set has a defect.
        UsageError: the recipe does not fit the data.
        RunError: ``out`` holds a run already.
        TrainingError: the loss is not finite, or memory is exhausted.
        StorageError: something cannot be written; checkpoints already written stay.
    """
    fabric = launch(recipe)
    data = data.seen_as(recipe.modality)
    with one_rank_first(fabric):
        start = start or init.open_start(recipe, fabric.print)
        facts = checked(data)
    recipe = resolve(recipe, data, start)
    out = fabric.broadcast(out or new_folder(recipe, data))
    with owned(fabric, out):
        if fabric.global_rank == 0:
            runs.create(out, recipe, data, facts, init=start.origin if start else None)
        fabric.barrier()
        return Trainer(fabric, runs.open_run(out), data, loading(start)).fit()


def resume(path: Path, data: DataSet | None = None) -> Run:
    """Go on with the run in ``path`` from its newest whole checkpoint, to the very weights it would have ended with.

    Args:
        path: the run's folder.
        data: the data set, where it is no longer at the place the run was started with.

    Raises:
        RunError: the folder is no run, or the data are not those it was started with.
    """
    run = runs.open_run(path)
    if run.is_taught:
        raise RunError("The run has a teacher", where=path, remedy=f"Go on with: edgeunip distill --resume {path}")
    data = (data or run.data()).seen_as(run.recipe.modality)
    fabric = launch(run.recipe)
    require_unchanged(run, data)
    # A run that was stopped before its start was saved as a checkpoint needs the encoder once more.
    start = None if checkpoint.exists(path / checkpoint.FOLDER) else init.open_start(run.recipe, fabric.print)
    with owned(fabric, path):
        return Trainer(fabric, run, data, loading(start)).fit()


def checked(data: DataSet) -> dict[str, Any]:
    """Check every image of the train and val splits; return fingerprints and class pixels, for the provenance.

    Raises:
        DataError: the data set has a defect.
    """
    sound = check.require_sound(data, ["train", "val"])
    return {
        "fingerprints": {name: data.fingerprint(name) for name in ("train", "val")},
        "class_pixels": {name: dict(pixels) for name, pixels in sound.class_pixels.items()},
    }


def require_unchanged(run: Run, data: DataSet) -> None:
    """Refuse to go on with a run on other data.

    Raises:
        RunError: a split is not the one the run was started with.
    """
    for name, fingerprint in run.provenance["data"]["fingerprints"].items():
        if data.fingerprint(name) != fingerprint:
            raise RunError(f"The {name} split has changed since the run was started", where=data.source)


def loading(start: Encoder | None) -> Start | None:
    """Return what sets a model's backbone from an encoder; None without one."""
    return (lambda model: init.load(model.backbone, start)) if start else None  # type: ignore[arg-type]


def ensure(recipe: Recipe, data: DataSet, out: Path) -> Run:
    """Return the finished run of a recipe in the folder ``out``: trained now, gone on with, or found there.

    Raises:
        RunError: the folder holds a run of another recipe or on other data.
    """
    if not (out / runs.RECIPE).exists():
        return train(recipe, data, out)
    run = runs.open_run(out)
    trained_on = run.provenance["data"]
    differing = differences(recipe, run.recipe)
    if (data.location, data.lists) != (trained_on["source"], trained_on["lists"]):
        differing.append(f"it is on {trained_on['source']}, not {data.location}")
    if differing:
        raise RunError(
            "The folder holds another run", where=out, why="; ".join(differing), remedy="Name another --out."
        )
    return run if (out / runs.WEIGHTS).is_file() else resume(out, data)


def class_weights(pixels: list[int], balance: float) -> Tensor:
    """Return a weight a class, frequency^-balance, scaled so that the mean over the pixels is 1; float32 [classes]."""
    share = np.asarray(pixels, np.float64) / sum(pixels)
    weights = np.where(share > 0, np.maximum(share, 1e-12) ** -balance, 0.0)
    return torch.from_numpy(weights / (weights * share).sum()).float()


def new_folder(recipe: Recipe, data: DataSet) -> Path:
    """Return where a run goes whose folder is not named."""
    name = Path(data.location.partition(":")[2] or data.location).name
    return Path("runs") / f"{recipe.size}-{recipe.head}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"


class Trainer:
    """One rank's view of a run: model, optimiser, data, log.

    Args:
        fabric: devices and ranks.
        run: its folder, with or without checkpoints.
        data: what it trains on.
        start: fills the untrained model; only before the first checkpoint.
    """

    command = "edgeunip train"

    def __init__(self, fabric: lightning_fabric.Fabric, run: Run, data: DataSet, start: Start | None = None) -> None:
        self.fabric, self.run, self.recipe = fabric, run, run.recipe
        torch.manual_seed(self.recipe.seed)
        self.model = runs.build_model(self.recipe, run.classes)
        if start:
            start(self.model)
        pixels = run.provenance["data"]["class_pixels"]["train"]
        task = self._make_task(class_weights([pixels[name] for name in run.classes.names], self.recipe.balance))
        groups = parameter_groups(
            task.trained,
            self.model.backbone.depth,
            weight_decay=self.recipe.weight_decay,
            layer_decay=self.recipe.layer_decay,
        )
        self.optimizer = adamw(groups, precision=self.recipe.precision)
        self.task, self.stepper = fabric.setup(task, self.optimizer)
        state = State.fresh(task.trained, self.optimizer, fabric)
        if start and fabric.global_rank == 0:
            checkpoint.save(run.path / checkpoint.FOLDER, state, 0)  # a resume shall not need the encoder again
        fabric.barrier()
        agc = self.recipe.agc_parameters()
        share = CACHE_BYTES // max(1, self._workers())
        self.train_pictures = Pictures(data, data.split("train"), agc, cache=share)
        self.val_pictures = Pictures(data, data.split("val"), agc)
        self.loop = Loop(
            fabric,
            run.path,
            state,
            steps=self.recipe.steps,
            checkpoint_every=self.recipe.checkpoint_every,
            command=f"{self.command} --resume {run.path}",
        )

    def fit(self) -> Run:
        """Run the remaining steps, evaluate, write weights and report."""
        with self.loop.started() as first:
            for step, batch in enumerate(self._batches(first), start=first):
                if step and step % self.recipe.evaluate_every == 0:
                    self._evaluate(step)
                self._step(step, *batch)
                self.loop.after(step + 1)
            self.loop.require_finite(self.recipe.steps)
            score = self._evaluate(self.recipe.steps)
        if self.fabric.global_rank == 0:
            self._finish(score)
        self.fabric.barrier()
        return self.run

    def _make_task(self, weights: Tensor) -> SegmentationTask:
        """Make what turns a batch into a loss; ``weights`` are those of the classes."""
        return SegmentationTask(self.model, weights, self.run.classes.ignore)

    def _make_batches(self, augment: Augmentation, share: dict[str, int]) -> Batches:
        """Make the steps' batches; ``share`` says from which step to which, and which rank of how many."""
        draw = Draw(self.recipe.seed, self.recipe.batch, len(self.train_pictures))
        return Batches(self.train_pictures, augment, draw, **share)

    def _batches(self, first: int) -> Iterator[tuple[Tensor, ...]]:
        recipe, fabric = self.recipe, self.fabric
        crop = recipe.crop_height, recipe.crop_width
        augment = Augmentation(recipe.height, recipe.width, crop, self.run.classes.ignore, recipe)
        share = {"first": first, "last": recipe.steps, "rank": fabric.global_rank, "ranks": fabric.world_size}
        batches = self._make_batches(augment, share)
        for batch in loader(batches, workers=self._workers(), pin=fabric.device.type == "cuda"):
            yield tuple(part.to(fabric.device, non_blocking=True) for part in batch)

    def _workers(self) -> int:
        on_gpu = self.fabric.device.type == "cuda"
        return (4 if on_gpu else 0) if self.recipe.workers < 0 else self.recipe.workers

    def _step(self, step: int, *batch: Tensor) -> None:
        recipe = self.recipe
        rate = poly_lr(step, base=recipe.lr, steps=recipe.steps, warmup=min(recipe.warmup, recipe.steps // 2))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.loop.seed(recipe.seed, step)
        remedy = "Lower batch, crop_height and crop_width, or take a smaller --size."
        with memory_told(f"batch {recipe.batch} of {tuple(batch[0].shape[-2:])} pixels", remedy):
            loss: Tensor = self.task(*batch)
            self.fabric.backward(loss)
        if recipe.clip:
            self.fabric.clip_gradients(self.task, self.stepper, max_norm=recipe.clip, error_if_nonfinite=False)
        self.stepper.step()
        self.stepper.zero_grad()
        self.loop.count(loss)

    def _evaluate(self, done: int) -> tuple[Score, ...]:
        """Score the val split on rank 0."""
        if self.fabric.global_rank:
            return ()
        started = time.monotonic()
        self.model.eval()
        predict = TorchModel(self.model, self.recipe)
        scores = evaluate_probes(predict, self.val_pictures, size=self.run.size, probes=self.run.probes)
        self.model.train()
        best = max(scores, key=lambda score: score.miou)
        told = f"val mIoU {100 * best.miou:.1f}, accuracy {100 * best.accuracy:.1f}"
        told += f" (best of {len(scores)} probes)" if len(scores) > 1 else ""
        self.loop.log.score(done, best.to_json(), told, took_s=time.monotonic() - started)
        return scores

    def _finish(self, scores: tuple[Score, ...]) -> None:
        weights = {name: value.contiguous().cpu() for name, value in self.model.state_dict().items()}
        durable.write_bytes(self.run.path / runs.WEIGHTS, safetensors.torch.save(weights))
        self.model.eval()
        if len(scores) > 1:
            layerwise.write(self.run, {"val": scores})
        else:
            report.write(self.run, scores[0], TorchModel(self.model, self.recipe), self.val_pictures)
