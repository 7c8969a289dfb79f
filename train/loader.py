"""Batches as a function of (seed, step): nothing to save, nothing to restore, the same on one rank or on many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgeunip.errors import EdgeunipError, TrainingError
from edgeunip.thermal import Agc
from edgeunip.train.augment import Augmentation, Picture
from edgeunip.train.datasets import DataSet, Sample

CACHE_BYTES = 3 << 30


class Pictures:
    """AGC pictures and label maps of samples, kept in memory while they fit into ``cache`` bytes a process."""

    def __init__(self, data: DataSet, samples: Sequence[Sample], agc: Agc, *, cache: int = CACHE_BYTES) -> None:
        self.data, self.samples, self.agc, self._cache = data, samples, agc, cache
        self._kept: dict[int, tuple[Picture, Picture]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> tuple[Picture, Picture]:
        """Return (picture, labels) from disk, both uint8 [H, W]."""
        sample = self.samples[index]
        picture = self.agc.picture(self.data.read_image(sample), self.data.radiometry)
        return picture, self.data.read_label(sample)

    def __getitem__(self, index: int) -> tuple[Picture, Picture]:
        """Return (picture, labels), both uint8 [H, W]."""
        if index in self._kept:
            return self._kept[index]
        pair = self.read(index)
        if self._bytes < self._cache:
            self._kept[index] = pair
            self._bytes += pair[0].nbytes + pair[1].nbytes
        return pair


@dataclass(frozen=True)
class Draw:
    """Which samples make up a step: a new permutation every epoch.

    Attributes:
        seed: of the run.
        batch: samples a step over all ranks.
        count: number of samples.
    """

    seed: int
    batch: int
    count: int

    def __call__(self, step: int) -> list[int]:
        """Return the sample indices of a step (0-based), in batch order."""
        positions = range(step * self.batch, (step + 1) * self.batch)
        epochs = {position // self.count for position in positions}
        orders = {epoch: np.random.default_rng((self.seed, 1, epoch)).permutation(self.count) for epoch in epochs}
        return [int(orders[position // self.count][position % self.count]) for position in positions]


Batch = tuple[Tensor, Tensor]


class Batches(Dataset[Batch]):
    """Item ``i`` is this rank's share of step ``first + i``: images [b, 1, h, w] float32, labels [b, h, w] int64."""

    def __init__(
        self, pictures: Pictures, augment: Augmentation, draw: Draw, *, first: int, last: int, rank: int, ranks: int
    ) -> None:
        self.pictures, self.augment, self.draw = pictures, augment, draw
        self.first, self.last, self.rank, self.ranks = first, last, rank, ranks

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, item: int) -> Batch:
        """Assemble one step's share."""
        step = self.first + item
        share = self.draw.batch // self.ranks
        chosen = list(enumerate(self.draw(step)))[self.rank * share : (self.rank + 1) * share]
        views = [
            self.augment(*self.pictures[index], np.random.default_rng((self.draw.seed, 2, step, position)))
            for position, index in chosen
        ]
        images = torch.from_numpy(np.stack([image for image, _ in views]))
        return images, torch.from_numpy(np.stack([label for _, label in views]).astype(np.int64))


def loader(batches: Batches, *, workers: int, pin: bool) -> Iterator[Batch]:
    """Walk through ``batches`` in order, ahead of the training step where ``workers`` processes help.

    Raises:
        DataError: an image can no longer be read.
    """
    # A forked worker would inherit locks of OpenCV's and OpenMP's threads and could wait for ever.
    fresh = {"multiprocessing_context": "spawn", "prefetch_factor": 4, "worker_init_fn": _one_thread}
    extra: dict[str, Any] = fresh if workers else {}
    walk: Any = DataLoader(_Told(batches), batch_size=None, num_workers=workers, pin_memory=pin, **extra)
    for batch in walk:
        if isinstance(batch, EdgeunipError):
            raise batch
        yield batch


@contextmanager
def workers_watched() -> Iterator[None]:
    """Tell the death of a worker, which torch raises at whatever line the main process is at, as a TrainingError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        remedy = "Memory may be short: lower workers or batch. What was saved is intact; go on with --resume."
        raise TrainingError("A loader process died", why=error, remedy=remedy) from error


class _Told(Dataset[Batch | EdgeunipError]):
    """Hands an error over as an item: torch would raise it in the main process as a whole traceback."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> Batch | EdgeunipError:
        try:
            return self.batches[item]
        except EdgeunipError as error:
            return error


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
