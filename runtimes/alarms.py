"""Rules over time: how long a condition holds, how fast a region warms, when an alarm begins and ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeunip.budget import BUDGET
from edgeunip.frame import Alarm, Frame, Region, Result, State
from edgeunip.runtimes.areas import Area
from edgeunip.runtimes.readings import Reading, heat, read, regions_of
from edgeunip.runtimes.rules import Rule

_MOST_HISTORIES = 1024
_BUCKETS = 64  # a history is kept in so many parts of its window
_ADAPTS = 0.1  # share of a new interval in the mean one
_FIRST_S = (BUDGET.stall_s(None) - BUDGET.slack_s) / 3


class RuleWatch:
    """Watches rules. Called in frame order, by one thread.

    Only a live scene is judged, DEGRADED included. While the shutter is closed, the sensor settles, or nothing new
    comes, no alarm begins or ends and the clock of ``for`` stands still.
    """

    def __init__(self, rules: Sequence[Rule], areas: Mapping[str, Area], *, rate_hz: float | None = None) -> None:
        """Watch ``rules``.

        Args:
            rules: to watch.
            areas: those the rules name.
            rate_hz: of a file, whose frames are told apart by their number; None when they come at their own time.
        """
        self._clock = Clock(rate_hz)
        self._watched = [_Watched(rule, areas[rule.area] if rule.area else None) for rule in rules]

    def alarms(self, result: Result) -> tuple[Alarm, ...]:
        """Return the alarms that are raised at a result with numbered regions, in the order of the rules."""
        broken = self._clock.tick(result.frame)
        if result.frame.state.current:
            for watched in self._watched:
                watched.judge(result, self._clock, broken=broken)
        return tuple(watched.alarm for watched in self._watched if watched.alarm is not None)


class Clock:
    """The time of frames: all of it, and the part in which a live scene was seen without a break.

    Attributes:
        now_ns: the frame's time.
        live_ns: time between live frames that followed each other.
    """

    def __init__(self, rate_hz: float | None = None) -> None:
        """Begin; ``rate_hz`` is as for :class:`RuleWatch`, 0 for pictures that do not belong together."""
        self.now_ns = self.live_ns = 0
        self._rate_hz = rate_hz
        self._before: State | None = None
        self._interval_s = _FIRST_S

    def tick(self, frame: Frame) -> bool:
        """Go on to a frame. Return whether the scene was out of sight before it.

        So it was after a silence of more than three usual intervals and the slack, and where time went back.
        """
        elapsed_ns, before = self._time(frame) - self.now_ns, self._before
        self.now_ns, self._before = self.now_ns + elapsed_ns, frame.state
        if before is None:
            return True
        limit_s = BUDGET.stall_s(1 / self._interval_s)
        elapsed_s = elapsed_ns / 1e9
        self._interval_s += _ADAPTS * (min(max(elapsed_s, 1e-3), limit_s) - self._interval_s)
        if self._rate_hz == 0 or not 0 <= elapsed_s <= limit_s:
            return True
        if before.current and frame.state.current:
            self.live_ns += elapsed_ns
        return False

    def _time(self, frame: Frame) -> int:
        return round(frame.seq * 1e9 / self._rate_hz) if self._rate_hz else frame.t_ns


class _Watched:
    """One rule and what it remembers."""

    def __init__(self, rule: Rule, area: Area | None) -> None:
        self.alarm: Alarm | None = None
        self._rule, self._area = rule, area
        self._rises = None if rule.window_s is None else _Rises(rule, rule.window_s)
        self._holds_since_ns: int | None = None  # on the live clock
        self._silent_until_ns: int | None = None

    def judge(self, result: Result, clock: Clock, *, broken: bool) -> None:
        """Look at one live result."""
        if self._rises is None:
            reading = read(self._rule, result, self._area)
        else:
            reading = self._rises.read(regions_of(self._rule, result, self._area), clock.now_ns)
        if broken:
            self._holds_since_ns = None
        if self.alarm is None:
            self._maybe_raise(reading, result.frame, clock)
        elif reading is not None and self._rule.beyond(reading.value, slack=self._rule.hysteresis):
            self.alarm = replace(self.alarm, value=reading.value, hotspot=reading.hotspot, region=reading.region)
        else:
            self.alarm, self._holds_since_ns = None, None
            self._silent_until_ns = clock.now_ns + round(self._rule.again_s * 1e9)

    def _maybe_raise(self, reading: Reading | None, frame: Frame, clock: Clock) -> None:
        if reading is None or not self._rule.beyond(reading.value):
            self._holds_since_ns = None
            return
        if self._holds_since_ns is None:
            self._holds_since_ns = clock.live_ns
        silent = self._silent_until_ns is not None and clock.now_ns < self._silent_until_ns
        if not silent and clock.live_ns - self._holds_since_ns >= round(self._rule.for_s * 1e9):
            rule = self._rule
            self.alarm = Alarm(
                rule.text, rule.name, frame.t_ns, reading.value, rule.unit, reading.hotspot, reading.region
            )


class _Rises:
    """How far each region has warmed within a window.

    A region is compared with itself, so one that comes into the picture hot raises nothing. A region's history is its
    least value in each 64th of the window: that bounds it, whatever the window and the frame rate. Of very many
    regions the histories of those seen longest ago go: their numbers do not come back.
    """

    def __init__(self, rule: Rule, window_s: float) -> None:
        self._rule = rule
        self._window_ns = round(window_s * 1e9)
        self._histories: dict[int, deque[tuple[int, float]]] = {}

    def read(self, regions: Sequence[Region], now_ns: int) -> Reading | None:
        """Return the greatest rise."""
        readings = []
        for region in regions:
            value = heat(self._rule, region.statistics)
            if region.number and value == value:
                history = self._histories.pop(region.number, deque())
                self._histories[region.number] = history  # the one seen last is the last
                readings.append(Reading(self._note(history, value, now_ns), region.statistics.hotspot, region.number))
        self._forget(now_ns)
        return max(readings, key=lambda reading: reading.value, default=None)

    def _note(self, history: deque[tuple[int, float]], value: float, now_ns: int) -> float:
        """Add a value to a region's history; return how far above its least it is."""
        if history and now_ns - history[-1][0] < self._window_ns // _BUCKETS:
            begun, least = history.pop()
            history.append((begun, min(least, value)))
        else:
            history.append((now_ns, value))
        while history[0][0] < now_ns - self._window_ns:
            history.popleft()
        return value - min(least for _, least in history)

    def _forget(self, now_ns: int) -> None:
        """Drop what lies before the window or, where time went back, ahead of it."""
        for number, history in list(self._histories.items()):
            if not now_ns - self._window_ns <= history[-1][0] <= now_ns:
                del self._histories[number]
        while len(self._histories) > _MOST_HISTORIES:
            del self._histories[next(iter(self._histories))]
