"""A pinhole camera above flat ground, and the painting of warm polygons with exact labels.

World axes, in metres: x to the right, y up from the ground, z away from the camera. The optical axis is level and the
picture is shifted to put the horizon where it is wanted, so that upright things stay upright.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

NEAR_M = 0.6

Points = NDArray[np.float64]
Polygon = tuple[Points, float]
"""Corners in the picture, shape (n, 2), pixels; temperature, degC."""

_EMPTY = -1000.0
_SUBPIXEL_BITS = 4
_FARTHEST_PIXEL = 16_000.0
_ARC = np.linspace(-math.pi / 2, math.pi / 2, 5)
_CAPSULE = np.concatenate((_ARC, _ARC + math.pi))


@dataclass(frozen=True)
class View:
    """What the camera sees.

    Attributes:
        height, width: of the picture, pixels.
        focal: focal length, in picture heights.
        horizon: row of the horizon, as a share of the height from the top.
        eye_m: height of the camera above the ground.
    """

    height: int
    width: int
    focal: float
    horizon: float
    eye_m: float

    @property
    def focal_px(self) -> float:
        """Focal length in pixels: the size, at 1 m, of 1 m."""
        return self.focal * self.height

    def project(self, points: Points) -> Points:
        """Return where world points (..., 3) with z > 0 appear: (..., 2), column and row, pixel centres whole."""
        scale = self.focal_px / points[..., 2]
        column = (self.width - 1) / 2 + points[..., 0] * scale
        row = self.horizon * self.height - (points[..., 1] - self.eye_m) * scale
        return np.stack((column, row), axis=-1)

    def rays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return x per z of every column (1, W) and y per z of every row (H, 1), seen from the camera."""
        columns = (np.arange(self.width) - (self.width - 1) / 2) / self.focal_px
        rows = (self.horizon * self.height - np.arange(self.height)) / self.focal_px
        return columns[None, :].astype(np.float32), rows[:, None].astype(np.float32)


@dataclass(frozen=True)
class Pose:
    """Where an object stands and which way it faces.

    Attributes:
        x, z: position on the ground, m.
        yaw: heading, radians; 0 faces right, pi / 2 faces away from the camera.
    """

    x: float
    z: float
    yaw: float

    def world(self, local: Points) -> Points:
        """Turn points (n, 3), (forward, up, left) of the object, into world points."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        forward, up, left = local[:, 0], local[:, 1], local[:, 2]
        return np.stack((self.x + forward * cos - left * sin, up, self.z + forward * sin + left * cos), axis=-1)

    def local(self, x: float, z: float) -> tuple[float, float]:
        """Return a point of the ground as (forward, left) of the object."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return (x - self.x) * cos + (z - self.z) * sin, (z - self.z) * cos - (x - self.x) * sin


@dataclass(frozen=True)
class Canvas:
    """A picture being painted, from far to near.

    Attributes:
        celsius: temperatures (H, W), float32, degC.
        labels: class indices (H, W), uint8.
        distance: z of the fixed structure at each pixel, (H, W), float32, m; infinite where there is none.
    """

    celsius: NDArray[np.float32]
    labels: NDArray[np.uint8]
    distance: NDArray[np.float32]


@dataclass(frozen=True)
class Paint:
    """How an object's polygons are filled.

    Attributes:
        label: class index.
        z: distance for occlusion by fixed structures, m.
        blur_px: standard deviation of the smoothing of temperatures within the object, pixels.
        grain: mottling of the surface, (n, n) float32, K, stretched over the object.
    """

    label: int
    z: float
    blur_px: float
    grain: NDArray[np.float32]


Region = tuple[slice, slice]


def paint(canvas: Canvas, polygons: Sequence[Polygon], how: Paint) -> tuple[Region, NDArray[np.bool_]] | None:
    """Paint one object, later polygons over earlier ones.

    Returns:
        The region of the canvas that was touched and the mask of the object in it; None if nothing shows.
    """
    if not polygons:
        return None
    corners = np.concatenate([points for points, _ in polygons])
    low, high = corners.min(axis=0), corners.max(axis=0)
    height, width = canvas.labels.shape
    left, top = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
    right, bottom = min(width, math.ceil(high[0]) + 2), min(height, math.ceil(high[1]) + 2)
    if left >= right or top >= bottom:
        return None
    region = slice(top, bottom), slice(left, right)
    patch = _fill(polygons, corners, (left, top), (bottom - top, right - left))
    mask = (patch > _EMPTY) & (canvas.distance[region] > how.z)
    if not mask.any():
        return None
    surface = _surface(patch, polygons[-1][1], how.blur_px) + _stretched(how.grain, low, high, (left, top), patch.shape)
    np.copyto(canvas.celsius[region], surface, where=mask)
    canvas.labels[region][mask] = how.label
    return region, mask


def capsules(view: View, ends: Points, radii: Points) -> Points:
    """Return the outlines of thick lines with round ends.

    Args:
        view: the camera.
        ends: world points (n, 2, 3), in front of the camera.
        radii: at both ends, (n, 2), m. On the picture no line is thinner than a pixel.

    Returns:
        Corners (n, 10, 2) in the picture.
    """
    flat = view.project(ends)
    radii_px = np.maximum(radii * view.focal_px / ends[..., 2], 0.4)
    axis = flat[:, 1] - flat[:, 0]
    angle = np.arctan2(axis[:, 1], axis[:, 0])[:, None] + _CAPSULE
    half = len(_ARC)
    centres = np.repeat(flat[:, ::-1], half, axis=1)
    spokes = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    outline: Points = centres + np.repeat(radii_px[:, ::-1], half, axis=1)[..., None] * spokes
    return outline


def _fill(
    polygons: Sequence[Polygon], corners: Points, origin: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Fill polygons, whose corners stand one after another in ``corners``, in a patch of the picture."""
    patch = np.full(shape, _EMPTY, np.float32)
    inside = np.clip(corners - origin, -_FARTHEST_PIXEL, _FARTHEST_PIXEL)
    fixed = np.rint(inside * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    first = 0
    for points, celsius in polygons:
        last = first + len(points)
        cv2.fillPoly(patch, [fixed[first:last]], celsius, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
        first = last
    return patch


def _surface(patch: NDArray[np.float32], edge: float, blur_px: float) -> NDArray[np.float32]:
    """Smooth the temperatures; outside of the object stands its own edge, so that no background leaks in."""
    if blur_px < 0.3:
        return patch
    filled = np.where(patch > _EMPTY, patch, np.float32(edge))
    size = 2 * math.ceil(2 * blur_px) + 1
    return np.asarray(cv2.GaussianBlur(filled, (size, size), blur_px), np.float32)


def _stretched(
    grain: NDArray[np.float32], low: Points, high: Points, origin: tuple[int, int], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Stretch ``grain`` over the object's whole extent and cut out what lies in the picture."""
    scale = (np.array(grain.shape[::-1]) - 1) / np.maximum(high - low, 1.0)
    shift = (np.array(origin) - low) * scale
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    stretched = cv2.warpAffine(grain, matrix, (shape[1], shape[0]), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(stretched, np.float32)
