"""What is wrong with one sample of a data set: its image file, its label file, and how they fit together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edgeunip import images
from edgeunip.errors import DataError
from edgeunip.train import labels
from edgeunip.train.datasets import DataSet, Sample

Pixels = TypeVar("Pixels")


@dataclass(frozen=True)
class Defect:
    """One thing wrong.

    Attributes:
        kind: what sort of thing, the same words for all of its sort.
        where: the file, split or class it is about.
        what: the particulars.
    """

    kind: str
    where: str
    what: str = ""

    def __str__(self) -> str:
        return str(DataError(self.kind, where=self.where, why=self.what or None))  # one line, as every error is told


@dataclass(frozen=True)
class Found:
    """A defect, or where not ``fatal`` a warning."""

    defect: Defect
    fatal: bool = True


@dataclass
class Finding:
    """What one sample's two files hold, as far as they can be read.

    Attributes:
        found: what is wrong with them.
        digest: SHA-256 of the image file, hexadecimal.
        image: the image's (height, width) and its bits a pixel.
        histogram: pixels of each raw label, shape (256,).
    """

    found: list[Found] = field(default_factory=list)
    digest: str | None = None
    image: tuple[tuple[int, ...], int] | None = None
    histogram: NDArray[np.intp] | None = None

    def add(self, kind: str, where: object, what: str = "", *, fatal: bool = True) -> None:
        """Note one thing wrong."""
        self.found.append(Found(Defect(kind, str(where), what), fatal))


def inspect(data: DataSet, sample: Sample) -> Finding:
    """Read and judge one sample's image and label. Never raises for what a file holds."""
    finding = Finding()
    _inspect_twins(sample, finding)
    content = _read(sample.image, "image", finding)
    if content is not None:
        finding.digest = hashlib.sha256(content).hexdigest()
        counts = _decode(data.decode_image, content, sample.image, "image", finding)
        if counts is not None:
            finding.image = counts.shape[:2], counts.dtype.itemsize * 8
    content = _read(sample.label, "mask", finding)
    if content is not None:
        label = _decode(labels.decode, content, sample.label, "mask", finding)
        if label is not None:
            _inspect_label(data, sample, label, finding)
    return finding


def _inspect_twins(sample: Sample, finding: Finding) -> None:
    others = [sample.image.with_suffix(suffix) for suffix in images.SUFFIXES if suffix != sample.image.suffix.lower()]
    for other in (path for path in others if path.exists()):
        finding.add("ambiguous image", sample.image, f"{other.name} has the same stem", fatal=False)


def _read(path: Path, noun: str, finding: Finding) -> bytes | None:
    try:
        content = images.read_bytes(path, noun)
    except DataError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        finding.add(f"{'missing' if missing else 'unreadable'} {noun}", path, "" if missing else str(error.why))
        return None
    if not content:
        finding.add(f"zero-byte {noun}", path)
        return None
    return content


def _decode(
    decode: Callable[[bytes, Path], Pixels], content: bytes, path: Path, noun: str, finding: Finding
) -> Pixels | None:
    try:
        return decode(content, path)
    except DataError as error:
        finding.add(f"{_kind(error.what)} {noun}", path, error.what + (f": {error.why}" if error.why else ""))
        return None


def _kind(what: str) -> str:
    kinds = {"truncated": "truncated", "colour": "colour", "16 bits": "16-bit", "not RGBT": "wrong channels in"}
    return next((kind for words, kind in kinds.items() if words in what), "undecodable")


def _inspect_label(data: DataSet, sample: Sample, label: NDArray[np.uint8], finding: Finding) -> None:
    if finding.image is not None and label.shape != finding.image[0]:
        sizes = f"{size(label.shape)}, its image {size(finding.image[0])}"
        finding.add("size differs between image and mask", sample.label, sizes)
    finding.histogram = np.bincount(label.ravel(), minlength=256)
    strange = data.strange(finding.histogram)
    if strange:
        finding.add("label out of range", sample.label, data.describe(strange))
    if not finding.histogram[data.table() != data.classes.ignore].any():
        finding.add("mask ignored as a whole", sample.label, f"every pixel is {data.classes.ignore}", fatal=False)


def size(shape: Sequence[int]) -> str:
    """Write (height, width) as ``WxH``."""
    height, width = shape
    return f"{width}x{height}"
