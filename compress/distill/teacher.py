"""The teacher: a finished run, its outputs for whole pictures, and the facts that name it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgeunip import thermal
from edgeunip.errors import UsageError
from edgeunip.train import run as runs
from edgeunip.train.augment import planes
from edgeunip.train.linear import LinearSegmentor
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run
from edgeunip.train.segmentor import Teachable

PICTURE = ("modality", "agc", "mean", "std")
SIZE = ("height", "width", "crop_height", "crop_width")


class Teacher:
    """A finished run that answers pictures with its logits and its last layer's map.

    Args:
        run: the teacher's.
        device: where it computes.

    Raises:
        UsageError: it is a linear probe.
        RunError: it has not ended.
    """

    def __init__(self, run: Run, device: torch.device) -> None:
        model = run.model()
        if isinstance(model, LinearSegmentor):
            raise UsageError("A linear probe cannot teach", where=run.path, remedy="Name a run of edgeunip train.")
        self.run = run
        self.model: Teachable = model.requires_grad_(False).to(device)
        self.sha256 = hashlib.sha256((run.path / runs.WEIGHTS).read_bytes()).hexdigest()

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Map an AGC picture of any size, uint8 [H, W] or [H, W, 3], to what it teaches.

        Returns:
            Logits [classes, h / 4, w / 4] and the map [dim, h / 16, w / 16] at its own input size (h, w), float16.
        """
        recipe = self.run.recipe
        fitted = planes(thermal.fit(picture, *self.run.size))
        images = torch.from_numpy(fitted).to(next(self.model.parameters()).device, torch.float32)[None]
        logits, features = self.model.taught((images - recipe.mean) / recipe.std)
        return _half(logits[0][0][0]), _half(features[0])

    def facts(self) -> dict[str, Any]:
        """Return what the student's provenance keeps of it; its licence binds the student."""
        return {"source": str(self.run.path.resolve()), "sha256": self.sha256, "licence": _licence(self.run)}


def open_run(name: str) -> Run:
    """Open the run that teaches.

    Raises:
        UsageError: none is named.
        RunError: it is none.
    """
    if not name:
        raise UsageError("A student needs a teacher", remedy="Name a finished run: edgeunip distill --teacher RUN.")
    return runs.open_run(Path(name))


def student_recipe(run: Run) -> Recipe:
    """Return the recipe a student starts from: the teacher's pictures, everything else as training has it."""
    return Recipe(**{name: getattr(run.recipe, name) for name in PICTURE})


def with_size(recipe: Recipe, run: Run) -> Recipe:
    """Give a student whose input size was left open the teacher's, and its crop."""
    if recipe.height or recipe.width or recipe.crop_height or recipe.crop_width:
        return recipe
    return replace(recipe, **{name: getattr(run.recipe, name) for name in SIZE})


def _half(answer: torch.Tensor) -> NDArray[np.float16]:
    limit = torch.finfo(torch.float16).max
    half: NDArray[np.float16] = answer.float().clamp(-limit, limit).half().cpu().numpy()
    return half


def _licence(run: Run) -> str | None:
    parts = (run.provenance.get("init"), run.provenance.get("teacher"))
    found = [part["licence"] for part in parts if isinstance(part, dict) and part.get("licence")]
    return str(found[0]) if found else None
