"""``probe``: how much of a segmentation stands in a frozen encoder's features, measured by linear probes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeunip.train import fit, layerwise
from edgeunip.train import run as runs
from edgeunip.train.datasets import DataSet
from edgeunip.train.evaluate import Mode
from edgeunip.train.layerwise import Scores
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run

RECIPE = Recipe(head="linear", clip=0.0)


@dataclass(frozen=True)
class Found:
    """A finished probe and its scores by split: one a probe, in the order of the layers."""

    run: Run
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """Return the run's folder, its layers, and by split one score, or of a layer-wise probe one a layer."""
        head = {"run": str(self.run.path), "layers": self.run.recipe.layers}
        if self.run.probes > 1:
            return head | layerwise.to_json(self.scores)
        return head | {split: score.to_json() for split, (score,) in self.scores.items()}

    def __str__(self) -> str:
        if self.run.probes > 1:
            return layerwise.table(self.scores).rstrip()
        figures = ", ".join(f"{split} mIoU {100 * score.miou:.2f} %" for split, (score,) in self.scores.items())
        return f"layers {self.run.recipe.layers}: {figures}"


def probe(recipe: Recipe, data: DataSet, out: Path | None = None, *, mode: Mode = "whole") -> Found:
    """Train linear probes and score them over val and, where there is one, test.

    Args:
        recipe: its head must be ``linear``.
        data: labelled images.
        out: the run's folder. One that holds this very probe, half or whole, is gone on with.
        mode: how images are scored; see :func:`edgeunip.train.evaluate.evaluate`.
    """
    run = fit.ensure(recipe, data, out) if out else fit.train(recipe, data)
    splits = [split for split in ("val", "test") if split in data.splits]
    scores = {split: runs.score(run, data, split, mode=mode) for split in splits}
    if run.probes > 1:
        layerwise.write(run, scores)
    return Found(run, scores)
