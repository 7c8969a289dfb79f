"""Numbers that stay with regions from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeunip.frame import Region, State

PATIENCE = 15  # frames a region may be missing

_LEAST_OVERLAP = 0.1
_MOST = 1024  # regions that are followed, missing ones included


@dataclass
class _Track:
    """A region that is followed: as it was seen last, and for how many frames it has been missing since."""

    region: Region
    missing: int = 0


class Tracker:
    """Follows regions. Called in frame order, by one thread; the same input gives the same numbers.

    Regions of one class are paired with those followed: first by overlap, the greatest first, then what is left by
    distance, the nearest first and no farther than the larger of the two boxes is long. What stays alone is new.
    """

    def __init__(self, *, patience: int = PATIENCE) -> None:
        """Follow a region over up to ``patience`` frames in which it is missing."""
        self._patience = patience
        self._tracks: dict[int, _Track] = {}
        self._last = 0

    def follow(self, regions: Sequence[Region], state: State) -> tuple[Region, ...]:
        """Return the regions with their numbers, in the same order.

        While the camera shows no live scene nothing ages, nothing moves and nothing new is numbered: a region that
        is none of those followed has number 0.
        """
        numbers = _match(regions, self._tracks)
        if not state.current:
            return tuple(replace(region, number=numbers.get(i, 0)) for i, region in enumerate(regions))
        numbered = tuple(replace(region, number=numbers.get(i) or self._new()) for i, region in enumerate(regions))
        self._age({region.number for region in numbered})
        self._tracks |= {region.number: _Track(region) for region in numbered}
        return numbered

    def _new(self) -> int:
        self._last += 1
        return self._last

    def _age(self, seen: set[int]) -> None:
        """Forget who has been missing for too long; of very many, those that have been missing longest."""
        for number, track in list(self._tracks.items()):
            track.missing += number not in seen
            if track.missing > self._patience:
                del self._tracks[number]
        if len(self._tracks) > _MOST:
            for number in sorted(self._tracks, key=lambda number: self._tracks[number].missing)[_MOST:]:
                del self._tracks[number]


def _match(regions: Sequence[Region], tracks: dict[int, _Track]) -> dict[int, int]:
    """Return the number of the track that each region continues, by the region's index."""
    followed = {number: track.region for number, track in tracks.items()}
    overlap, distance = _compare(regions, list(followed.values()))
    found: dict[int, int] = {}
    taken: set[int] = set()
    for cost in (np.where(overlap >= _LEAST_OVERLAP, -overlap, np.inf), distance):
        for index, number in _cheapest(cost, list(followed)):
            if index not in found and number not in taken:
                found[index] = number
                taken.add(number)
    return found


def _cheapest(cost: NDArray[np.float64], numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs (row, number of the column) of finite cost, the cheapest first; of equals the first."""
    rows, columns = np.nonzero(cost < np.inf)
    for place in np.argsort(cost[rows, columns], kind="stable"):
        yield int(rows[place]), numbers[columns[place]]


def _compare(regions: Sequence[Region], followed: Sequence[Region]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return overlap (0..1) and distance of all pairs, shape (regions, followed).

    The overlap is 0 and the distance infinite between classes; the distance is infinite where it is too far.
    """
    one, two = _boxes(regions)[:, None], _boxes(followed)[None]
    same = np.array([r.name for r in regions], object)[:, None] == np.array([r.name for r in followed], object)[None]
    sides = np.minimum(one[..., :2] + one[..., 2:4], two[..., :2] + two[..., 2:4]) - np.maximum(
        one[..., :2], two[..., :2]
    )
    shared = np.maximum(sides, 0).prod(-1)
    overlap = shared / (one[..., 2:4].prod(-1) + two[..., 2:4].prod(-1) - shared)
    distance = np.hypot(*np.moveaxis(one[..., 4:] - two[..., 4:], -1, 0))
    longer = np.maximum(np.hypot(one[..., 2], one[..., 3]), np.hypot(two[..., 2], two[..., 3]))
    return np.where(same, overlap, 0), np.where(same & (distance <= longer), distance, np.inf)


def _boxes(regions: Sequence[Region]) -> NDArray[np.float64]:
    """Return (x, y, width, height, centroid x, centroid y) of each region, shape (N, 6)."""
    rows = [(*region.box, *(region.statistics.centroid or (np.nan, np.nan))) for region in regions]
    return np.array(rows, np.float64).reshape(-1, 6)
