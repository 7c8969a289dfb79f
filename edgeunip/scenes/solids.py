"""Solids made of flat panels: vehicles and buildings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeunip.scenes.view import NEAR_M, Points, Polygon, Pose, View


@dataclass(frozen=True)
class Panel:
    """One flat face and what is painted on it.

    Attributes:
        outline: corners (n, 3), (forward, up, left) of the solid, m.
        celsius: temperature.
        decals: polygons in the same coordinates on top of the face, each with its temperature.
        rank: panels of a lower rank are painted before; within a rank, far before near.
    """

    outline: Points
    celsius: float
    decals: tuple[tuple[Points, float], ...] = ()
    rank: int = 0


class Solid:
    """Panels around an inside; only those that face the camera are painted."""

    def __init__(self, panels: Sequence[Panel]) -> None:
        self.panels = tuple(panels)
        shapes = [(panel.outline, panel.celsius) for panel in panels]
        shapes += [decal for panel in panels for decal in panel.decals]
        self._points = np.concatenate([points for points, _ in shapes])
        stops = np.cumsum([len(points) for points, _ in shapes])
        slices = [slice(int(stop) - len(points), int(stop)) for stop, (points, _) in zip(stops, shapes, strict=True)]
        decals = iter(zip(slices[len(panels) :], (celsius for _, celsius in shapes[len(panels) :]), strict=True))
        self._parts = [
            [(slices[i], panel.celsius), *(next(decals) for _ in panel.decals)] for i, panel in enumerate(panels)
        ]
        self._centres = np.array([panel.outline.mean(axis=0) for panel in panels])
        self._normals = np.array([_normal(panel.outline) for panel in panels])
        self._ranks = np.array([panel.rank for panel in panels])

    def visible(self, pose: Pose, view: View) -> list[tuple[int, list[Polygon]]]:
        """Return the panels that face the camera, in painting order: index and polygons in the picture."""
        forward, left = pose.local(0.0, 0.0)
        to_eye = np.array([forward, view.eye_m, left]) - self._centres
        facing = np.einsum("ij,ij->i", self._normals, to_eye) > 0
        order = np.lexsort((-np.einsum("ij,ij->i", to_eye, to_eye), self._ranks))
        world = pose.world(self._points)
        if world[:, 2].max() < NEAR_M:
            return []
        clipped = bool(world[:, 2].min() < NEAR_M)
        picture = None if clipped else view.project(world)
        result = []
        for index in order[facing[order]]:
            parts = self._parts[index]
            if picture is not None:
                polygons = [(picture[part], celsius) for part, celsius in parts]
            else:
                kept = ((_clip(world[part]), celsius) for part, celsius in parts)
                polygons = [(view.project(points), celsius) for points, celsius in kept if len(points) > 2]
            if polygons:
                result.append((int(index), polygons))
        return result


def extrude(
    profile: Points, half_width: float, strips: Sequence[float], side: float, *, side_rank: int = 1
) -> list[Panel]:
    """Return the panels of a profile pushed sideways: one strip an edge, then the left and the right side.

    Args:
        profile: corners (n, 2), (forward, up), m, clockwise as seen from the right.
        half_width: half of the width, m.
        strips: temperature of the strip of each edge, from corner i to i + 1, degC.
        side: temperature of both sides, degC.
        side_rank: rank of the sides.
    """
    right = np.insert(profile, 2, -half_width, axis=1)
    left = np.insert(profile, 2, half_width, axis=1)
    following = np.roll(np.arange(len(profile)), -1)
    panels = [
        Panel(np.stack((left[i], left[j], right[j], right[i])), celsius)
        for i, (j, celsius) in enumerate(zip(following, strips, strict=True))
    ]
    return [*panels, Panel(left[::-1], side, rank=side_rank), Panel(right, side, rank=side_rank)]


def _normal(outline: Points) -> Points:
    """Newell's normal: exact for flat outlines and defined for every one."""
    x, y, z = outline.T
    u, v, w = np.concatenate((outline[1:], outline[:1])).T
    return np.array([y @ w - z @ v, z @ u - x @ w, x @ v - y @ u])


def _clip(points: Points) -> Points:
    """Cut a polygon (n, 3) at the near plane and keep what lies beyond."""
    kept: list[Points] = []
    for here, there in zip(points, np.roll(points, -1, axis=0), strict=True):
        if here[2] >= NEAR_M:
            kept.append(here)
        if (here[2] < NEAR_M) != (there[2] < NEAR_M):
            kept.append(here + (there - here) * (NEAR_M - here[2]) / (there[2] - here[2]))
    return np.array(kept).reshape(-1, 3)
