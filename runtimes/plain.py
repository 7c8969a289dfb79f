"""A result as plain JSON values: the one form that JSON lines, MQTT and the page share."""

from __future__ import annotations

import math
from typing import Any

from edgeunip.frame import Alarm, ClassStatistics, Region, Result


def plain(result: Result) -> dict[str, Any]:
    """Return what a result says, without its pictures; what is unknown or no number is None.

    Temperatures and values of alarms have two decimals, ``area`` four (a share, 0..1), centroids and ``age_ms`` one.
    """
    frame = result.frame
    return {
        "camera": result.camera,
        "seq": frame.seq,
        "t_ns": frame.t_ns,
        "age_ms": _rounded(result.age_ms, 1),
        "state": frame.state.value,
        "held": result.held,
        "dropped": result.dropped,
        "classes": {name: plain_statistics(found) for name, found in result.classes.items()},
        "regions": [_region(region) for region in result.regions],
        "areas": {
            area: {name: plain_statistics(found) for name, found in classes.items()}
            for area, classes in result.areas.items()
        },
        "alarms": [plain_alarm(alarm) for alarm in result.alarms],
    }


def plain_statistics(found: ClassStatistics) -> dict[str, Any]:
    """Return the statistics of a class, a region or a class within an area."""
    return {
        "pixels": found.pixels,
        "area": _rounded(found.area, 4),
        "min_c": _rounded(found.min_c, 2),
        "mean_c": _rounded(found.mean_c, 2),
        "p95_c": _rounded(found.p95_c, 2),
        "max_c": _rounded(found.max_c, 2),
        "hotspot": None if found.hotspot is None else list(found.hotspot),
        "centroid": None if found.centroid is None else [_rounded(value, 1) for value in found.centroid],
    }


def plain_alarm(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm; ``since_ns`` is on the same monotonic clock as a result's ``t_ns``."""
    return {
        "name": alarm.name,
        "rule": alarm.rule,
        "since_ns": alarm.since_ns,
        "value": _rounded(alarm.value, 2),
        "unit": alarm.unit,
        "hotspot": None if alarm.hotspot is None else list(alarm.hotspot),
        "region": alarm.region,
    }


def _region(region: Region) -> dict[str, Any]:
    return {
        "name": region.name,
        "number": region.number,
        "box": list(region.box),
        **plain_statistics(region.statistics),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)
