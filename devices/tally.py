"""Frame numbers that go on over every opening of a camera, and how many frames of late were lost."""

from __future__ import annotations

from collections import deque

_WINDOW = 100
# More lost frames of the window than the first make a camera degraded, no more than the second make it well again.
_MANY, _FEW = 10, 5


class Tally:
    """Numbers the frames of one camera from its own numbers: strictly rising, and a lost frame leaves a gap.

    Attributes:
        lost: how many of the latest 100 frames were lost on the way, those that arrived damaged included.
        degraded: whether they are many: above 10 %, until they are at most 5 %.

    Args:
        goes_on: the source counts on while it is closed, so that a gap over an opening is a true one. Otherwise it
            counts from 0 each time.
    """

    def __init__(self, *, goes_on: bool) -> None:
        self._goes_on = goes_on
        self._next = self._offset = 0
        self._before: int | None = None if goes_on else -1
        self._anew = False
        self._window: deque[bool] = deque(maxlen=_WINDOW)
        self.lost, self.degraded = 0, False

    def reopened(self) -> None:
        """Note that the camera was opened anew. What was lost meanwhile is no damage: the outage itself was told."""
        self._anew = True
        if not self._goes_on:
            self._before, self._offset = -1, self._next

    def number(self, seq: int, *, skipped: int = 0) -> int:
        """Return the number of the frame that the source calls ``seq``.

        Args:
            seq: a number not above the one before means that the source has begun to count anew.
            skipped: how many frames before this one were left out on our side; they leave a gap, and are no loss.
        """
        if self._before is not None and seq <= self._before:
            self._offset, self._before = self._next - seq, seq - 1
        missing = 0 if self._before is None else seq - self._before - 1
        self._note(0 if self._anew and self._goes_on else max(0, missing - skipped))
        self._anew = False
        self._before = seq
        self._next = seq + self._offset + 1
        return self._next - 1

    def _note(self, missing: int) -> None:
        self._window.extend([True] * min(missing, _WINDOW))
        self._window.append(False)
        self.lost = sum(self._window)
        self.degraded = self.lost > (_FEW if self.degraded else _MANY)
