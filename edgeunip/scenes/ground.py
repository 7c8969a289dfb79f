"""What stands still: sky, horizon, ground with a road, shadows, and buildings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.scenes.buildings import Building
from edgeunip.scenes.climate import Climate
from edgeunip.scenes.labels import BUILDING, GROUND, SKY
from edgeunip.scenes.view import Canvas, Paint, Pose, View, paint

Plane = NDArray[np.float32]

_FARTHEST_M = 400.0
_GRAIN_PIXELS = 256


@dataclass(frozen=True)
class Road:
    """A straight road and the walks beside it.

    Attributes:
        pose: a point in its middle, and its direction.
        width, walk: of the carriageway and of each walk, m.
        asphalt, paving, verge: temperatures in the open, degC.
        marking: how much colder the markings are, K.
        tracks: how much warmer the wheel tracks are, K.
        roughness: standard deviation of the mottling of the carriageway, K; the verge has more.
        puddles: share of the sky in wet spots, 0 when dry.
    """

    pose: Pose
    width: float
    walk: float
    asphalt: float
    paving: float
    verge: float
    marking: float
    tracks: float
    roughness: float
    puddles: float


@dataclass(frozen=True)
class Shade:
    """A colder (or, under a warm engine, warmer) rectangle on the ground, with soft edges."""

    pose: Pose
    half_length: float
    half_width: float
    kelvin: float


@dataclass(frozen=True)
class Setting:
    """All that stands still in a scene.

    Attributes:
        climate: the weather.
        road: the ground.
        buildings: in any order.
        shades: on the ground.
        hedge: height of the bushes on the horizon, as a share of the picture's height; 0 for none.
        grain: mottling of every surface, (256, 256), unit variance; it tiles.
    """

    climate: Climate
    road: Road
    buildings: Sequence[Building]
    shades: Sequence[Shade]
    hedge: float
    grain: Plane

    def paint(self, view: View) -> Canvas:
        """Return the empty stage, as seen by a camera."""
        _, slope = view.rays()
        celsius = _sky(self.climate, view, self.grain)
        labels = np.full((view.height, view.width), SKY, np.uint8)
        below = int(np.count_nonzero(slope > -view.eye_m / _FARTHEST_M))
        if below < view.height:
            celsius[below:] = _ground(self, view, below)
            labels[below:] = GROUND
        canvas = Canvas(celsius, labels, np.full(labels.shape, np.inf, np.float32))
        _paint_hedge(canvas, self, view)
        for house in sorted(self.buildings, key=lambda item: -math.hypot(item.pose.x, item.pose.z)):
            _paint_building(canvas, house, self, view)
        return canvas


def draw_road(rng: np.random.Generator, climate: Climate, pose: Pose) -> Road:
    """Draw a road for the weather: at night asphalt keeps the day's heat and grass loses it to a clear sky."""
    sun, air, open_sky = climate.sun, climate.air, 1 - climate.cloud
    asphalt = air + (rng.uniform(0.5, 6) if climate.night else rng.uniform(0, 2) + sun * rng.uniform(8, 26))
    verge = air + (-rng.uniform(0.5, 4.5) * open_sky if climate.night else sun * rng.uniform(0, 8))
    wet = rng.random() < 0.2
    return Road(
        pose=pose,
        width=float(rng.uniform(5, 9)),
        walk=float(rng.uniform(1.5, 4)),
        asphalt=float(asphalt),
        paving=float(verge + rng.uniform(0.2, 1.1) * (asphalt - verge)),
        verge=float(verge),
        marking=float(rng.uniform(0.2, 3) * (0.3 + sun)),
        tracks=float(rng.uniform(0, 1.5)),
        roughness=float(rng.uniform(0.15, 0.8)),
        puddles=float(rng.uniform(0.1, 0.4) if wet else 0.0),
    )


def draw_grain(rng: np.random.Generator) -> Plane:
    """Draw a mottling that tiles, with a spectrum falling as 1 / f: (256, 256), mean 0, unit variance."""
    frequency = np.hypot(np.fft.fftfreq(_GRAIN_PIXELS)[:, None], np.fft.rfftfreq(_GRAIN_PIXELS)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((_GRAIN_PIXELS, _GRAIN_PIXELS))) / frequency
    grain = np.fft.irfft2(spectrum, s=(_GRAIN_PIXELS, _GRAIN_PIXELS))
    return np.asarray(grain / grain.std(), np.float32)


def _sky(climate: Climate, view: View, grain: Plane) -> Plane:
    """Cold overhead, warmer towards the horizon where more air is in the way; clouds are warm."""
    columns, slope = view.rays()
    elevation = np.arctan(np.maximum(slope, 0.0))
    height = 1 - np.exp(-elevation / 0.2)
    clear = climate.horizon + (climate.zenith - climate.horizon) * height
    deck = 1.0 / np.maximum(slope, 0.02)
    cover = np.clip(_sampled(grain, columns * deck * 9, deck * 9) * 0.7 + 2.2 * climate.cloud - 1.1, 0, 1)
    clouds = (0.25 + 0.35 * climate.cloud) * (climate.horizon - climate.zenith + 3) * cover * height
    murk = math.exp(-60.0 / climate.visibility_m) if climate.visibility_m < 100 else 1.0
    return np.asarray(climate.air - 1 + (clear + clouds - climate.air + 1) * murk, np.float32)


