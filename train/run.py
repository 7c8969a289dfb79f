"""The run folder: what a training run leaves behind, and the model read back from it."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from edgeunip import __version__, durable
from edgeunip.classes import Classes
from edgeunip.errors import RunError
from edgeunip.thermal import Radiometry, radiometry_from_json, radiometry_to_json
from edgeunip.train import checkpoint, conv, segmentor, settings
from edgeunip.train.augment import planes
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.encoder import Origin
from edgeunip.train.evaluate import Mode, Score, evaluate_probes
from edgeunip.train.linear import parse_layers
from edgeunip.train.loader import Pictures
from edgeunip.train.recipe import Recipe
from edgeunip.train.vit import PATCH, SIZES, Backbone

RECIPE, WEIGHTS, PROVENANCE = "recipe.toml", "weights.safetensors", "provenance.json"
PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "torchmetrics", "numpy", "opencv-python-headless")


@dataclass(frozen=True)
class Run:
    """A training run's folder.

    Attributes:
        path: the folder.
        recipe: all values, resolved.
        classes: of the data it was trained on.
        radiometry: how that data's counts become degC, None for bare counts.
        provenance: the content of ``provenance.json``.
    """

    path: Path
    recipe: Recipe
    classes: Classes
    radiometry: Radiometry | None
    provenance: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input, pixels."""
        return self.recipe.height, self.recipe.width

    @property
    def is_taught(self) -> bool:
        """Whether it is a distillation, whose loss needs its teacher."""
        return bool(self.provenance.get("teacher"))

    def data(self) -> DataSet:
        """Open the data set the run was trained on.

        Raises:
            DataError: it is no longer where it was.
        """
        data = open_data(self.provenance["data"]["source"], splits=self.provenance["data"]["lists"])
        return data.seen_as(self.recipe.modality)

    @property
    def probes(self) -> int:
        """Segmentations the model gives at once: those of a layer-wise probe, else 1."""
        recipe = self.recipe
        return len(parse_layers(recipe.layers, SIZES[recipe.size].depth)) if recipe.head == "linear" else 1

    def model(self) -> segmentor.Segmentor:
        """Read the trained model, in eval mode.

        Raises:
            RunError: the run has not ended, or its weights do not fit.
        """
        path = self.path / WEIGHTS
        if not path.is_file():
            raise RunError("The run has no weights yet", where=self.path, remedy="Let it end, or go on with --resume.")
        model = build_model(self.recipe, self.classes)
        checkpoint.load_weights(model, safetensors.torch.load(path.read_bytes()), path)
        return model.eval()


