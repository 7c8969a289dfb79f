"""Who is in a scene: people, bicycles and vehicles, each where there is room."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeunip.scenes import people, vehicles
from edgeunip.scenes.ground import Setting, Shade
from edgeunip.scenes.labels import BICYCLE, PERSON, VEHICLE
from edgeunip.scenes.paths import Path
from edgeunip.scenes.view import Polygon, Pose, View


@dataclass(frozen=True)
class Actor:
    """Something that is painted anew in each frame.

    Attributes:
        label: its class.
        path: how it moves.
        shape: from pose, distance covered and view to polygons, far ones first.
        softness_m: over which its temperatures blend.
        grain: mottling, K.
        behind_m: how much farther it counts in the order of painting.
    """

    label: int
    path: Path
    shape: Callable[[Pose, float, View], list[Polygon]]
    softness_m: float
    grain: NDArray[np.float32]
    behind_m: float = 0.0


def draw_actors(rng: np.random.Generator, setting: Setting, camera: View) -> tuple[list[Actor], list[Shade]]:
    """Draw who is there, and the marks that parked vehicles leave on the ground."""
    stage = _Stage(rng, setting, camera)
    stage.park(int(rng.choice(5, p=(0.1, 0.25, 0.3, 0.2, 0.15))))
    stage.drive(int(rng.choice(4, p=(0.2, 0.4, 0.25, 0.15))))
    stage.lean(int(rng.choice(4, p=(0.15, 0.35, 0.3, 0.2))))
    stage.ride(int(rng.choice(4, p=(0.2, 0.4, 0.25, 0.15))))
    stage.walk(int(rng.integers(2, 8)))
    return stage.actors, stage.shades


class _Stage:
    """Draws the actors one after another, each where there is room."""

    def __init__(self, rng: np.random.Generator, setting: Setting, camera: View) -> None:
        self.actors: list[Actor] = []
        self.shades: list[Shade] = []
        self._rng, self._setting, self._camera = rng, setting, camera
        self._taken: list[tuple[float, float, float]] = []

    def park(self, number: int) -> None:
        """Put vehicles beside the road, some askew; the ground under them keeps its shade or the engine's heat."""
        rng, climate, road = self._rng, self._setting.climate, self._setting.road
        for _ in range(number):
            model = self._model()
            length, half_width = vehicles.footprint(model)
            spot = self._room(6.5, 26, length, kerb=0.4)
            if spot is None:
                continue
            turn = rng.choice((0.0, math.pi)) + (rng.uniform(-0.15, 0.15) if rng.random() < 0.7 else rng.uniform(-2, 2))
            path = Path(*spot, float(road.pose.yaw + turn))
            self._vehicle(model, path, moving=False)
            kelvin = -7 * climate.sun if climate.sun > 0.1 else rng.uniform(-0.3, 2.5)
            self.shades.append(Shade(path.at(0)[0], length - 0.2, half_width, float(kelvin)))
            self._taken.append((*spot, length))

    def drive(self, number: int) -> None:
        """Let vehicles pass on the road, each on its own lane's side."""
        rng, road = self._rng, self._setting.road
        for _ in range(number):
            back = bool(rng.random() < 0.5)
            left = (1 if back else -1) * road.width / 4 + rng.uniform(-0.3, 0.3)
            x, _, z = road.pose.world(np.array([[0.0, 0.0, left]]))[0]
            reach = float(rng.uniform(18, 60))
            middle = reach - 8 if abs(math.sin(road.pose.yaw)) > 0.7 else 0.0
            x, z = x + middle * math.cos(road.pose.yaw), z + middle * math.sin(road.pose.yaw)
            yaw = road.pose.yaw + (math.pi if back else 0.0)
            start = float(rng.uniform(0, 2 * reach))
            path = Path(float(x), float(z), float(yaw), float(rng.uniform(2, 9)), reach, start=start)
            self._vehicle(self._model(), path, moving=True)

    def lean(self, number: int) -> None:
        """Put parked bicycles about."""
        for _ in range(number):
            spot = self._room(4.0, 14, 1.0, kerb=0.2)
            if spot is not None:
                self._bicycle(Path(*spot, float(self._rng.choice((0.0, math.pi)) + self._rng.normal(0, 0.5))))
                self._taken.append((*spot, 0.8))

    def ride(self, number: int) -> None:
        """Let cyclists cross the view or go round the yard."""
        for _ in range(number):
            path = self._crossing(5.0, 16, 5.0) if self._rng.random() < 0.5 else self._circling(6.5, 15, 2.5, 3.0)
            if path is not None:
                self._bicycle(path)
                self._person(path, 1.0, rides=True)

    def walk(self, number: int) -> None:
        """Let people stand, stroll in circles and cross the view."""
        for index in range(number):
            kind, near = self._rng.random(), 4.0 if index < 2 else 7.0
            far = 9.0 if index < 2 else 22.0
            if kind < 0.25:
                spot = self._room(near, far, 0.5)
                path = None if spot is None else Path(*spot, float(self._rng.uniform(-math.pi, math.pi)))
            elif kind < 0.65:
                path = self._circling(near + 1, far, 0.6, 1.2)
            else:
                path = self._crossing(near, far, 1.3)
            if path is not None:
                self._person(path, 1.0 if path.speed else 0.0, rides=False)

    def _model(self) -> str:
        return str(self._rng.choice(list(vehicles.MODELS), p=(0.35, 0.35, 0.2, 0.1)))

    def _vehicle(self, model: str, path: Path, *, moving: bool) -> None:
        climate = self._setting.climate
        solid = vehicles.draw_vehicle(self._rng, climate, model=model, moving=moving)

        def shape(pose: Pose, _: float, view: View) -> list[Polygon]:
            polygons = [polygon for _, panel in solid.visible(pose, view) for polygon in panel]
            return [(points, climate.seen(celsius, pose.z)) for points, celsius in polygons]

        self.actors.append(Actor(VEHICLE, path, shape, 0.03, self._grain(0.5)))

    def _bicycle(self, path: Path) -> None:
        climate = self._setting.climate
        limbs = people.bicycle(people.draw_bicycle(self._rng, climate))

        def shape(pose: Pose, _: float, view: View) -> list[Polygon]:
            return people.outlines(limbs, 1.0, pose, view, climate)

        self.actors.append(Actor(BICYCLE, path, shape, 0.0, self._grain(0.3), behind_m=0.01))

    def _person(self, path: Path, pace: float, *, rides: bool) -> None:
        climate = self._setting.climate
        outfit = people.draw_outfit(self._rng, climate)

        def shape(pose: Pose, covered: float, view: View) -> list[Polygon]:
            limbs = people.riding(outfit, covered) if rides else people.walking(outfit, covered, pace)
            return people.outlines(limbs, 1.0 if rides else outfit.height, pose, view, climate)

        self.actors.append(Actor(PERSON, path, shape, 0.03, self._grain(0.8)))

    def _grain(self, kelvin: float) -> NDArray[np.float32]:
        row, column = self._rng.integers(0, 224, 2)
        return np.float32(kelvin) * self._setting.grain[row : row + 32, column : column + 32]

    def _room(
        self, near: float, far: float, radius: float, *, limit: float = 0.9, kerb: float | None = None
    ) -> tuple[float, float] | None:
        """Find a free spot of the ground in view; None when none turns up.

        Args:
            near, far: distance, m.
            radius: of the room needed, m.
            limit: how far from the middle of the picture, as a share of the way to the edge of a 4:3 one.
            kerb: distance to keep from the carriageway, m; None for a spot that may be on it.
        """
        road = self._setting.road
        for _ in range(24):
            z = float(self._rng.uniform(near, far))
            x = float(self._rng.uniform(-1, 1)) * limit * 0.66 * z / self._camera.focal
            beside = kerb is None or abs(road.pose.local(x, z)[1]) > road.width / 2 + kerb
            if beside and self._free(x, z, radius):
                return x, z
        return None

    def _free(self, x: float, z: float, radius: float) -> bool:
        if any(house.covers(x, z, radius + 0.3) for house in self._setting.buildings):
            return False
        return all(math.hypot(x - a, z - b) > radius + r for a, b, r in self._taken)

    def _circling(self, near: float, far: float, small: float, large: float) -> Path | None:
        radius = float(self._rng.uniform(small, large))
        spot = self._room(near, far, radius + 0.4, limit=0.7)
        if spot is None:
            return None
        speed = float(self._rng.uniform(0.7, 1.5) * (2.0 if small > 2 else 1.0))
        yaw = float(self._rng.uniform(-math.pi, math.pi))
        return Path(*spot, yaw, speed, radius=radius, start=float(self._rng.uniform(0, 9)))

    def _crossing(self, near: float, far: float, speed: float) -> Path | None:
        for _ in range(24):
            z, yaw = float(self._rng.uniform(near, far)), float(self._rng.normal(0, 0.12))
            reach = 1.1 * z / self._camera.focal + 3.0
            steps = np.linspace(-reach, reach, 25)
            if all(self._free(s * math.cos(yaw), z + s * math.sin(yaw), 0.4) for s in steps):
                yaw += math.pi * int(self._rng.integers(2))
                start = float(self._rng.uniform(0, 2 * reach))
                return Path(0.0, z, yaw, float(speed * self._rng.uniform(0.6, 1.2)), reach, start=start)
        return None
