"""What part of a frame shows: its area, its place and its temperatures, exact, on raw counts at native resolution.

A radiometry rises with the counts, so the least, the greatest and every percentile are found among the counts: one
histogram gives them all, and the mean.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.frame import ClassStatistics, Frame
from edgeunip.thermal import Counts, Radiometry

NO_CLASS = 255  # never a class: the ignore index is at least the number of classes

_PLACES = np.arange(65536)


def statistics(
    frame: Frame, labels: NDArray[np.uint8], classes: Classes, *, origin: tuple[int, int] = (0, 0)
) -> dict[str, ClassStatistics]:
    """Return what a frame, or a rectangle of it, shows of each class, absent ones included.

    Args:
        frame: temperatures are told where it has a radiometry and shows a scene.
        labels: class of every pixel of the rectangle, shape (h, w), uint8; pixels of :data:`NO_CLASS` do not count.
        classes: the classes, in order.
        origin: (x, y) of the rectangle within the frame.
    """
    total = labels.size - int(np.count_nonzero(labels == NO_CLASS))
    return {
        name: describe(frame, labels == number, total=total, origin=origin) for number, name in enumerate(classes.names)
    }


def describe(frame: Frame, mask: NDArray[np.bool_], *, total: int, origin: tuple[int, int] = (0, 0)) -> ClassStatistics:
    """Return the statistics of a part of a frame.

    ``p95_c`` is the least temperature that at least 95 % of the pixels do not exceed; of pixels equally hot, the
    hot-spot is the first from the top, and from the left. Pixels outside the radiometry's range have no temperature.

    Args:
        frame: whole.
        mask: the part, shape (h, w).
        total: pixels of what its share is told of.
        origin: (x, y) of the mask within the frame.
    """
    x, y = origin
    height, width = mask.shape
    columns = cv2.reduce(mask.view(np.uint8), 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
    if not (pixels := int(columns.sum())):
        return ClassStatistics(0, 0.0)
    rows = cv2.reduce(mask.view(np.uint8), 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[:, 0]
    centroid = float(columns @ _PLACES[x : x + width]) / pixels, float(rows @ _PLACES[y : y + height]) / pixels
    found = ClassStatistics(pixels, pixels / total, centroid=centroid)
    if frame.radiometry is None or frame.state.blind:
        return found
    return _heat(frame.counts[y : y + height, x : x + width], mask, frame.radiometry, found, origin)


def _heat(
    counts: Counts, mask: NDArray[np.bool_], radiometry: Radiometry, found: ClassStatistics, origin: tuple[int, int]
) -> ClassStatistics:
    """Return ``found`` with the temperatures of the pixels that have one."""
    celsius, first, last = _table(radiometry)
    low, high, _, spot = cv2.minMaxLoc(counts, mask.view(np.uint8))
    if low < first or high > last:
        mask = mask & (counts >= first) & (counts <= last)
        if not mask.any():
            return found
        low, high, _, spot = cv2.minMaxLoc(counts, mask.view(np.uint8))
    scale = celsius[int(low) : int(high) + 1]
    histogram = np.bincount(counts[mask] - counts.dtype.type(low))
    sums = histogram.cumsum()
    p95 = scale[sums.searchsorted(-(-95 * sums[-1] // 100))]
    coldest, hottest = float(scale[0]), float(scale[-1])
    mean = min(max(coldest, float(histogram @ scale) / int(sums[-1])), hottest)
    hotspot = origin[0] + spot[0], origin[1] + spot[1]
    return ClassStatistics(found.pixels, found.area, coldest, mean, hottest, hotspot, float(p95), found.centroid)


@lru_cache(maxsize=8)
def _table(radiometry: Radiometry) -> tuple[NDArray[np.float64], int, int]:
    """Return degC of every 16-bit count, and the first and the last count that has a temperature."""
    celsius = radiometry.celsius(_PLACES.astype(np.uint16)).astype(np.float64)
    celsius.setflags(write=False)
    known = np.flatnonzero(np.isfinite(celsius))
    return (celsius, int(known[0]), int(known[-1])) if known.size else (celsius, 65536, -1)