def _ground(setting: Setting, view: View, first: int) -> Plane:
    """Return the temperatures of the rows from ``first`` on."""
    road, climate = setting.road, setting.climate
    columns, slope = view.rays()
    z = np.minimum(view.eye_m / -slope[first:], _FARTHEST_M)
    x = columns * z
    cos, sin = math.cos(road.pose.yaw), math.sin(road.pose.yaw)
    across = np.abs((z - road.pose.z) * cos - (x - road.pose.x) * sin)
    along = (x - road.pose.x) * cos + (z - road.pose.z) * sin
    half = road.width / 2
    celsius = np.where(across < half, road.asphalt, np.where(across < half + road.walk, road.paving, road.verge))
    celsius = celsius + road.tracks * np.exp(-(((np.abs(across - half / 2) - 0.75) / 0.3) ** 2))
    dashed = (across < 0.08) & (along % 6 < 3)
    celsius -= road.marking * (dashed | (np.abs(across - half + 0.3) < 0.06))
    celsius -= 0.8 * road.marking * (np.abs(across - half - 0.1) < 0.1)
    fine, coarse = _sampled(setting.grain, x * 22, z * 22), _sampled(setting.grain, x * 5 + 90, z * 5 + 40)
    rough = np.where(across < half + road.walk, road.roughness, 2.2 * road.roughness)
    celsius += rough * (fine * np.exp(-z / 15) + coarse * np.exp(-z / 60))
    wet = np.clip(coarse * 3 - 3.5, 0, 1) * road.puddles * np.exp(-z / 20)
    celsius += wet * (climate.zenith - celsius)
    for shade in setting.shades:
        celsius += shade.kelvin * _cover(shade, x, z)
    return np.asarray(climate.air + (celsius - climate.air) * np.exp(-z / climate.visibility_m), np.float32)


def _cover(shade: Shade, x: Plane, z: Plane) -> Plane:
    """Return how much of each point of the ground lies in the shade, 0..1."""
    cos, sin = math.cos(shade.pose.yaw), math.sin(shade.pose.yaw)
    along = np.abs((x - shade.pose.x) * cos + (z - shade.pose.z) * sin) - shade.half_length
    across = np.abs((z - shade.pose.z) * cos - (x - shade.pose.x) * sin) - shade.half_width
    inside: Plane = np.clip(0.5 - np.maximum(along, across) / 0.5, 0, 1)
    return inside


def _sampled(grain: Plane, x: NDArray[np.floating], y: NDArray[np.floating]) -> Plane:
    """Look the mottling up at points of any size; it tiles."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    where = [np.ascontiguousarray(np.broadcast_to(axis % _GRAIN_PIXELS, shape), np.float32) for axis in (x, y)]
    return np.asarray(cv2.remap(grain, where[0], where[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def _paint_hedge(canvas: Canvas, setting: Setting, view: View) -> None:
    """Bushes and trees on the horizon belong to the ground; they are near the air's temperature."""
    if not setting.hedge:
        return
    outline = np.interp(np.linspace(0, 1, view.width), np.linspace(0, 1, 64), setting.grain[0, :64])
    tops = view.horizon * view.height - setting.hedge * view.height * (1 + 0.35 * outline)
    rows = np.arange(view.height)[:, None]
    mask = (rows >= tops) & (canvas.labels == SKY)
    leaves = cv2.resize(setting.grain, (view.width, view.height), interpolation=cv2.INTER_LINEAR)
    air = setting.climate.air
    canvas.celsius[mask] = (air - 0.5 + 2.5 * setting.climate.sun + 0.5 * np.asarray(leaves))[mask]
    canvas.labels[mask] = GROUND


def _paint_building(canvas: Canvas, house: Building, setting: Setting, view: View) -> None:
    climate, px = setting.climate, view.focal_px
    for index, polygons in house.solid.visible(house.pose, view):
        outline = house.solid.panels[index].outline
        z = max(1.0, float(house.pose.world(outline)[:, 2].mean()))
        hazy = [(points, climate.seen(celsius, z)) for points, celsius in polygons]
        grain = np.float32(0.35 + 0.5 * climate.sun) * setting.grain[:64, index * 16 : index * 16 + 64]
        touched = paint(canvas, hazy, Paint(BUILDING, -math.inf, 0.02 * px / z, grain))
        if touched is not None:
            region, mask = touched
            canvas.distance[region][mask] = _plane(house, outline, view)[region][mask]


def _plane(house: Building, outline: NDArray[np.float64], view: View) -> Plane:
    """Return z of the plane of a panel at every pixel, m."""
    corners = house.pose.world(outline) - np.array([0.0, view.eye_m, 0.0])
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    columns, slope = view.rays()
    denominator = normal[0] * columns + normal[1] * slope + normal[2]
    denominator = np.where(np.abs(denominator) < 1e-9, 1e-9, denominator)
    z: Plane = np.asarray(corners[0] @ normal / denominator, np.float32)
    return np.where(z > 0, z, np.float32(np.inf))
