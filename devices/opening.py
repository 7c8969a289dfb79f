"""One opening of a live camera, read by a thread that may be left behind where it hangs."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from edgeunip.errors import SourceError
from edgeunip.frame import Frame
from edgeunip.protocols import Camera

# Frames that wait for a consumer who is late, as after a burst. More would grow old.
_WAITING = 8
# Intervals a rate is the median of, and how many it takes to trust it.
_INTERVALS, _ENOUGH = 32, 4

logger = logging.getLogger(__name__)


class Source(Camera, Protocol):
    """A live camera that can be guarded.

    Attributes:
        raw: its 8-bit values, too, are the sensor's own: neither gain control nor codec stands between. 16-bit counts
            always count as the sensor's own.
    """

    raw: bool

    @property
    def skipped(self) -> int:
        """Frames of this opening passed over because newer ones had come: no fault of the camera's."""
        ...

    @property
    def damaged(self) -> int:
        """Frames of this opening that arrived torn, short or undecodable, and were left out."""
        ...


@dataclass(frozen=True)
class Arrival:
    """A frame, when it came, whether it is the first of its opening, and how many just before it were given up."""

    frame: Frame
    at_s: float
    first: bool
    skipped: int = 0


class Opening(threading.Thread):
    """Reads one opening of a camera until it fails or is stopped. May be left behind where it hangs."""

    def __init__(self, open: Callable[[], Source], name: str, changed: threading.Condition) -> None:
        super().__init__(name=f"guard {name}", daemon=True)
        self._open, self._changed, self._where = open, changed, name
        self._camera: Source | None = None
        self._stopped = False
        self._damaged = self._skipped = 0
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self.arrivals: deque[Arrival] = deque()
        self.frames = 0
        self.last_s = time.monotonic()
        self.raw = False
        self.stated_hz: float | None = None
        self.fault: Exception | None = None
        self.ended = False

    def run(self) -> None:
        """Read; what goes wrong is told in the consumer's thread."""
        fault: Exception = SourceError("The live source ended", where=self._where, reason="end")
        try:
            self._camera = camera = self._open()
            if not self._stopped:
                self._read(camera)
        except Exception as error:
            fault = error
        with self._changed:
            self.fault, self.ended = fault, True
            self._changed.notify_all()

    def stop(self) -> None:
        """End the reading. The camera is closed by a thread of its own: that, too, may hang."""
        if self._stopped:
            return
        self._stopped = True
        camera = self._camera
        if camera is not None and not self.ended:
            threading.Thread(target=self._close, args=(camera,), name=f"close {self._where}", daemon=True).start()

    def discard(self) -> int:
        """Give up what waits, and return how many frames that is."""
        with self._changed:
            given_up = sum(1 + arrival.skipped for arrival in self.arrivals)
            self.arrivals.clear()
            return given_up

    def has_news(self) -> bool:
        """Tell whether there is a frame or a fault."""
        return bool(self.arrivals) or self.fault is not None

    def measured_hz(self) -> float | None:
        """Return the rate by the median interval; None before there are enough."""
        with self._changed:
            intervals = list(self._intervals)
        return 1 / max(statistics.median(intervals), 1e-6) if len(intervals) >= _ENOUGH else None

    def new_damage(self) -> int:
        """Return how many damaged frames came since the last call."""
        total = self._camera.damaged if self._camera is not None else 0
        new, self._damaged = total - self._damaged, total
        return new

    def _read(self, camera: Source) -> None:
        with camera:
            self.stated_hz = camera.rate_hz
            # A camera that was closed while it was being opened may not have noticed.
            frames = () if self._stopped else camera
            for frame in frames:
                if self._stopped:
                    return
                self.raw = camera.raw
                skipped, self._skipped = camera.skipped - self._skipped, camera.skipped
                self._put(frame, skipped)

    def _put(self, frame: Frame, skipped: int) -> None:
        with self._changed:
            now_s = time.monotonic()
            if self.frames:
                self._intervals.append(now_s - self.last_s)
            self.arrivals.append(Arrival(frame, now_s, first=self.frames == 0, skipped=skipped))
            if len(self.arrivals) > _WAITING:
                old = self.arrivals.popleft()
                next_ = self.arrivals[0]
                self.arrivals[0] = replace(next_, first=old.first, skipped=old.skipped + 1 + next_.skipped)
            self.frames, self.last_s = self.frames + 1, now_s
            self._changed.notify_all()

    def _close(self, camera: Source) -> None:
        try:
            camera.__exit__(None, None, None)
        except Exception as error:
            logger.warning("The camera %s did not close well: %s", self._where, error)
