"""The report of a layer-wise probe: how well each block's output can be read, as plot, table and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from edgeunip import durable
from edgeunip.train.evaluate import Score
from edgeunip.train.report import encode
from edgeunip.train.run import Run

Scores = Mapping[str, tuple[Score, ...]]
"""By split, the score of the probe on each block, first to last."""


def write(run: Run, scores: Scores) -> None:
    """Write ``layers.png``, ``layers.md`` and ``layers.json`` into ``report/`` of a run."""
    folder = run.path / "report"
    durable.write_bytes(folder / "layers.png", _plot(scores))
    durable.write_text(folder / "layers.md", table(scores))
    durable.write_json(folder / "layers.json", to_json(scores))


def to_json(scores: Scores) -> dict[str, Any]:
    """Return by split the scores of the layers, counted from 1."""
    return {
        split: [{"layer": layer, **score.to_json()} for layer, score in enumerate(found, start=1)]
        for split, found in scores.items()
    }


def table(scores: Scores) -> str:
    """Return mIoU (%) over the layers as a Markdown table."""
    head = ["| layer |", *(f" {split} mIoU, % |" for split in scores)]
    rows = zip(*scores.values(), strict=True)
    lines = [
        "".join([f"| {layer} |", *(f" {100 * score.miou:.2f} |" for score in row)])
        for layer, row in enumerate(rows, start=1)
    ]
    return "\n".join(["".join(head), "|---" * (1 + len(scores)) + "|", *lines, ""])


def _plot(scores: Scores) -> bytes:
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    for split, found in scores.items():
        axes.plot(range(1, len(found) + 1), [100 * score.miou for score in found], marker="o", label=split)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(title="linear probe on one layer", xlabel="layer", ylabel="mIoU, %")
    axes.grid(alpha=0.3)
    axes.legend()
    return encode(figure)
