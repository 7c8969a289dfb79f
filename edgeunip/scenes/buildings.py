"""Buildings, walls and sheds: facades whose windows leak heat at night and mirror the sky by day."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgeunip.scenes.climate import Climate
from edgeunip.scenes.solids import Panel, Solid, extrude
from edgeunip.scenes.view import Points, Pose


@dataclass(frozen=True)
class Building:
    """A solid that stands still.

    Attributes:
        pose: its middle.
        length, depth, height: m; the length runs along the heading, the depth sideways.
        solid: what it looks like.
    """

    pose: Pose
    length: float
    depth: float
    height: float
    solid: Solid

    def covers(self, x: float, z: float, margin: float) -> bool:
        """Tell whether a point of the ground lies in the building or within ``margin`` metres of it."""
        forward, left = self.pose.local(x, z)
        return abs(forward) < self.length / 2 + margin and abs(left) < self.depth / 2 + margin


@dataclass(frozen=True)
class Facade:
    """What all walls of one building share: temperatures in degC, sizes in m.

    Attributes:
        wall: temperature in the shade.
        glass: of the coldest windows.
        leak: how much warmer the warmest windows are.
        slab: how much warmer the ends of the floors are.
        floor_m, bay_m: distance of windows, up and along.
        open_share: size of a window, as a share of its bay.
    """

    wall: float
    glass: float
    leak: float
    slab: float
    floor_m: float
    bay_m: float
    open_share: float


def draw_building(rng: np.random.Generator, climate: Climate, pose: Pose, size: tuple[float, float, float]) -> Building:
    """Draw a house of (length, depth, height) with windows and a flat or a pitched roof."""
    length, depth, height = size
    facade = _draw_facade(rng, climate)
    ridge = rng.uniform(0.25, 0.5) * length if length < 14 and rng.random() < 0.5 else 0.0
    half = length / 2
    profile = [(-half, 0.0), (-half, height), (0.0, height + ridge), (half, height), (half, 0.0)]
    roof = climate.reflecting(facade.wall + climate.sun * rng.uniform(2, 18), rng.uniform(0.1, 0.3))
    walls = [climate.wall(facade.wall, pose.yaw + turn) for turn in (math.pi, 0.0, math.pi / 2, -math.pi / 2)]
    panels = extrude(np.array(profile), depth / 2, [walls[0], roof, roof - 1.5, walls[1], roof], walls[2])
    fronts = {0: depth, 3: depth, 5: length, 6: length}
    temperatures = {0: walls[0], 3: walls[1], 5: walls[2], 6: walls[3]}
    dressed = [
        _dressed(rng, panel, facade, temperatures[i], fronts[i], height) if i in fronts else panel
        for i, panel in enumerate(panels)
    ]
    return Building(pose, length, depth, height, Solid(dressed))


def draw_wall(rng: np.random.Generator, climate: Climate, pose: Pose, size: tuple[float, float, float]) -> Building:
    """Draw a plain block of (length, depth, height): a garden wall, a container, a kiosk."""
    length, depth, height = size
    shade = climate.air + rng.uniform(-1.5, 3) + climate.sun * rng.uniform(0, 6)
    profile = np.array([(-length / 2, 0.0), (-length / 2, height), (length / 2, height), (length / 2, 0.0)])
    back, front = (climate.wall(shade, pose.yaw + turn) for turn in (math.pi, 0.0))
    sides = climate.wall(shade, pose.yaw + math.pi / 2), climate.wall(shade, pose.yaw - math.pi / 2)
    panels = extrude(profile, depth / 2, [back, climate.reflecting(shade, 0.12), front, shade], sides[0])
    panels[-1] = Panel(panels[-1].outline, sides[1], rank=1)
    return Building(pose, length, depth, height, Solid(panels))


def _draw_facade(rng: np.random.Generator, climate: Climate) -> Facade:
    wall = climate.air + (rng.uniform(-0.5, 5) if climate.night else rng.uniform(-1, 3) + climate.sun * 4)
    heated = climate.air < 16
    return Facade(
        wall=float(wall),
        glass=float(climate.reflecting(wall, rng.uniform(0.08, 0.3))),
        leak=float(rng.uniform(3, 12) if heated else rng.uniform(1, 4)),
        slab=float(rng.uniform(0.3, 1.8) if heated else rng.uniform(0, 0.5)),
        floor_m=float(rng.uniform(2.7, 3.5)),
        bay_m=float(rng.uniform(1.8, 4.0)),
        open_share=float(rng.uniform(0.35, 0.7)),
    )


def _dressed(
    rng: np.random.Generator, panel: Panel, facade: Facade, celsius: float, length: float, height: float
) -> Panel:
    """Put floors, windows and a door onto a wall; the outline's first two corners are not assumed to be the feet."""
    feet = panel.outline[panel.outline[:, 1] == 0.0]
    origin, along = feet[0], (feet[1] - feet[0]) / length
    decals: list[tuple[Points, float]] = []
    for a, b, low, high, offset in _openings(rng, facade, length, height):
        corners = np.array([origin + a * along, origin + b * along, origin + b * along, origin + a * along])
        corners[:, 1] = (low, low, high, high)
        decals.append((corners, celsius - facade.wall + offset))
    return Panel(panel.outline, celsius, tuple(decals), panel.rank)


def _openings(
    rng: np.random.Generator, facade: Facade, length: float, height: float
) -> Iterator[tuple[float, float, float, float, float]]:
    """Yield (from, to, low, high, degC in the shade) of floor slabs, windows and the door of a wall."""
    floors, bays = max(1, int(height // facade.floor_m)), max(1, int(length // facade.bay_m))
    for floor in range(1, floors + 1):
        level = min(height, floor * facade.floor_m)
        yield 0.0, length, level - 0.15, level, facade.wall + facade.slab
    door = int(rng.integers(bays))
    bay, open_m = length / bays, facade.open_share * length / bays
    for floor in range(floors):
        for column in range(bays):
            left, low = (column + 0.5) * bay - open_m / 2, floor * facade.floor_m + 0.9
            if floor == 0 and column == door:
                yield left, left + min(1.2, open_m), 0.0, min(2.1, height), facade.wall + 0.4 * facade.leak
            elif low + 1.3 < height:
                lit = facade.leak * rng.random() ** 2
                yield left - 0.08, left + open_m + 0.08, low - 0.08, low + 1.38, facade.wall + 0.35 * lit
                yield left, left + open_m, low, low + 1.3, facade.glass + lit