class TorchModel:
    """A model as the metric and the exporter call it: picture in, logits out (``evaluate.Predict``)."""

    def __init__(self, model: segmentor.Segmentor, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.device = next(model.parameters()).device

    @torch.inference_mode()
    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map a picture, uint8 [H, W] or [H, W, 3], to logits, float32 [classes, h, w]; of several probes in turn."""
        image = torch.from_numpy(planes(picture)).to(self.device, torch.float32)[None]
        logits = self.model((image - self.recipe.mean) / self.recipe.std)
        result: NDArray[np.float32] = logits[0].float().cpu().numpy()
        return result


def best_device() -> str:
    """Return the kind of device a model runs on here: ``cuda`` where there is a GPU, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def build_model(recipe: Recipe, classes: Classes) -> segmentor.Segmentor:
    """Make the untrained model of a resolved recipe; its position table has the grid of a training crop."""
    channels = 3 if recipe.modality == "rgb" else 1
    if recipe.is_convolutional:
        rates = {"drop_path": recipe.drop_path, "dropout": recipe.dropout}
        return conv.build(conv.CONV_SIZES[recipe.size], len(classes), channels=channels, **rates)
    grid = recipe.crop_height // PATCH, recipe.crop_width // PATCH
    size = SIZES[recipe.size]
    if recipe.last_heads:
        size = type(size)(size.dim, size.depth, size.heads, recipe.last_heads)
    backbone = Backbone(size, grid, channels=channels, drop_path=recipe.drop_path, merge=recipe.merge)
    return segmentor.build(backbone, recipe.head, len(classes), dropout=recipe.dropout, layers=recipe.layers)


def score(run: Run, data: DataSet, split: str, *, mode: Mode = "whole") -> tuple[Score, ...]:
    """Score a finished run's model over a split, on the GPU where there is one; one score a probe.

    Raises:
        RunError: the run has not ended.
        DataError: the data set has no such split.
        UsageError: it has other classes.
    """
    data.require_classes(run.classes.names)
    model = run.model().to(best_device())
    pictures = Pictures(data.seen_as(run.recipe.modality), data.split(split), run.recipe.agc_parameters())
    return evaluate_probes(TorchModel(model, run.recipe), pictures, size=run.size, mode=mode, probes=run.probes)


def create(
    path: Path,
    recipe: Recipe,
    data: DataSet,
    facts: dict[str, Any],
    *,
    init: Origin | None = None,
    teacher: dict[str, Any] | None = None,
    beside: Mapping[str, str] | None = None,
) -> Run:
    """Make a new run folder and point ``latest`` beside it to it.

    Args:
        path: the folder; must not hold a run.
        recipe: resolved.
        data: what it trains on.
        facts: added to the provenance (data hashes, class pixels, ..).
        init: where the encoder it starts from comes from.
        teacher: what teaches it, for the provenance.
        beside: more text files of the folder, by name.

    Raises:
        RunError: the folder holds a run already.
    """
    about = {
        "data": {"source": data.location, "lists": data.lists, "classes": data.classes.to_json(), **facts},
        "radiometry": radiometry_to_json(data.radiometry),
        "init": asdict(init) if init else None,
        "teacher": teacher,
    }
    write_start(path, recipe.to_toml(), about, beside=beside)
    place = path.resolve()
    durable.link(place.name, place.parent / "latest")
    return open_run(path)


def write_start(path: Path, recipe: str, about: dict[str, Any], *, beside: Mapping[str, str] | None = None) -> None:
    """Make a run's folder: its recipe, TOML, its provenance (``about``, versions, machine, command and time), and more.

    Raises:
        RunError: the folder holds a run already.
    """
    # Checkpoints without a recipe are left when a folder is deleted under a run that is about to end: not ours.
    if (path / RECIPE).exists() or checkpoint.exists(path / checkpoint.FOLDER):
        remedy = "Go on with --resume, or name another --out."
        raise RunError("The folder holds a run already", where=path, remedy=remedy)
    here = {"versions": versions(), "machine": machine(), "command": sys.argv}
    path.mkdir(parents=True, exist_ok=True)
    durable.write_json(path / PROVENANCE, about | here | {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z")})
    for name, text in (beside or {}).items():
        durable.write_text(path / name, text)
    durable.write_text(path / RECIPE, recipe)  # last: it makes the folder a run


def open_run(path: Path) -> Run:
    """Open a run's folder.

    Raises:
        RunError: it is none, or incomplete.
    """
    if not (path / RECIPE).is_file():
        why = "no such folder" if not path.exists() else f"it holds no {RECIPE}"
        raise RunError("Not a training run", where=path, why=why, remedy="Train one first: edgeunip train --data DIR.")
    values = settings.read(path / RECIPE, Recipe())
    try:
        provenance = json.loads((path / PROVENANCE).read_bytes())
        classes = Classes.from_json(provenance["data"]["classes"])
        radiometry = radiometry_from_json(provenance["radiometry"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError("The run's provenance is damaged", where=path / PROVENANCE, why=error) from error
    return Run(path, values, classes, radiometry, provenance)


def latest(runs: Path) -> Path:
    """Return the newest run in the folder ``runs``.

    Raises:
        RunError: there is none.
    """
    pointer = runs / "latest"
    if not pointer.exists():
        raise RunError("No training run", where=runs, remedy="Train one first: edgeunip train, or name a run.")
    return pointer.resolve()


def versions() -> dict[str, str]:
    """Return the versions of edgeunip, Python and the packages a result depends on."""
    found = {"edgeunip": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        found[package] = metadata.version(package)
    return found


def machine() -> dict[str, Any]:
    """Return what this machine is: processor, cores, GPU."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": gpus,
        "system": platform.platform(),
    }


def processor() -> str:
    """Return the processor's own name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
