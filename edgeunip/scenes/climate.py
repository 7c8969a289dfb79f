"""Weather, and the temperatures it gives to things: what makes a night look like a night in the thermal infrared."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Climate:
    """Weather of a scene. Temperatures in degC are apparent ones, as a camera set to emissivity 1 reads them.

    Attributes:
        night: whether the sun is down.
        air: temperature of the air.
        zenith: of the sky overhead; a clear sky is cold, an overcast one is near the air.
        horizon: of the sky just above the horizon.
        cloud: cover, 0..1.
        sun: heating by the sun, 0 (night, overcast) .. 1 (strong).
        sun_azimuth: direction of the sun over the ground, radians, as a :class:`~edgeunip.scenes.view.Pose`'s yaw.
        visibility_m: distance at which 37 % of the contrast to the air is left.
    """

    night: bool
    air: float
    zenith: float
    horizon: float
    cloud: float
    sun: float
    sun_azimuth: float
    visibility_m: float

    def seen(self, celsius: float, z: float) -> float:
        """Return how warm a surface looks through ``z`` metres of air."""
        return self.air + (celsius - self.air) * math.exp(-max(z, 0.0) / self.visibility_m)

    def reflecting(self, celsius: float, share: float) -> float:
        """Return how warm a surface looks that mirrors ``share`` of the sky: glass, paint, bare metal, water."""
        return celsius + share * (self.zenith - celsius)

    def wall(self, celsius: float, facing: float) -> float:
        """Return the temperature of a wall that faces ``facing`` (a yaw), from its temperature in the shade."""
        return celsius + 14.0 * self.sun * max(0.0, math.cos(facing - self.sun_azimuth))


def draw_climate(rng: np.random.Generator, night: bool | None) -> Climate:
    """Draw the weather; ``night`` None draws that too."""
    night = bool(rng.random() < 0.5) if night is None else night
    cloud = float(rng.beta(0.7, 0.9))
    air = float(rng.uniform(-8, 20) if night else rng.uniform(2, 32))
    clear = air - rng.uniform(20, 34)
    zenith = float(np.clip(clear + cloud * (air - 6 - clear), -22 if night else -28, 8 if night else 16))
    zenith = min(zenith, air - 4)
    fog = rng.random() < 0.12
    return Climate(
        night=night,
        air=air,
        zenith=zenith,
        horizon=float(air - 2 - rng.uniform(0.15, 0.5) * (air - zenith)),
        cloud=cloud,
        sun=0.0 if night else float((1 - 0.8 * cloud) * rng.uniform(0.3, 1.0)),
        sun_azimuth=float(rng.uniform(-math.pi, math.pi)),
        visibility_m=float(rng.uniform(40, 90) if fog else rng.uniform(250, 1500)),
    )
