"""A data set, a teacher and lessons so small that a whole distillation takes a second."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from edgeunip.compress.distill.lesson import Lesson
from edgeunip.scenes import synthesise
from edgeunip.train import fit
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run
from edgeunip.train.settings import override
from edgeunip.train.vit import ViTSize

SMALL = {"tiny": ViTSize(32, 3, 2, 4), "micro": ViTSize(32, 2, 2, 4), "small": ViTSize(48, 3, 2, 4)}
SIZE = {"height": 48, "width": 64}


def recipe(**values: Any) -> Recipe:
    base = Recipe(steps=6, batch=4, warmup=1, checkpoint_every=2, evaluate_every=6, threads=1, precision="32-true")
    return override(base, SIZE | values)


def lesson(teacher: Run, **values: Any) -> Lesson:
    return override(Lesson(teacher=str(teacher.path)), values)


def make_data(folder: Path, *, seed: int = 3) -> DataSet:
    synthesise(folder, 20, sensor="lepton", seed=seed)
    return open_data(str(folder))


def make_teacher(data: DataSet, folder: Path) -> Run:
    return fit.train(recipe(size="tiny", scale_min=1.0, scale_max=1.0), data, folder)


def digest(run: Path) -> str:
    return hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()
