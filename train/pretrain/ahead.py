"""On a CPU, what of a step needs no gradient is computed for the next micro-batch while this one is learnt from.

Two threads that multiply matrices one after the other wait for each other at the end of every operation. A frozen
teacher and its student need not: each has processors of its own, and they meet once a micro-batch. The numbers are the
same ones, computed earlier. Measured on two processors, ViT-B into ViT-S: 0.85 of the time (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

Prepared = tuple[Tensor, ...]
WORST = 1.1  # times the time of an even division; beyond it all processors do better one task after the other


class Task(Protocol):
    """A step, a part of which needs no gradient."""

    @property
    def prepared_share(self) -> float: ...  # noqa: D102
    def prepare(self, images: Tensor) -> Prepared: ...  # noqa: D102


def prepared(task: Task, batches: Iterator[Tensor]) -> Generator[Prepared]:
    """Yield what ``task`` takes: micro-batches on a CPU, each with its prepared part where that is best done ahead."""
    threads = split(task.prepared_share, torch.get_num_threads())
    return ahead(batches, task.prepare, threads) if threads else ((images,) for images in batches)


def split(share: float, threads: int) -> int:
    """Return how many of the threads the part that needs no gradient shall have; 0: divide nothing.

    Args:
        share: of a step's operations that are in that part.
        threads: of both parts.
    """
    times = {mine: max(share / mine, (1 - share) / (threads - mine)) * threads for mine in range(1, threads)}
    best = min(times, key=lambda mine: times[mine], default=0)
    return best if best and times[best] <= WORST else 0


def ahead(batches: Iterator[Tensor], prepare: Callable[[Tensor], Prepared], threads: int) -> Generator[Prepared]:
    """Yield each micro-batch with what ``prepare`` makes of it, which is computed while the one before is used.

    The calling thread has the other threads of torch until the last micro-batch is taken.

    Args:
        batches: the micro-batches.
        prepare: must not depend on what the caller changes between two of them.
        threads: that ``prepare`` has.
    """
    every = torch.get_num_threads()
    torch.set_num_threads(every - threads)
    worker = ThreadPoolExecutor(1, "ahead", initializer=torch.set_num_threads, initargs=(threads,))
    try:
        waiting: tuple[Tensor, Future[Prepared]] | None = None
        for images in batches:
            ready, waiting = waiting, (images, worker.submit(prepare, images))
            if ready is not None:
                yield ready[0], *ready[1].result()
        if waiting is not None:
            yield waiting[0], *waiting[1].result()
    finally:
        worker.shutdown(wait=False, cancel_futures=True)
        torch.set_num_threads(every)
