"""Batches as a function of (seed, step): nothing to save, nothing to restore, the same on one rank or on many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgeunip.errors import EdgeunipError, TrainingError
from edgeunip.thermal import Agc
from edgeunip.train.augment import Augmentation, Picture
from edgeunip.train.datasets import DataSet, Sample

CACHE_BYTES = 3 << 30


Views = TypeVar("Views", bound=tuple[Picture, ...])
Labelled = tuple[Picture, Picture]


class Kept(Generic[Views]):
    """Pictures with what belongs to them, kept in memory once read while they fit into ``cache`` bytes a process."""

    def __init__(self, cache: int) -> None:
        self._cache = cache
        self._kept: dict[int, Views] = {}
        self._bytes = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def read(self, index: int) -> Views:
        """Return a picture and what belongs to it from disk, uint8 [H, W] each; a colour picture is [H, W, 3]."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Views:
        """Return what :meth:`read` does."""
        if index in self._kept:
            return self._kept[index]
        item = self.read(index)
        size = sum(one.nbytes for one in item)
        if self._bytes + size <= self._cache:
            self._kept[index] = item
            self._bytes += size
        return item


class Pictures(Kept[Labelled]):
    """AGC pictures and label maps of a data set's samples."""

    def __init__(self, data: DataSet, samples: Sequence[Sample], agc: Agc, *, cache: int = CACHE_BYTES) -> None:
        super().__init__(cache)
        self.data, self.samples, self.agc = data, samples, agc

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> Labelled:
        """Return (picture, labels) from disk, uint8 [H, W] both; a colour picture is [H, W, 3], as it is stored."""
        sample = self.samples[index]
        image = self.data.read_image(sample)
        picture = image.view(np.uint8) if image.ndim == 3 else self.agc.picture(image, self.data.radiometry)
        return picture, self.data.read_label(sample)


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
        return [int(_order(self.seed, at // self.count, self.count)[at % self.count]) for at in positions]


@lru_cache(maxsize=2)  # a step takes from one epoch or two, and a corpus of a million is slow to permute
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    order = np.random.default_rng((seed, 1, epoch)).permutation(count)
    order.setflags(write=False)
    return order


Batch = tuple[Tensor, ...]


class Batches(Dataset[Batch]):
    """Item ``i`` is this rank's share of step ``first + i``: images [b, c, h, w] float32, labels [b, h, w] int64."""

    def __init__(
        self,
        pictures: Kept[Labelled],
        augment: Augmentation,
        draw: Draw,
        *,
        first: int,
        last: int,
        rank: int,
        ranks: int,
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
            self.view(index, np.random.default_rng((self.draw.seed, 2, step, position))) for position, index in chosen
        ]
        return tuple(torch.from_numpy(np.stack(parts)) for parts in zip(*views, strict=True))

    def view(self, index: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Return one sample's part of a batch: its picture [c, h, w] float32 and its labels [h, w] int64."""
        image, label = self.augment(*self.pictures[index], rng)
        return image, label.astype(np.int64)


Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Items(Protocol[Item_co]):
    """What :func:`loader` walks through: as long as it says, each item a function of its number."""

    def __len__(self) -> int: ...

    def __getitem__(self, item: int, /) -> Item_co: ...


def loader(batches: Items[Item], *, workers: int, pin: bool) -> Iterator[Item]:
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


class _Told(Dataset[Item | EdgeunipError]):
    """Hands an error over as an item: torch would raise it in the main process as a whole traceback."""

    def __init__(self, batches: Items[Item]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, item: int) -> Item | EdgeunipError:
        try:
            return self.batches[item]
        except EdgeunipError as error:
            return error


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
