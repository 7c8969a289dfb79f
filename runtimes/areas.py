"""Areas of interest: polygons in the picture, and what each of them shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.errors import UsageError
from edgeunip.frame import ClassStatistics, Frame
from edgeunip.runtimes.measure import NO_CLASS, statistics

MOST_CORNERS = 1000

Point = tuple[float, float]


@dataclass(frozen=True)
class Area:
    """A polygon in the picture.

    A pixel belongs to it when its centre lies inside: pixel (x, y) covers x..x+1 and y..y+1, so its centre is
    (x + 0.5, y + 0.5), and the whole frame is the polygon (0, 0), (width, 0), (width, height), (0, height).

    Attributes:
        name: what rules call it.
        polygon: at least three corners (x, y), in native pixels or, where ``relative``, in shares of width and height.
        relative: see ``polygon``.

    Raises:
        UsageError: there are too few or too many corners, one is no finite number or lies outside the frame, or the
            sides cross or touch.
    """

    name: str
    polygon: tuple[Point, ...]
    relative: bool = False

    def __post_init__(self) -> None:
        if not 3 <= len(self.polygon) <= MOST_CORNERS:
            raise _wrong(self, f"a polygon has 3 to {MOST_CORNERS} corners, this one {len(self.polygon)}")
        if not all(math.isfinite(value) for point in self.polygon for value in point):
            raise _wrong(self, "a corner is no finite number")
        limit = 1.0 if self.relative else math.inf
        if outside := next((p for p in self.polygon if not (0 <= p[0] <= limit and 0 <= p[1] <= limit)), None):
            raise _wrong(self, f"corner {_text(outside)} lies outside the frame", _hint(self, outside))
        if crossing := _crossing(self.polygon):
            raise _wrong(self, f"the sides from {_text(crossing[0])} and from {_text(crossing[1])} cross or touch")


@dataclass(frozen=True, eq=False)
class Mask:
    """An area's pixels: ``inside`` of shape (h, w), at ``origin`` (x, y) of the frame."""

    origin: tuple[int, int]
    inside: NDArray[np.bool_]

    def holds(self, x: float, y: float) -> bool:
        """Tell whether a pixel of the frame belongs to the area."""
        column, row = int(x) - self.origin[0], int(y) - self.origin[1]
        height, width = self.inside.shape
        return 0 <= row < height and 0 <= column < width and bool(self.inside[row, column])


@lru_cache(maxsize=256)
def mask(area: Area, shape: tuple[int, int]) -> Mask:
    """Return an area's pixels in frames of ``shape`` (H, W).

    Raises:
        UsageError: a corner lies outside such frames, or no pixel's centre lies inside the area.
    """
    height, width = shape
    scale = np.array([width, height] if area.relative else [1, 1], np.float64)
    corners = np.array(area.polygon, np.float64) * scale
    if outside := next((tuple(p) for p in corners.tolist() if p[0] > width or p[1] > height), None):
        raise _wrong(area, f"corner {_text(outside)} lies outside the frame of {width}x{height}")
    left, top = (int(value) for value in np.floor(corners.min(0)))
    right, bottom = (int(value) for value in np.ceil(corners.max(0)))
    inside = _inside(corners, _centres(left, right), _centres(top, bottom))
    if not inside.any():
        raise _wrong(area, f"it holds no pixel's centre in a frame of {width}x{height}")
    inside.setflags(write=False)
    return Mask((left, top), inside)


def area_statistics(
    frame: Frame, class_map: NDArray[np.uint8], classes: Classes, area: Area
) -> dict[str, ClassStatistics]:
    """Return what a frame shows of each class within an area; shares are of the area.

    Args:
        frame: counts (H, W).
        class_map: class of every pixel, shape (H, W), uint8.
        classes: the classes, in order.
        area: where to look.

    Raises:
        UsageError: the area does not fit the frame.
    """
    height, width = class_map.shape
    found = mask(area, (height, width))
    (x, y), (rows, columns) = found.origin, found.inside.shape
    labels = np.where(found.inside, class_map[y : y + rows, x : x + columns], np.uint8(NO_CLASS))
    return statistics(frame, labels, classes, origin=found.origin)


def _centres(first: int, end: int) -> NDArray[np.float64]:
    return np.arange(first, end, dtype=np.float64) + 0.5


def _inside(corners: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell of each point of a raster whether it lies inside: whether a ray to the right crosses an odd number of sides.

    A side counts its upper end and not its lower one, so that a ray through a corner counts it once.
    """
    inside = np.zeros((len(y), len(x)), np.bool_)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        crossed = np.flatnonzero((y0 <= y) != (y1 <= y))
        at = x0 + (y[crossed] - y0) * ((x1 - x0) / (y1 - y0) if crossed.size else 0.0)
        inside[crossed] ^= x < at[:, None]
    return inside


def _crossing(polygon: tuple[Point, ...]) -> tuple[Point, Point] | None:
    """Return where two sides that have no business with each other begin, where they meet; None where none do."""
    sides = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    for i, (a, b) in enumerate(sides):
        if a == b:
            return a, b
        for c, d in sides[i + 1 :]:
            if _folded(a, b, d) if b == c else _folded(c, d, b) if d == a else _meet(a, b, c, d):
                return a, c
    return None


def _folded(a: Point, b: Point, c: Point) -> bool:
    """Tell whether the way from a to b goes straight back to c."""
    backwards = (b[0] - a[0]) * (c[0] - b[0]) + (b[1] - a[1]) * (c[1] - b[1]) < 0
    return backwards and _turn(a, b, c) == 0


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Tell whether the segments a-b and c-d have a point in common."""
    one, two, three, four = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if one * two < 0 and three * four < 0:
        return True
    ends = ((one, a, b, c), (two, a, b, d), (three, c, d, a), (four, c, d, b))
    return any(turn == 0 and _between(p, q, r) for turn, p, q, r in ends)


def _turn(a: Point, b: Point, c: Point) -> int:
    """Return 1 where a, b, c turn left, -1 where they turn right, 0 where they lie on one line."""
    turn = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    return (turn > 0) - (turn < 0)


def _between(a: Point, b: Point, point: Point) -> bool:
    """Tell whether a point of the line a-b lies within the box around them."""
    return all(min(p, q) <= value <= max(p, q) for p, q, value in zip(a, b, point, strict=True))


def _wrong(area: Area, why: str, remedy: str | None = None) -> UsageError:
    return UsageError("This area cannot be", where=area.name, why=why, remedy=remedy)


def _hint(area: Area, point: Point) -> str | None:
    if area.relative and max(point) > 1 and min(point) >= 0:
        return "Relative coordinates are shares, 0..1; write relative = false for pixels."
    return None


def _text(point: tuple[float, ...]) -> str:
    return f"({point[0]:g}, {point[1]:g})"
