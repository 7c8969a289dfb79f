"""Closed shutters and frozen sensors, told from the frames alone.

A sensor that sees is noisy: two of its frames in a row are never equal in every byte. A camera repeats a frame while
its shutter is closed, for 3 s at most, and for ever when it hangs. This holds for a sensor's own values only: decoded
video of a scene at rest, or an 8-bit picture behind a gain control, may well repeat.
"""

from __future__ import annotations

import numpy as np

from edgeunip.budget import Budget
from edgeunip.frame import Frame, State
from edgeunip.thermal import Counts

# A freeze shorter than this share of the longest correction is a frame sent twice: there is nothing to settle.
_TWICE = 0.1


class Shutter:
    """Judges the frames of one camera, one after the other, over all its openings.

    Attributes:
        stuck: the frames have been equal for longer than a shutter takes; the camera should be opened anew.
        settling: a correction is on, or its drift is not over.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._counts: Counts | None = None
        self._since_s: float | None = None  # Arrival of the first of the frames that are equal.
        self._settled_s = -1.0
        self._frozen = False
        self.stuck = self.settling = False

    def reopened(self) -> None:
        """Note that the camera was opened anew. One that goes on with the same frame is still frozen."""
        self._since_s, self.stuck = None, False

    def closed(self, at_s: float) -> None:
        """Note that offsets will drift from now on: the shutter was closed until ``at_s``."""
        self._settled_s = at_s + self._budget.settle_s

    def judge(self, frame: Frame, at_s: float, *, sensor: bool) -> State:
        """Return what a frame is worth.

        A state that the camera itself gives wins, unless it has been giving one frame for longer than a shutter takes.

        Args:
            frame: the next one.
            at_s: its arrival, seconds on the monotonic clock.
            sensor: the counts are the sensor's own, so that a repeated frame means something.
        """
        repeated = sensor and self._is_repeated(frame.counts)
        if not repeated or self._since_s is None:
            self._since_s = at_s
        lasted_s = at_s - self._since_s
        self.stuck = repeated and lasted_s > self._budget.shutter_s
        self._frozen = self.stuck or (repeated and self._frozen)
        state = frame.state if frame.state is not State.LIVE else State.FFC if repeated else State.LIVE
        if self._frozen or (state is State.FFC and (not repeated or lasted_s >= _TWICE * self._budget.shutter_s)):
            self.closed(at_s)
        self.settling = at_s < self._settled_s
        if self._frozen:
            return State.FROZEN
        return State.SETTLING if state is State.LIVE and self.settling else state

    def _is_repeated(self, counts: Counts) -> bool:
        before, self._counts = self._counts, counts
        if before is None or before.shape != counts.shape or before.dtype != counts.dtype:
            return False
        # The first row tells nearly all frames apart, at a fiftieth of the cost of a checksum.
        return np.array_equal(before[0], counts[0]) and np.array_equal(before, counts)
