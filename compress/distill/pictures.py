"""What a student sees: labelled and unlabelled pictures under one numbering, each with its teacher's outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip import images
from edgeunip.compress.distill.cache import Kind, Outputs
from edgeunip.errors import DataError
from edgeunip.thermal import Agc
from edgeunip.train.corpus.corpus import Corpus, open_corpus
from edgeunip.train.datasets import DataSet
from edgeunip.train.loader import CACHE_BYTES, Batches, Draw, Kept, Labelled

STRIDES: dict[Kind, int] = {"logits": 4, "features": 16}


class Unlabelled(Kept[Labelled]):
    """Pictures without labels, in a fixed order, kept in memory while they fit; every label is ``ignore``."""

    def __init__(
        self, corpus: Corpus, chosen: tuple[int, ...], agc: Agc, ignore: int, *, cache: int = CACHE_BYTES
    ) -> None:
        super().__init__(cache)
        self.corpus, self.chosen, self.agc, self.ignore = corpus, chosen, agc, ignore

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, index: int) -> Labelled:
        """Return (picture, labels) from disk, uint8 [H, W] both."""
        picture = self.agc.picture(self.corpus.counts(self.chosen[index]), None)
        return picture, np.full(picture.shape, self.ignore, np.uint8)


def open_unlabelled(source: str, data: DataSet) -> tuple[Corpus, tuple[int, ...]]:
    """Open unlabelled images, and choose those that stand in none of the data set's own splits, by their content.

    Raises:
        DataError: there is none; or the data set is of colour images.
    """
    if data.modality == "rgb":
        raise DataError("Unlabelled images teach models of one channel only", where=source)
    corpus = open_corpus(source)
    known = {one for split in data.splits for one in hashes(data, split)}
    chosen = tuple(index for index in range(len(corpus)) if corpus.hash(index) not in known)
    if not chosen:
        raise DataError("Every unlabelled image is one of the data set's own", where=source)
    return corpus, chosen


def hashes(data: DataSet, split: str) -> Iterator[str]:
    """Yield the SHA-256 (hexadecimal) of each image file of a split, in order."""
    for sample in data.split(split):
        yield hashlib.sha256(images.read_bytes(Path(sample.image))).hexdigest()


@dataclass(frozen=True)
class MixedDraw(Draw):
    """Which samples make up a step: labelled ones, then unlabelled ones, in fixed numbers.

    Attributes:
        unlabelled: number of unlabelled samples; they count on from ``count``.
        share: of them in a batch; 0 without.
    """

    unlabelled: int = 0
    share: int = 0

    def __call__(self, step: int) -> list[int]:
        """Return the sample indices of a step (0-based), in batch order."""
        labelled = Draw(self.seed, self.batch - self.share, self.count)(step)
        if not self.share:
            return labelled
        others = Draw(self.seed, self.share, self.unlabelled)(step)
        return labelled + [self.count + index for index in others]


@dataclass(frozen=True)
class Shelf:
    """Pictures and what the teacher says to each."""

    pictures: Kept[Labelled]
    outputs: Outputs


class TaughtBatches(Batches):
    """Batches whose items carry, after images and labels, each kind of the teacher's outputs and where it is valid.

    Args:
        shelves: the labelled pictures, then the unlabelled ones, if any.
        kinds: ``logits``, at 1/4 of the crop, and ``features``, at 1/16.
        rest: as :class:`Batches` takes it.
    """

    def __init__(self, shelves: tuple[Shelf, ...], kinds: tuple[Kind, ...], **rest: Any) -> None:
        super().__init__(shelves[0].pictures, **rest)
        self.shelves, self.kinds = shelves, kinds

    def view(self, index: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Return the picture [c, h, w], labels [h, w], and for each kind outputs float32 and validity bool."""
        shelf, place = (self.shelves[0], index)
        if index >= len(shelf.pictures):
            shelf, place = self.shelves[1], index - len(shelf.pictures)
        picture, label = shelf.pictures[place]
        view, seen = self.augment.draw(label, rng)
        parts: list[NDArray[Any]] = [self.augment.show(picture, view, rng), seen.astype(np.int64)]
        for kind in self.kinds:
            stride = STRIDES[kind]
            parts += [view.sample(shelf.outputs.read(kind, place), stride), view.inside(stride)]
        return tuple(parts)
