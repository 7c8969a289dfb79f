"""What every training loop shares: going on from a checkpoint, log, saving, signals, and the refusal of lost models."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning_fabric
import torch
from torch import Tensor

from edgeunip.errors import TrainingError
from edgeunip.train import checkpoint
from edgeunip.train.checkpoint import State
from edgeunip.train.loader import workers_watched
from edgeunip.train.log import Log

LOG_EVERY = 10


class Loop:
    """One rank's view of a run's progress.

    Args:
        fabric: devices and ranks.
        folder: of the run.
        state: what a checkpoint holds.
        steps: of the whole run.
        checkpoint_every: steps between two checkpoints.
        command: how a stopped run is gone on with, in words for the user.
    """

    def __init__(
        self,
        fabric: lightning_fabric.Fabric,
        folder: Path,
        state: State,
        *,
        steps: int,
        checkpoint_every: int,
        command: str,
    ) -> None:
        self.fabric, self.folder, self.state = fabric, folder, state
        self.steps, self.checkpoint_every, self.command = steps, checkpoint_every, command
        self.stop_signal = 0
        self.log: Log

    @contextmanager
    def started(self) -> Iterator[int]:
        """Restore the newest whole checkpoint and open the log; yield the number of steps done."""
        first, damaged = checkpoint.restore(self.folder / checkpoint.FOLDER, self.state)
        for line in damaged:
            self.fabric.print(line)
        self.log = Log(self.folder, first=first, steps=self.steps, on=self.fabric.global_rank == 0)
        with _signals(self), workers_watched(), self.log:
            yield first

    def seed(self, seed: int, step: int) -> None:
        """Seed dropout and drop path by the step, so that a resumed run repeats what an unbroken one draws."""
        torch.manual_seed((seed * 1_000_003 + step) * 1024 + self.fabric.global_rank)

    def count(self, loss: Tensor) -> None:
        """Add a step's loss to what the next line of the log tells."""
        self.state.loss[0] += loss.detach()
        self.state.loss[1] += 1

    def after(self, done: int) -> None:
        """Log, save, leave: what happens between two steps. ``done`` steps are behind."""
        self.log.advance()
        if done % LOG_EVERY == 0 or done == self.steps:
            self._log_loss(done)
        stop = self._agreed_stop()
        if stop or (done % self.checkpoint_every == 0 and done < self.steps):
            self._save(done)
        if stop:
            self.fabric.print(f"Stopped after step {done}; go on with: {self.command}")
            raise SystemExit(128 + stop)

    def require_finite(self, done: int) -> None:
        """Refuse to keep a model that is lost: weights that are not finite never reach the disk."""
        if not all(
            bool(value.isfinite().all()) for value in (self.state.loss, *self.state.model.state_dict().values())
        ):
            raise self._diverged(f"The loss or a weight is not finite after step {done}")

    def _agreed_stop(self) -> int:
        """Return the signal that asked any rank to stop, 0 if none: all ranks leave together."""
        if self.fabric.world_size == 1:
            return self.stop_signal
        asked: Any = self.fabric.all_reduce(torch.tensor(self.stop_signal), reduce_op="max")
        return int(asked)

    def _save(self, done: int) -> None:
        self.require_finite(done)
        self.state.loss.copy_(self._loss_of_all_ranks())
        if self.fabric.global_rank == 0:
            checkpoint.save(self.folder / checkpoint.FOLDER, self.state, done)
        self.fabric.barrier()

    def _log_loss(self, done: int) -> None:
        """Log the mean loss since the last time, over all ranks.

        Raises:
            TrainingError: it is not finite; the checkpoints on disk are from before.
        """
        total, steps = self._loss_of_all_ranks().tolist()
        if not math.isfinite(total):
            raise self._diverged(f"The loss is {total} by step {done}")
        self.log.loss(done, total / steps, float(self.state.optimizer.param_groups[-1]["lr"]))
        self.state.loss.zero_()

    def _loss_of_all_ranks(self) -> Tensor:
        """Return ``state.loss`` as the mean over the ranks, float64 [2]; all ranks must call it."""
        return torch.as_tensor(self.fabric.all_reduce(self.state.loss.clone(), reduce_op="mean"))

    def _diverged(self, what: str) -> TrainingError:
        remedy = "Start a new run with a lower lr or a longer warmup; checkpoints are from before."
        return TrainingError(what, where=self.folder, remedy=remedy)


@contextmanager
def memory_told(what: str, remedy: str) -> Iterator[None]:
    """Tell an exhausted memory in one line: ``what`` was being computed, and the remedy."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise TrainingError(f"Out of memory at {what}", remedy=remedy) from error


@contextmanager
def _signals(loop: Loop) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the run after the step at hand; a second one ends it at once."""

    def ask(number: int, _: FrameType | None) -> None:
        loop.stop_signal = number
        signal.signal(number, old[signal.Signals(number)])

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
