"""Labelled thermal data sets: what is in which split, and the reading of images and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from edgeunip import images
from edgeunip.classes import Classes
from edgeunip.errors import DataError, UsageError, near
from edgeunip.thermal import Counts, Radiometry
from edgeunip.train import labels, layouts
from edgeunip.train.layouts import Modality, Sample

__all__ = ["DataSet", "Sample", "open_data"]

_RGBA_IN_BGRA = (2, 1, 0, 3)


def open_data(source: str, *, splits: str | None = None) -> DataSet:
    """Open a data set; no image is read yet.

    Args:
        source: ``DIR`` in the project's folder format, or ``soda:DIR``, ``mfnet:DIR``, ``scut:DIR``, ``msrs:DIR``.
        splits: sub-folder of ``DIR`` that holds ``train.txt``, ``val.txt``, ``test.txt``; None for ``DIR`` itself.

    Raises:
        DataError: ``DIR`` is not there or not laid out as its kind is.
    """
    kind, colon, place = source.partition(":")
    named = bool(colon) and kind in layouts.LAYOUTS
    root = Path(place if named else source).expanduser()
    if not root.is_dir():
        raise DataError("No such data-set folder", where=root, remedy=_unknown_kind(source, named=named))
    read = layouts.LAYOUTS[kind] if named else layouts.folder
    layout = read(root, splits)
    location = f"{kind}:{root.resolve()}" if named else str(root.resolve())
    return DataSet(
        source, layout.classes, layout.splits, layout.radiometry, layout.remap, layout.channel, location, splits
    )


def _unknown_kind(source: str, *, named: bool) -> str | None:
    kind, colon, place = source.partition(":")
    return near(kind, layouts.LAYOUTS) if colon and not named and Path(place).is_dir() else None


@dataclass(frozen=True)
class DataSet:
    """A labelled data set.

    Attributes:
        source: as the user wrote it.
        classes: names, colours and ignore index.
        splits: the samples of ``train``, ``val`` and ``test``, those that exist, in the order of their lists.
        radiometry: how counts become degC; None where the images give bare counts.
        remap: train label of each of the 256 raw labels; None where the files hold train labels.
        channel: the channel of an RGBA image file that holds thermal; None where files have one channel.
        location: ``source`` with an absolute path, which opens the same set from any folder.
        lists: the sub-folder of the split lists, as given to :func:`open_data`.
        modality: what the images are taken for: ``rgb`` has three channels, ``thermal`` and ``depth`` one.
    """

    source: str
    classes: Classes
    splits: Mapping[str, tuple[Sample, ...]]
    radiometry: Radiometry | None = None
    remap: tuple[int, ...] | None = None
    channel: int | None = None
    location: str = ""
    lists: str | None = None
    modality: Modality = "thermal"

    def seen_as(self, modality: str) -> DataSet:
        """Return the same data set with its images taken for another modality.

        Raises:
            UsageError: there is no such modality.
        """
        if modality not in get_args(Modality):
            raise UsageError("Unknown modality", where=modality, remedy=near(modality, get_args(Modality)))
        return replace(self, modality=cast(Modality, modality))

    def require_classes(self, names: tuple[str, ...], *, who: str = "model") -> None:
        """Refuse to be the data of a model (or what ``who`` says) that knows other classes.

        Raises:
            UsageError: the classes differ.
        """
        if self.classes.names != names:
            has, knows = ", ".join(self.classes.names), ", ".join(names)
            raise UsageError(f"The data set has the classes {has}; the {who} knows {knows}", where=self.source)

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of a split.

        Raises:
            DataError: the data set has no such split; the message names those it has.
        """
        if name not in self.splits:
            raise DataError(f"No split {name}", where=self.source, remedy=near(name, self.splits))
        return self.splits[name]

    def read_image(self, sample: Sample) -> Counts:
        """Read the counts of a sample, uint8 or uint16 as stored, shape (H, W).

        With modality ``rgb`` read its colours, uint8 (H, W, 3), red green blue; a gray file gives three equal channels.

        Raises:
            DataError: the file is missing, damaged, of another depth, or in colour where one channel is wanted.
        """
        return self.decode_image(images.read_bytes(sample.image), sample.image)

    def read_label(self, sample: Sample) -> NDArray[np.uint8]:
        """Read the class index of every pixel, shape (H, W); the ignore index stands for no class.

        Raises:
            DataError: the file is missing, damaged, not one 8-bit channel, or holds a value that is no class.
        """
        raw = labels.decode(images.read_bytes(sample.label, "label"), sample.label)
        label = raw if self.remap is None else self.table()[raw]
        if ((label >= len(self.classes)) & (label != self.classes.ignore)).any():
            values = self.strange(np.bincount(raw.ravel(), minlength=256))
            raise DataError("A label is out of range", where=sample.label, why=self.describe(values))
        return label

    def decode_image(self, data: bytes, path: Path) -> Counts:
        """Decode an image file's bytes as :meth:`read_image` does; ``path`` is for the message."""
        if self.modality == "rgb":
            return _colour(data, path)
        if self.channel is None:
            return images.parse(data, path)[0]
        return _channel(data, path, self.channel)

    def table(self) -> NDArray[np.uint8]:
        """Return the train label of every raw label, shape (256,)."""
        return np.arange(256, dtype=np.uint8) if self.remap is None else np.array(self.remap, np.uint8)

    def strange(self, histogram: NDArray[np.intp]) -> dict[int, int]:
        """Return the pixel count of each raw label in a histogram, shape (256,), that is no class and not ignored."""
        table = self.table()
        strange = (table >= len(self.classes)) & (table != self.classes.ignore) & (histogram > 0)
        return {int(value): int(histogram[value]) for value in np.flatnonzero(strange)}

    def describe(self, values: Mapping[int, int]) -> str:
        """Tell in words which labels, and how many pixels of each, are out of range."""
        shown = ", ".join(f"{value} ({count} pixels)" for value, count in list(values.items())[:8])
        more = f" and {len(values) - 8} more values" if len(values) > 8 else ""
        hint = "; the label looks anti-aliased, resize labels with nearest neighbour" if len(values) > 8 else ""
        allowed = f"0..{len(self.classes) - 1}" if self.remap is None else "the known raw ids"
        return f"{shown}{more}; allowed are {allowed} and {self.classes.ignore}{hint}"

    def fingerprint(self, name: str) -> str:
        """Return the SHA-256 (hexadecimal) over the names and contents of a split's files, in no matter which order."""
        digest = hashlib.sha256()
        for sample in sorted(self.split(name), key=lambda sample: sample.stem):
            for path, noun in ((sample.image, "image"), (sample.label, "label")):
                content = hashlib.sha256(images.read_bytes(path, noun)).hexdigest()
                digest.update(f"{noun}\0{sample.stem}\0{path.suffix}\0{content}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()


def _colour(data: bytes, path: Path) -> NDArray[np.uint8]:
    image = images.decode_channels(data, path)
    if image.dtype != np.uint8:
        raise DataError(f"The colour image holds {image.dtype}; 8 bits a channel are read", where=path)
    blue_green_red = np.atleast_3d(image.view(np.uint8))[..., :3]
    return np.ascontiguousarray(np.broadcast_to(blue_green_red[..., ::-1], (*image.shape[:2], 3)))


def _channel(data: bytes, path: Path, channel: int) -> Counts:
    """Decode one channel, in the order red green blue alpha, of a four-channel image."""
    image = images.decode_channels(data, path)
    if image.ndim != 3 or image.shape[2] != 4 or image.dtype != np.uint8:
        shape = 1 if image.ndim == 2 else image.shape[2]
        raise DataError("The image is not RGBT", where=path, why=f"{shape} channels of {image.dtype}, not 4 of uint8")
    return image.view(np.uint8)[..., _RGBA_IN_BGRA[channel]].copy()
