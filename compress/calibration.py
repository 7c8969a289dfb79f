"""The pictures int8 is calibrated on: real ones, made by the run's own AGC."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip import images, thermal
from edgeunip.errors import DataError
from edgeunip.train.datasets import DataSet
from edgeunip.train.run import Run

PICTURES = 128
FEWEST = 10


@dataclass(frozen=True)
class Calibration:
    """Real pictures of the model's input size, made by the run's own AGC.

    Attributes:
        source: where they come from, for the manifest.
        pictures: uint8 [H, W] each.

    Raises:
        DataError: the pictures are constant, so that no range can be found.
    """

    source: str
    pictures: Sequence[NDArray[np.uint8]]

    def __post_init__(self) -> None:
        if all(int(picture.max()) == int(picture.min()) for picture in self.pictures):
            raise DataError("The calibration pictures are all of one gray", where=self.source)

    def to_json(self) -> dict[str, Any]:
        """Return source, number and SHA-256 of the pictures, and their gray histogram in 16 bins (shares)."""
        digest = hashlib.sha256()
        histogram = np.zeros(16, np.int64)
        for picture in self.pictures:
            digest.update(picture.tobytes())
            histogram += np.bincount(picture.ravel() >> 4, minlength=16)
        shares = np.round(histogram / histogram.sum(), 6).tolist()
        return {"source": self.source, "images": len(self.pictures), "sha256": digest.hexdigest(), "histogram": shares}


def from_training_split(run: Run, data: DataSet) -> Calibration:
    """Take pictures spread evenly over the run's own training split."""
    samples = data.split("train")
    chosen = [samples[index] for index in _spread(len(samples))]
    return Calibration("train split", [_picture(run, data.read_image(sample), data.radiometry) for sample in chosen])


def from_folder(run: Run, folder: Path) -> Calibration:
    """Take pictures spread evenly over a folder of thermal images.

    Raises:
        DataError: the folder has fewer than ten images, or one cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    if len(paths) < FEWEST:
        why = f"{len(paths)} images" if folder.is_dir() else "no such folder"
        raise DataError("Too little to calibrate on", where=folder, why=why, remedy=f"Give at least {FEWEST} images.")
    chosen = [images.read_counts(paths[index]) for index in _spread(len(paths))]
    pictures = [_picture(run, counts, radiometry) for counts, radiometry in chosen]
    return Calibration(folder.name, pictures)


def _spread(count: int) -> list[int]:
    return [int(index) for index in np.linspace(0, count - 1, min(PICTURES, count)).astype(int)]


def _picture(run: Run, counts: thermal.Counts, radiometry: thermal.Radiometry | None) -> NDArray[np.uint8]:
    return thermal.fit(run.recipe.agc_parameters().picture(counts, radiometry), *run.size)
