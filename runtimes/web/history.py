"""What was: the temperatures of every class over the last ten minutes, and the alarms that have come and gone."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from edgeunip.address import redact
from edgeunip.frame import Alarm, Result

SPAN_S = 600
_PAST_ALARMS = 100
_NS = 10**9

Degrees = tuple[float | None, ...]


@dataclass(frozen=True)
class Sample:
    """One second of one camera.

    Attributes:
        second: which, on the monotonic clock.
        highest: the highest temperature of each class within the second, degC, in class order; None where it has none.
        mean: the mean temperature of each class at the end of the second, degC, likewise.
    """

    second: int
    highest: Degrees
    mean: Degrees


class History:
    """The samples of the last ten minutes. Any thread may add and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque(maxlen=SPAN_S)

    def add(self, result: Result) -> None:
        """Fold a result into its second's sample."""
        found = result.classes.values()
        new = Sample(result.done_ns // _NS, _finite(found, "max_c"), _finite(found, "mean_c"))
        with self._lock:
            if self._samples and self._samples[-1].second == new.second:
                highest = tuple(map(_higher, self._samples.pop().highest, new.highest))
                new = replace(new, highest=highest)
            self._samples.append(new)

    def since(self, second: int) -> list[Sample]:
        """Return the samples from ``second`` on, oldest first; none that is older than ten minutes."""
        oldest = max(second, time.monotonic_ns() // _NS - SPAN_S)
        with self._lock:
            return [sample for sample in self._samples if sample.second >= oldest]


def _finite(found: Any, name: str) -> Degrees:
    values: list[float | None] = [getattr(one, name) for one in found]
    return tuple(None if value is None or not math.isfinite(value) else round(value, 2) for value in values)


def _higher(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else max(one, other)


@dataclass(frozen=True)
class Episode:
    """An alarm from its beginning to its end.

    Attributes:
        camera: where it was raised.
        alarm: as it was last.
        began_s: wall-clock time of its beginning, seconds since 1970: a label, nothing is decided by it.
        ended_s: the same of its end; None while it is raised.
        peak: the value that lies farthest from the first one.
    """

    camera: str
    alarm: Alarm
    began_s: float
    ended_s: float | None
    peak: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; ``key`` is its own among all of a stream."""
        alarm, camera = self.alarm, redact(self.camera)
        return {
            "key": f"{camera} {alarm.name} {alarm.since_ns}",
            "camera": camera,
            "name": alarm.name,
            "rule": alarm.rule,
            "unit": alarm.unit,
            "region": alarm.region,
            "value": _told(alarm.value),
            "peak": _told(self.peak),
            "began_s": round(self.began_s, 3),
            "ended_s": None if self.ended_s is None else round(self.ended_s, 3),
        }


class AlarmLog:
    """The alarms of one camera: those that are raised, and the last hundred that were. Any thread may add and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By name and beginning: the region an alarm is about may change while it is raised.
        self._raised: dict[tuple[str, int], tuple[float, Episode]] = {}
        self._past: deque[Episode] = deque(maxlen=_PAST_ALARMS)

    def add(self, result: Result) -> None:
        """Note what a result raises, and that what it does not raise any more has ended."""
        if not result.alarms and not self._raised:
            return
        with self._lock:
            before, self._raised = self._raised, {}
            for alarm in result.alarms:
                key = alarm.name, alarm.since_ns
                first, old = before.pop(key, (alarm.value, _begun(result, alarm)))
                peak = max(old.peak, alarm.value, key=lambda value: abs(value - first))
                self._raised[key] = first, replace(old, alarm=alarm, peak=peak)
            self._past.extend(replace(old, ended_s=time.time()) for _, old in before.values())

    def read(self) -> tuple[list[Episode], list[Episode]]:
        """Return (raised, past), the latest first."""
        with self._lock:
            return [old for _, old in reversed(self._raised.values())], list(reversed(self._past))


def _begun(result: Result, alarm: Alarm) -> Episode:
    began_s = time.time() - (result.done_ns - alarm.since_ns) / _NS
    return Episode(result.camera, alarm, began_s, None, alarm.value)


def _told(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None
