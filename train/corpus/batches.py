"""Micro-batches of views as a function of (seed, step, position), the same on one rank or on many."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from edgeunip.errors import UsageError
from edgeunip.train.augment import Picture
from edgeunip.train.corpus.corpus import Corpus
from edgeunip.train.corpus.views import RandomResizedCrop
from edgeunip.train.loader import CACHE_BYTES, Draw, Kept


class Pictures(Kept[tuple[Picture]]):
    """Pictures of a corpus, all or ``indices``."""

    def __init__(self, corpus: Corpus, *, indices: NDArray[np.intp] | None = None, cache: int = CACHE_BYTES) -> None:
        super().__init__(cache)
        self.corpus = corpus
        self.indices = np.arange(len(corpus)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> tuple[Picture]:
        """Return a picture from disk, uint8 [H, W], alone."""
        return (self.corpus.read(int(self.indices[index])),)


class MicroBatches(Dataset[Tensor]):
    """Item ``i`` is this rank's share of the ``i``-th micro-batch from step ``first`` on: uint8 [micro, 1, size, size].

    A step's samples are ``draw(step)``, over all ranks: each rank takes a contiguous share, and cuts it into
    micro-batches. What a sample looks like depends on the seed, the step and its position in the step alone.

    Args:
        pictures: what to take views of.
        view: how.
        draw: which samples make up a step; its ``batch`` is the effective batch.
        micro: samples a micro-batch on one rank.
        first, last: the steps from ``first`` to before ``last``.
        rank, ranks: which share.

    Raises:
        UsageError: the batch cannot be cut so.
    """

    def __init__(
        self,
        pictures: Pictures,
        view: RandomResizedCrop,
        draw: Draw,
        *,
        micro: int,
        first: int,
        last: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if micro < 1 or draw.batch % (micro * ranks):
            why = f"it is no multiple of {micro} pictures x {ranks} processes"
            raise UsageError(f"A batch of {draw.batch} cannot be cut into micro-batches", why=why)
        self.pictures, self.view, self.draw = pictures, view, draw
        self.micro, self.first, self.last, self.rank, self.ranks = micro, first, last, rank, ranks

    @property
    def a_step(self) -> int:
        """Micro-batches that make up a step on one rank (gradient accumulation)."""
        return self.draw.batch // (self.micro * self.ranks)

    def __len__(self) -> int:
        return (self.last - self.first) * self.a_step

    def samples(self, item: int) -> list[tuple[int, int, int]]:
        """Return (step, position in the step, index in the corpus) of each sample of a micro-batch."""
        step, number = self.first + item // self.a_step, item % self.a_step
        begin = (self.rank * self.a_step + number) * self.micro
        chosen = self.draw(step)[begin : begin + self.micro]
        return [(step, position, index) for position, index in enumerate(chosen, start=begin)]

    def __getitem__(self, item: int) -> Tensor:
        """Assemble a micro-batch; it is normalised where it is used."""
        views = [
            self.view(self.pictures[index][0], np.random.default_rng((self.draw.seed, 2, step, position)))
            for step, position, index in self.samples(item)
        ]
        return torch.from_numpy(np.stack(views)[:, None])
