"""What the page may show of one camera: its newest result, the frames its viewers have lately been shown, its past."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import replace

from edgeunip.classes import Classes
from edgeunip.frame import Frame, Result
from edgeunip.runtimes.web.history import AlarmLog, History
from edgeunip.runtimes.web.packet import Packet, encode

_FPS_WINDOW = 30
# A viewer asks for a temperature of what it sees, which is a few frames ago.
_SHOWN = 8


class Feed:
    """One camera. :meth:`offer` is called by the thread that writes, the rest by the server's loop.

    Attributes:
        newest: the newest result; None before the first.
        history: its temperatures.
        alarms: its alarms.
        watchers: one event for each viewer, to be set when there is something new.
        failure: why a result could not be encoded.
    """

    def __init__(self, classes: Classes, *, live: bool = True) -> None:
        """Begin; ``live`` says whether the times of its results are of now, or of a recording."""
        self.newest: Result | None = None
        self.history = History()
        self.alarms = AlarmLog()
        self.watchers: set[asyncio.Event] = set()
        self.failure: Exception | None = None
        self._classes, self._live = classes, live
        self._rate: float | None = None
        self._encoded: Packet | None = None
        self._times_ns: deque[int] = deque(maxlen=_FPS_WINDOW)
        self._shown: deque[Frame] = deque(maxlen=_SHOWN)

    def offer(self, result: Result) -> None:
        """Make ``result`` the newest. One of a recording is shown as if it were now."""
        self.alarms.add(result)
        if not self._live:
            result = _now(result)
        self._times_ns.append(result.done_ns)
        span = self._times_ns[-1] - self._times_ns[0]
        self._rate = (len(self._times_ns) - 1) * 1e9 / span if span > 0 else None
        self.history.add(result)
        self.newest = result

    def packet(self) -> Packet | None:
        """Return the newest result, encoded at most once; None before the first."""
        result = self.newest
        if result is None:
            return None
        if self._encoded is None or self._encoded.result is not result:
            try:
                self._encoded = encode(result, self._classes, self._rate)
            except Exception as error:
                self.failure = error
                raise
            self._shown.append(result.frame)
        return self._encoded

    def celsius(self, seq: int, points: list[tuple[int, int]]) -> tuple[int, list[float | None]]:
        """Return (seq, temperatures in degC) at native pixels (x, y) of frame ``seq``, of the newest if it has gone.

        A temperature comes from the raw counts; it is None outside the frame, where the camera gives none, and while
        it shows no scene.
        """
        found = [frame for frame in self._shown if frame.seq == seq]
        if not found and self.newest is not None:
            found = [self.newest.frame]
        if not found:
            return seq, [None] * len(points)
        return found[-1].seq, [_celsius(found[-1], *point) for point in points]


def _now(result: Result) -> Result:
    """Return a result with its times moved to now; its age stays."""
    later_ns = time.monotonic_ns() - result.done_ns
    frame = replace(result.frame, t_ns=result.frame.t_ns + later_ns)
    return replace(result, frame=frame, done_ns=result.done_ns + later_ns)


def _celsius(frame: Frame, x: int, y: int) -> float | None:
    height, width = frame.counts.shape
    if frame.radiometry is None or frame.state.blind or not (0 <= x < width and 0 <= y < height):
        return None
    celsius = float(frame.radiometry.celsius(frame.counts[y : y + 1, x : x + 1])[0, 0])
    return celsius if math.isfinite(celsius) else None
