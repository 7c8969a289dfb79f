"""``eval``: one metric for a run and for a bundle on the runtime that will run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeunip import bundle, defaults
from edgeunip.errors import UsageError
from edgeunip.runtimes.open import open_to_judge
from edgeunip.train import run as runs
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.evaluate import Mode, Score, evaluate
from edgeunip.train.loader import Pictures


def score(model: Path, data: str | None, *, splits: str | None, split: str, mode: Mode) -> dict[str, Any]:
    """Score a run or a bundle over a split.

    Returns:
        ``{"miou", "iou": {class: ..}, "accuracy", "images", "runtime"}``, shares 0..1; an absent class has None.
    """
    chosen = open_data(data, splits=splits) if data else None
    if defaults.is_bundle(model):
        found, runtime = _bundle(model, chosen, split, mode)
    else:
        found, runtime = _run(model, chosen, split, mode)
    return {**found.to_json(), "runtime": runtime}


def describe(found: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    rows = [f"  {name:<20} {'absent' if iou is None else f'{100 * iou:6.2f} %'}" for name, iou in found["iou"].items()]
    miou, accuracy = 100 * found["miou"], 100 * found["accuracy"]
    head = f"mIoU {miou:.2f} %, accuracy {accuracy:.2f} %, {found['images']} images, {found['runtime']}"
    return "\n".join([head, *rows])


def _bundle(path: Path, data: DataSet | None, split: str, mode: Mode) -> tuple[Score, str]:
    loaded = bundle.load(path)
    manifest = loaded.manifest
    recorded = manifest.provenance["data"]
    data = data or open_data(recorded["source"], splits=recorded["lists"])
    data.require_classes(manifest.classes.names)
    runtime = open_to_judge(loaded)
    try:
        pictures = Pictures(data, data.split(split), manifest.agc)
        return evaluate(runtime, pictures, size=(manifest.height, manifest.width), mode=mode), runtime.name
    finally:
        runtime.close()


def _run(path: Path, data: DataSet | None, split: str, mode: Mode) -> tuple[Score, str]:
    run = runs.open_run(path)
    if run.probes > 1:
        raise UsageError(
            f"The run holds {run.probes} probes", where=path, remedy="Their scores are in report/layers.json."
        )
    (found,) = runs.score(run, data or run.data(), split, mode=mode)
    return found, f"torch {runs.best_device()}"
