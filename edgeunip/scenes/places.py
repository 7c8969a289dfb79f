"""Where a scene takes place: the camera, a road, and the buildings along it."""

from __future__ import annotations

import math

import numpy as np

from edgeunip.scenes.buildings import Building, draw_building, draw_wall
from edgeunip.scenes.climate import Climate
from edgeunip.scenes.ground import Setting, Shade, draw_grain, draw_road
from edgeunip.scenes.view import Pose, View


def draw_camera(rng: np.random.Generator) -> View:
    """Draw a camera in the hand or on a pole; the size of the picture is filled in later."""
    if rng.random() < 0.4:
        return View(1, 1, float(rng.uniform(0.9, 1.6)), float(rng.uniform(0.04, 0.26)), float(rng.uniform(3.0, 6.5)))
    return View(1, 1, float(rng.uniform(0.85, 1.5)), float(rng.uniform(0.28, 0.52)), float(rng.uniform(1.3, 2.2)))


def draw_setting(rng: np.random.Generator, climate: Climate) -> Setting:
    """Draw a road that leads away or crosses, the houses along it, and some walls and kiosks beside it."""
    ahead = rng.random() < 0.45
    if ahead:
        pose = Pose(float(rng.uniform(-5, 5)), 0.0, float(math.pi / 2 + rng.uniform(-0.35, 0.35)))
    else:
        pose = Pose(0.0, float(rng.uniform(7, 14)), float(rng.uniform(-0.4, 0.4)))
    road = draw_road(rng, climate, pose)
    buildings: list[Building] = []
    for side in (1.0, -1.0):
        if rng.random() < (0.8 if ahead or side > 0 else 0.0):
            buildings += _draw_row(rng, climate, pose, side * (road.width / 2 + road.walk + rng.uniform(0.5, 6)))
    for _ in range(int(rng.integers(0, 3))):
        spot = Pose(float(rng.uniform(-14, 14)), float(rng.uniform(9, 30)), pose.yaw)
        _, left = spot.local(pose.x, pose.z)
        if abs(left) > road.width / 2 + 1.5:
            size = (float(rng.uniform(2, 9)), float(rng.uniform(0.2, 2.4)), float(rng.uniform(1.0, 2.6)))
            buildings.append(draw_wall(rng, climate, spot, size))
    hedge = float(rng.uniform(0.02, 0.12)) if rng.random() < 0.6 else 0.0
    shades = [shade for house in buildings for shade in _shadows(house, climate)]
    return Setting(climate, road, buildings, shades, hedge, draw_grain(rng))


def _draw_row(rng: np.random.Generator, climate: Climate, road: Pose, offset: float) -> list[Building]:
    """Draw the houses along one side of a road, with gaps; ``offset`` is that of their fronts, to the left, m."""
    row: list[Building] = []
    along = rng.uniform(-25, 0)
    while along < 70:
        length, depth, height = (float(rng.uniform(*span)) for span in ((6, 18), (6, 11), (3, 12)))
        left = offset + math.copysign(depth / 2, offset)
        place = road.world(np.array([[along + length / 2, 0.0, left]]))[0]
        house = Pose(float(place[0]), float(place[2]), road.yaw)
        forward, aside = (abs(value) for value in house.local(0.0, 0.0))
        clear = forward > length / 2 + 3 or aside > depth / 2 + 3
        if clear and rng.random() < 0.75:
            row.append(draw_building(rng, climate, house, (length, depth, height)))
        along += length + (rng.uniform(0, 8) if rng.random() < 0.6 else 0.0)
    return row


def _shadows(house: Building, climate: Climate) -> list[Shade]:
    if climate.sun < 0.15:
        return []
    reach = min(house.height, 8.0) * 0.7
    x = house.pose.x - reach / 2 * math.cos(climate.sun_azimuth)
    z = house.pose.z - reach / 2 * math.sin(climate.sun_azimuth)
    return [Shade(Pose(x, z, house.pose.yaw), house.length / 2, house.depth / 2 + 0.3, -9 * climate.sun)]
