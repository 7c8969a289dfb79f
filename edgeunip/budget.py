"""The one time budget of a stream, from which every time limit derives. All of it on the monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, fields

# Without a stated rate a camera counts as the slowest thermal one that is common.
_SLOWEST_HZ = 8.6


@dataclass(frozen=True)
class Budget:
    """Time limits in seconds.

    Attributes:
        stop_s: from SIGTERM to the end of the process, every file closed.
        slack_s: what a frame may be late beyond three periods.
        shutter_s: the longest a shutter correction takes; beyond it a repeated frame means a frozen camera, and
            silence a lost one.
        settle_s: how long offsets drift after a correction.
        open_s: to connect and to get the first frame.
        retry_s: (first, longest) wait between two attempts to open a camera.
        sink_retry_s: (first, longest) wait between two attempts to open a sink that failed.
        sink_slow_s: how long a sink may take for one item before it counts as hanging.
        inference_s: how long one call of a model may take before it counts as hanging.
        watchdog_s: without progress for so long, the process counts as hung.
    """

    stop_s: float = 2.0
    slack_s: float = 0.5
    shutter_s: float = 3.0
    settle_s: float = 1.0
    open_s: float = 10.0
    retry_s: tuple[float, float] = (0.1, 1.0)
    sink_retry_s: tuple[float, float] = (0.5, 5.0)
    sink_slow_s: float = 2.0
    inference_s: float = 20.0
    watchdog_s: float = 100.0

    def stall_s(self, rate_hz: float | None) -> float:
        """Return how long after the last frame a camera counts as stalled: three periods and the slack."""
        return 3 / (rate_hz or _SLOWEST_HZ) + self.slack_s

    @property
    def grace_s(self) -> float:
        """After a stop: until results that wait for a slow sink are given up."""
        return 0.4 * self.stop_s

    @property
    def patience_s(self) -> float:
        """After a stop: until what still hangs is left behind."""
        return 0.6 * self.stop_s

    @property
    def capture_s(self) -> float:
        """At the end: for the capture thread to hand in its last frame."""
        return 0.125 * self.stop_s

    @property
    def total_s(self) -> float:
        """All limits used up one after the other; less than half of the supervisor's patience."""
        values: list[float | tuple[float, float]] = [
            getattr(self, one.name) for one in fields(self) if one.name != "watchdog_s"
        ]
        return sum(max(value) if isinstance(value, tuple) else value for value in values) + 3 / _SLOWEST_HZ


BUDGET = Budget()
