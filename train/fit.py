"""The training loop: ``train`` starts a run, ``resume`` goes on with one from its newest whole checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import lightning_fabric
import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from edgeunip import durable
from edgeunip.errors import RunError, UsageError
from edgeunip.train import check, report
from edgeunip.train import run as runs
from edgeunip.train.augment import Augmentation
from edgeunip.train.checkpoint import State
from edgeunip.train.datasets import DataSet
from edgeunip.train.evaluate import Score, evaluate
from edgeunip.train.launch import launch, one_rank_first, owned
from edgeunip.train.loader import CACHE_BYTES, Batches, Draw, Pictures, loader
from edgeunip.train.loop import Loop, memory_told
from edgeunip.train.optim import parameter_groups, poly_lr
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run, TorchModel
from edgeunip.train.segmentor import SegmentationTask
from edgeunip.train.vit import PATCH, SIZES


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
        state = State(self.model, self.optimizer, torch.zeros(2, dtype=torch.float64, device=fabric.device))
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
            command=f"edgeunip train --resume {run.path}",
        )

    def fit(self) -> Run:
        """Run the remaining steps, evaluate, write weights and report."""
        with self.loop.started() as first:
            for step, (images, labels) in enumerate(self._batches(first), start=first):
                if step and step % self.recipe.evaluate_every == 0:
                    self._evaluate(step)
                self._step(step, images, labels)
                self.loop.after(step + 1)
            self.loop.require_finite(self.recipe.steps)
            score = self._evaluate(self.recipe.steps)
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
        self.loop.seed(recipe.seed, step)
        remedy = "Lower batch, crop_height and crop_width, or take a smaller --size."
        with memory_told(f"batch {recipe.batch} of {tuple(images.shape[-2:])} pixels", remedy):
            loss: Tensor = self.task(images, labels)
            self.fabric.backward(loss)
        if recipe.clip:
            self.fabric.clip_gradients(self.task, self.stepper, max_norm=recipe.clip, error_if_nonfinite=False)
        self.stepper.step()
        self.stepper.zero_grad()
        self.loop.count(loss)

    def _evaluate(self, done: int) -> Score | None:
        """Score the val split on rank 0."""
        if self.fabric.global_rank:
            return None
        started = time.monotonic()
        self.model.eval()
        score = evaluate(TorchModel(self.model, self.recipe), self.val_pictures, size=self.run.size)
        self.model.train()
        told = f"val mIoU {100 * score.miou:.1f}, accuracy {100 * score.accuracy:.1f}"
        self.loop.log.score(done, score.to_json(), told, took_s=time.monotonic() - started)
        return score

    def _finish(self, score: Score | None) -> None:
        weights = {name: value.contiguous().cpu() for name, value in self.model.state_dict().items()}
        durable.write_bytes(self.run.path / runs.WEIGHTS, safetensors.torch.save(weights))
        if score is not None:
            self.model.eval()
            report.write(self.run, score, TorchModel(self.model, self.recipe), self.val_pictures)
