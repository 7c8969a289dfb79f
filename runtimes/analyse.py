"""What a result says, beyond its class map: statistics, regions, areas of interest, alarms.

Two halves. Measuring is the costly one and depends on one frame alone: the workers do it, several at a time.
Following is cheap and goes from frame to frame: it is done in their order, by one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.frame import ClassStatistics, Frame, Region, Result
from edgeunip.runtimes.alarms import RuleWatch
from edgeunip.runtimes.areas import area_statistics
from edgeunip.runtimes.measure import statistics
from edgeunip.runtimes.regions import find_regions
from edgeunip.runtimes.scene import Scene
from edgeunip.runtimes.track import Tracker


@dataclass(frozen=True)
class Measured:
    """What one frame shows; the entries of :class:`~edgeunip.frame.Result` of the same names, regions not numbered.

    Attributes:
        classes: statistics by class name.
        regions: see :func:`~edgeunip.runtimes.regions.find_regions`.
        areas: statistics by class name, by the area's name.
    """

    classes: Mapping[str, ClassStatistics]
    regions: tuple[Region, ...]
    areas: Mapping[str, Mapping[str, ClassStatistics]]


def measure(frame: Frame, class_map: NDArray[np.uint8], classes: Classes, scene: Scene | None = None) -> Measured:
    """Measure a frame by its class map, which may be an earlier frame's. Any thread may call it.

    Args:
        frame: counts (H, W). While the shutter is closed or the camera frozen, no temperatures are told.
        class_map: class of every pixel, shape (H, W), uint8.
        classes: of the model.
        scene: areas and regions to look for; None: no areas.

    Raises:
        UsageError: an area does not fit the frame.
    """
    scene = scene or Scene()
    regions = find_regions(frame, class_map, classes, smallest=scene.smallest, most=scene.most)
    areas = {area.name: area_statistics(frame, class_map, classes, area) for area in scene.areas}
    return Measured(statistics(frame, class_map, classes), regions, areas)


class Analyst:
    """Follows the results of one camera: numbers their regions and watches the rules."""

    def __init__(self, scene: Scene | None = None, *, rate_hz: float | None = None) -> None:
        """Begin.

        Args:
            scene: areas and rules; None: regions are numbered, and there are no alarms.
            rate_hz: of a file, frames a second, 0 where unknown; None when frames come at their own time.
        """
        scene = scene or Scene()
        self._tracker = Tracker(patience=scene.patience)
        self._rules = RuleWatch(scene.rules, {area.name: area for area in scene.areas}, rate_hz=rate_hz)

    def follow(self, result: Result) -> Result:
        """Return a result with its regions numbered and the alarms that are raised. In frame order, by one thread."""
        numbered = replace(result, regions=self._tracker.follow(result.regions, result.frame.state))
        return replace(numbered, alarms=self._rules.alarms(numbered))
