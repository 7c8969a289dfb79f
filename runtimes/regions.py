"""Connected regions of a class map, and what each of them shows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.frame import Frame, Region
from edgeunip.runtimes.measure import describe

MOST = 64

_SMALLEST_PIXELS = 4
_SMALLEST_SHARE = 1 / 20_000


def find_regions(
    frame: Frame,
    class_map: NDArray[np.uint8],
    classes: Classes,
    *,
    smallest: int | None = None,
    most: int = MOST,
) -> tuple[Region, ...]:
    """Find the connected regions of every class but the first, the background. Diagonal neighbours are connected.

    Args:
        frame: counts (H, W).
        class_map: class of every pixel, shape (H, W), uint8.
        classes: the classes, in order.
        smallest: area in pixels from which a region counts; None is 1/20,000 of the frame, and at least 4.
        most: regions that are kept, the largest ones.

    Returns:
        The regions in class order, largest first within their class; their numbers are 0.
    """
    least = default_smallest(class_map.shape) if smallest is None else smallest
    grid = _Grid(class_map)
    found = (part for number in range(1, len(classes)) for part in grid.parts(number, least, most))
    largest = sorted(found, key=lambda p: (-p.pixels, p.number, p.label))[:most]
    kept = sorted(largest, key=lambda part: (part.number, -part.pixels, part.label))
    return tuple(_region(frame, grid, part, classes) for part in kept)


def default_smallest(shape: tuple[int, ...]) -> int:
    """Return the least area in pixels of a region in frames of ``shape`` (H, W)."""
    return max(_SMALLEST_PIXELS, round(shape[0] * shape[1] * _SMALLEST_SHARE))


@dataclass(frozen=True, eq=False)
class _Part:
    """A region on the grid: its class, its label among ``labels``, its box there, and its pixels in the frame."""

    number: int
    label: int
    labels: NDArray[np.int32]
    box: tuple[int, int, int, int]
    pixels: int


class _Grid:
    """A class map without the rows and columns that repeat their neighbour.

    A model decides at a quarter of the resolution, so this finds components on a sixteenth of the pixels. What
    touches in the one touches in the other: nothing is lost, whatever the enlargement was.
    """

    def __init__(self, class_map: NDArray[np.uint8]) -> None:
        self._rows = _edges((class_map[1:] != class_map[:-1]).any(1))
        narrowed = class_map[self._rows[:-1]]
        self._columns = _edges((narrowed[:, 1:] != narrowed[:, :-1]).any(0))
        self._cells = np.ascontiguousarray(narrowed[:, self._columns[:-1]])
        self._heights, self._widths = np.diff(self._rows), np.diff(self._columns)
        self._pixels = np.outer(self._heights, self._widths).ravel()
        self._present = set(np.unique(self._cells).tolist())

    def parts(self, number: int, least: int, most: int) -> list[_Part]:
        """Return a class's regions of at least so many pixels, the largest ``most``."""
        if number not in self._present:
            return []
        mask = (self._cells == number).view(np.uint8)
        total, found, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        labels = np.asarray(found, np.int32)
        pixels = np.bincount(labels.ravel(), weights=self._pixels, minlength=total)
        large = np.flatnonzero(pixels[1:] >= least) + 1  # 0 is what is not of the class
        largest = large[np.argsort(-pixels[large], kind="stable")][:most].tolist()
        return [_Part(number, label, labels, tuple(boxes[label, :4].tolist()), int(pixels[label])) for label in largest]

    def native(self, part: _Part) -> tuple[tuple[int, int, int, int], NDArray[np.bool_]]:
        """Return (x, y, width, height) around a region in native pixels, and its mask there."""
        x, y, width, height = part.box
        small = part.labels[y : y + height, x : x + width] == part.label
        mask = small.repeat(self._widths[x : x + width], 1).repeat(self._heights[y : y + height], 0)
        return (int(self._columns[x]), int(self._rows[y]), mask.shape[1], mask.shape[0]), mask


def _edges(changes: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where runs of equal lines begin, and the number of lines."""
    return np.concatenate(([0], np.flatnonzero(changes) + 1, [len(changes) + 1]))


def _region(frame: Frame, grid: _Grid, part: _Part, classes: Classes) -> Region:
    box, mask = grid.native(part)
    found = describe(frame, mask, total=frame.counts.size, origin=box[:2])
    return Region(classes.names[part.number], 0, box, found)
