"""Models of uncooled thermal cameras: optics, noise, fixed pattern, drift, bad pixels and the shutter.

The figures of the cameras are typical ones, chosen to be plausible; they are no maker's specification.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import UsageError
from edgeunip.frame import State
from edgeunip.thermal import Counts, Linear

SETTLING_S = 2.0
"""How long after the shutter opens temperatures still creep."""

_SETTLING_K = 0.4
_SETTLING_DECAY_S = 0.6
_STUCK_C = (-5.0, 55.0)


@dataclass(frozen=True)
class Sensor:
    """A kind of camera.

    Attributes:
        name: key of :data:`SENSORS`.
        width, height: of a frame, pixels.
        bits: of a count, 8 or 16.
        rate_hz: frames a second.
        response: how the scene's temperature becomes counts.
        radiometry: what a user knows of ``response``: the same where the camera measures, None where it gives counts.
        netd_k: standard deviation of a pixel's noise from frame to frame, K.
        fixed_pattern_k: standard deviation over the pixels of what the shutter does not correct, K.
        drift_k: standard deviation over the pixels of the pattern that grows after each shutter, K per sqrt(second).
        bad_pixels: share of pixels that are stuck at a value.
        ffc_every_s: time from one flat-field correction (the shutter closes) to the next, s.
        ffc_s: how long the shutter is closed, s.
        blur_px: standard deviation of the lens's blur, pixels.
    """

    name: str
    width: int
    height: int
    bits: int
    rate_hz: float
    response: Linear
    radiometry: Linear | None
    netd_k: float
    fixed_pattern_k: float
    drift_k: float
    bad_pixels: float
    ffc_every_s: float
    ffc_s: float
    blur_px: float = 0.5


_CENTIKELVIN = Linear(0.01, -273.15)
_SIXTYFOURTH_KELVIN = Linear(1 / 64, -273.15)
_BARE = Linear(0.021, -430.0)

SENSORS = {
    "lepton": Sensor("lepton", 160, 120, 16, 9.0, _CENTIKELVIN, _CENTIKELVIN, 0.05, 0.08, 0.015, 1e-4, 180.0, 1.5),
    "boson": Sensor("boson", 640, 512, 16, 60.0, _BARE, None, 0.04, 0.05, 0.008, 5e-5, 300.0, 0.6),
    "tc001": Sensor(
        "tc001", 256, 192, 16, 25.0, _SIXTYFOURTH_KELVIN, _SIXTYFOURTH_KELVIN, 0.06, 0.08, 0.02, 1e-4, 90.0, 1.0
    ),
}


class SensorModel:
    """One camera of a kind: its own fixed pattern, stuck pixels and drift, all from the seed.

    The shutter closes at every multiple of ``ffc_every_s`` except time 0. Two models of the same seed that are asked
    for the same times give the same counts.
    """

    def __init__(self, sensor: Sensor, seed: int) -> None:
        if seed < 0:
            raise UsageError("The seed must not be negative", where=seed)
        self.sensor = sensor
        self._seed = seed
        self._noise = np.random.Generator(np.random.PCG64([seed, 0]))
        rng = np.random.Generator(np.random.PCG64([seed, 1]))
        shape = (sensor.height, sensor.width)
        self._fixed = np.float32(sensor.fixed_pattern_k) * _pattern(rng, shape)
        stuck = rng.choice(shape[0] * shape[1], round(sensor.bad_pixels * shape[0] * shape[1]), replace=False)
        self.bad_pixels: NDArray[np.intp] = np.sort(stuck)
        """Flat indices of the stuck pixels."""
        self._stuck_c = rng.uniform(*_STUCK_C, stuck.size).astype(np.float32)
        self._drift: tuple[int, NDArray[np.float32]] | None = None
        self._last: Counts | None = None

    def expose(self, celsius: NDArray[np.float32], t_s: float) -> tuple[Counts, State]:
        """Take a frame.

        Args:
            celsius: the scene, of the sensor's size (H, W), degC.
            t_s: seconds since the camera was switched on.

        Returns:
            Counts (H, W), read-only, uint8 or uint16, and their state: FFC while the shutter is closed (the frame is
            the last one before it), SETTLING for :data:`SETTLING_S` after it, else LIVE.

        Raises:
            UsageError: the scene has another size.
        """
        if celsius.shape != self._fixed.shape:
            raise UsageError(f"The sensor takes {self._fixed.shape}", where=f"{celsius.shape}")
        epoch, since = self._clock(t_s)
        if since < 0 and self._last is not None:
            return self._last, State.FFC
        self._last = self._counts(self._measured(celsius, epoch, max(since, 0.0)))
        if since < 0:
            return self._last, State.FFC
        return self._last, State.SETTLING if epoch and since < SETTLING_S else State.LIVE

    def _clock(self, t_s: float) -> tuple[int, float]:
        """Return how many corrections have begun, and seconds since the shutter opened; negative while it is shut."""
        epoch = max(0, math.floor(t_s / self.sensor.ffc_every_s))
        return epoch, t_s - epoch * self.sensor.ffc_every_s - (self.sensor.ffc_s if epoch else 0.0)

    def _measured(self, celsius: NDArray[np.float32], epoch: int, since: float) -> NDArray[np.float32]:
        seen = np.asarray(cv2.GaussianBlur(celsius, (5, 5), self.sensor.blur_px), np.float32)
        seen += np.float32(self.sensor.netd_k) * self._noise.standard_normal(seen.shape, np.float32)
        seen += self._fixed
        seen += np.float32(self.sensor.drift_k * math.sqrt(since)) * self._drift_pattern(epoch)
        if epoch:
            seen += np.float32(_SETTLING_K * math.exp(-since / _SETTLING_DECAY_S))
        np.put(seen, self.bad_pixels, self._stuck_c)
        return seen

    def _counts(self, celsius: NDArray[np.float32]) -> Counts:
        response, top = self.sensor.response, (1 << self.sensor.bits) - 1
        scaled = np.rint((celsius - np.float32(response.offset)) * np.float32(1 / response.scale))
        np.clip(scaled, 0, top, out=scaled)
        counts: Counts = scaled.astype(np.uint8) if self.sensor.bits == 8 else scaled.astype(np.uint16)
        counts.setflags(write=False)
        return counts

    def _drift_pattern(self, epoch: int) -> NDArray[np.float32]:
        if self._drift is None or self._drift[0] != epoch:
            rng = np.random.Generator(np.random.PCG64([self._seed, 2, epoch]))
            self._drift = epoch, _pattern(rng, (self.sensor.height, self.sensor.width))
        return self._drift[1]


def _pattern(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Draw what uncooled sensors show on a flat scene: pixels, column stripes and a slow shading; unit variance."""
    height, width = shape
    pixels = rng.standard_normal(shape, np.float32)
    columns = rng.standard_normal((1, width), np.float32)
    shading = cv2.resize(rng.standard_normal((4, 4), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    pattern = 0.6 * pixels + 0.5 * columns + 0.6 * np.asarray(shading)
    return np.asarray((pattern - pattern.mean()) / pattern.std(), np.float32)
