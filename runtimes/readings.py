"""What a rule measures in a result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from edgeunip.frame import ClassStatistics, Region, Result
from edgeunip.runtimes.areas import Area, mask
from edgeunip.runtimes.rules import Rule


@dataclass(frozen=True)
class Reading:
    """One measurement: its value in the rule's unit, the pixel and the region it is about, 0 where about none."""

    value: float
    hotspot: tuple[int, int] | None = None
    region: int = 0


def read(rule: Rule, result: Result, area: Area | None) -> Reading | None:
    """Return the measurement that is the likeliest to raise a rule's alarm; None where there is none.

    Counts are of regions; areas of the classes together; ``max`` and ``min`` of any pixel of a class; ``mean`` and
    ``p95`` of its regions, of the class as a whole where it has none or the rule looks at an area.

    Args:
        rule: one without a window.
        result: with numbered regions.
        area: where the rule looks; None is the whole frame.
    """
    shown = result.classes if area is None else result.areas[area.name]
    classes = [(name, shown[name]) for name in rule.classes]
    if rule.quantity == "count":
        return Reading(float(len(regions_of(rule, result, area))))
    if rule.quantity == "area":
        return Reading(sum(s.pixels if rule.unit == "px" else 100 * s.area for _, s in classes))
    readings = [r for name, found in classes for r in _heat(rule, name, found, result, area) if math.isfinite(r.value)]
    extreme = max if rule.comparison[0] == ">" else min
    return extreme(readings, key=lambda reading: reading.value, default=None)


def regions_of(rule: Rule, result: Result, area: Area | None) -> list[Region]:
    """Return the regions of a rule's classes; in an area, those whose centroid lies in it."""
    regions = [region for region in result.regions if region.name in rule.classes]
    if area is None:
        return regions
    height, width = result.class_map.shape
    within = mask(area, (height, width))
    # A centroid is told in pixel numbers: (0, 0) is the centre of the first pixel.
    return [r for r in regions if (at := r.statistics.centroid) and within.holds(at[0] + 0.5, at[1] + 0.5)]


def heat(rule: Rule, found: ClassStatistics) -> float:
    """Return a rule's temperature, NaN where there is none."""
    value = {"max": found.max_c, "min": found.min_c, "mean": found.mean_c, "p95": found.p95_c}[rule.quantity]
    return math.nan if value is None else value


def _heat(rule: Rule, name: str, found: ClassStatistics, result: Result, area: Area | None) -> Iterator[Reading]:
    regions = [region for region in result.regions if region.name == name]
    if rule.quantity in ("mean", "p95") and regions and area is None:
        yield from (Reading(heat(rule, r.statistics), r.statistics.hotspot, r.number) for r in regions)
        return
    spot = None if rule.quantity == "min" else found.hotspot
    value = heat(rule, found)
    same = (r.number for r in regions if rule.quantity in ("max", "min") and heat(rule, r.statistics) == value)
    yield Reading(value, spot, next(same, 0))
