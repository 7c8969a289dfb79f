"""Which images an index keeps: everything that is looked at in an image, and what speaks against it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeunip import images
from edgeunip.errors import DataError
from edgeunip.thermal import Counts
from edgeunip.train.corpus import pictures
from edgeunip.train.corpus.duplicates import Near, perceptual_hash
from edgeunip.train.corpus.sources import Source, split_options
from edgeunip.train.corpus.table import Row
from edgeunip.train.datasets import DataSet, Sample, open_data

UNREADABLE, DARK = "unreadable", "dark"
DUPLICATE, NEAR_DUPLICATE = "duplicate", "near duplicate"
REASONS = (UNREADABLE, DARK, DUPLICATE, NEAR_DUPLICATE, f"evaluation {DUPLICATE}", f"evaluation {NEAR_DUPLICATE}")


@dataclass(frozen=True)
class Refused:
    """An image that is left out on its own account: one of ``REASONS``, and the particulars."""

    reason: str
    detail: str


def examine(source: Source, path: Path) -> Row | Refused:
    """Read one image. Never raises for what a file holds."""
    try:
        data = images.read_bytes(_named_in_utf8(path))
        image = pictures.decode(data, path, crop=source.crop)
    except DataError as error:
        return Refused(UNREADABLE, str(error))
    peak = int(image.counts.max())
    if source.peak is not None and peak <= source.peak:
        return Refused(DARK, f"{path}: {peak}")
    height, width = (side + 2 * source.crop for side in image.counts.shape)
    return Row(
        path=str(path),
        set=source.set,
        width=width,
        height=height,
        bits=image.counts.dtype.itemsize * 8,
        channels=image.channels,
        sha256=hashlib.sha256(data).hexdigest(),
        phash=perceptual_hash(image.picture()),
        crop=source.crop,
    )


def _named_in_utf8(path: Path) -> Path:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DataError("The name of the image is not UTF-8", where=path) from error
    return path


@dataclass(frozen=True)
class Print:
    """What an image is recognised by: SHA-256 of its file, and perceptual hash."""

    sha256: str
    phash: int | None


class Sieve:
    """Images seen so far, and whether a further one is among them; ``near`` below 0: only byte for byte."""

    def __init__(self, near: int, seen: Iterable[Print] = ()) -> None:
        self._exact: set[str] = set()
        self._near = Near(near) if near >= 0 else None
        for known in seen:
            self.add(known)

    def add(self, image: Print | Row) -> None:
        """Put an image in."""
        self._exact.add(image.sha256)
        if self._near is not None and image.phash is not None:
            self._near.add(image.phash)

    def objection(self, image: Row) -> str | None:
        """Return which kind of duplicate of one seen before an image is; None if it is none."""
        if image.sha256 in self._exact:
            return DUPLICATE
        if self._near is not None and image.phash is not None and image.phash in self._near:
            return NEAR_DUPLICATE
        return None


def evaluation_samples(spec: str) -> list[tuple[DataSet, Sample]]:
    """Return the samples of ``DATASET[,splits=val+test][,lists=SUBFOLDER]``, by default those of all its splits.

    Raises:
        UsageError, DataError: the data set or a split is not there.
    """
    place, options = split_options(spec, ("splits", "lists"))
    data = open_data(place, splits=options.get("lists"))
    names = options["splits"].split("+") if "splits" in options else list(data.splits)
    samples = {sample.image: sample for name in names for sample in data.split(name)}
    return [(data, samples[path]) for path in sorted(samples)]


def fingerprint(data: DataSet, sample: Sample) -> Print:
    """Read what an image of a labelled data set is recognised by.

    Raises:
        DataError: it cannot be read, and so could not be kept out.
    """
    content = images.read_bytes(sample.image)
    counts: Counts
    if data.channel is None:
        counts = pictures.decode(content, sample.image).counts
    else:
        counts = data.decode_image(content, sample.image)
    picture = pictures.Image(counts, channels=1).picture()
    return Print(hashlib.sha256(content).hexdigest(), perceptual_hash(picture))
