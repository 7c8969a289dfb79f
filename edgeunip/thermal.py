"""Thermal counts to degrees Celsius and to the 8-bit picture the model sees.

This is the one preprocessing of the project: training, calibration and stream call the same :class:`Agc`, whose
parameters travel in the bundle's manifest. Temperatures are computed on the raw counts and never see the AGC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import UsageError

Counts = NDArray[np.uint8] | NDArray[np.uint16]
Mode = Literal["percentile", "plateau", "clahe", "window"]

_STATISTICS_PIXELS = 19_200
_CURVE_BINS = 256
_KELVIN = 273.15


@dataclass(frozen=True)
class Linear:
    """Counts that are linear in temperature: degC = ``scale`` * counts + ``offset``.

    Raises:
        UsageError: ``scale`` is not positive, or a value is not finite.
    """

    scale: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.offset) and self.scale > 0):
            raise UsageError("A linear radiometry needs a positive scale and finite values", where=self)

    def celsius(self, counts: Counts) -> NDArray[np.float32]:
        """Return the temperature of every pixel in degC, float32, same shape."""
        return np.multiply(counts, np.float32(self.scale), dtype=np.float32) + np.float32(self.offset)

    def counts(self, celsius: float) -> float:
        """Return the counts a temperature in degC gives."""
        return (celsius - self.offset) / self.scale


@dataclass(frozen=True)
class Planck:
    """FLIR's radiometric model: T = B / ln(R1 / (R2 * (object_counts + O)) + F), in kelvin.

    ``object_counts`` is what is left of the measured counts once the radiation reflected by the object and emitted
    by the air between is taken away (constants as in FLIR radiometric JPEGs; the atmosphere's transmission follows
    FLIR's published two-term humidity model).

    Attributes:
        r1, r2, b, f, o: the camera's Planck constants.
        emissivity: of the object, 0..1.
        reflected_c: temperature of the surroundings the object reflects, degC.
        atmosphere_c: temperature of the air, degC.
        distance_m: camera to object, m. 0 leaves the atmosphere out.
        humidity: relative humidity, 0..1.
        alpha1, alpha2, beta1, beta2, x: the camera's atmosphere constants.

    Raises:
        UsageError: a value is not finite, or no camera has such constants.
    """

    r1: float
    r2: float
    b: float
    f: float
    o: float
    emissivity: float = 1.0
    reflected_c: float = 20.0
    atmosphere_c: float = 20.0
    distance_m: float = 0.0
    humidity: float = 0.5
    alpha1: float = 0.006569
    alpha2: float = 0.012620
    beta1: float = -0.002276
    beta2: float = -0.006670
    x: float = 1.9

    def __post_init__(self) -> None:
        values = astuple(self)
        if not all(math.isfinite(value) for value in values) or min(self.r1, self.r2, self.b) <= 0:
            raise UsageError("The Planck constants r1, r2, b must be positive, and all finite", where=self)
        if not 0 < self.emissivity <= 1 or not 0 <= self.humidity <= 1 or self.distance_m < 0:
            raise UsageError("Emissivity, humidity or distance is out of range", where=self)
        if min(self.reflected_c, self.atmosphere_c) <= -_KELVIN:
            raise UsageError("A temperature is below absolute zero", where=self)
        try:
            gain, background = self._optics()
        except (ArithmeticError, ValueError) as error:
            raise UsageError("The Planck constants cannot be computed with", where=self, why=error) from error
        if not (gain > 0 and math.isfinite(background)):
            raise UsageError("With these constants no radiation reaches the camera", where=self)

    def celsius(self, counts: Counts) -> NDArray[np.float32]:
        """Return the temperature of every pixel in degC, float32, same shape; NaN outside the model's range."""
        return np.take(_planck_table(self), counts, mode="clip")

    def counts(self, celsius: float) -> float:
        """Return the counts an object at a temperature in degC gives."""
        gain, background = self._optics()
        return self._radiance(celsius) * gain + background

    def transmission(self) -> float:
        """Return the share of the radiation that passes the air, 0..1."""
        t = self.atmosphere_c
        water = self.humidity * math.exp(1.5587 + 0.06939 * t - 0.00027816 * t**2 + 0.00000068455 * t**3)
        root = math.sqrt(self.distance_m)
        one = math.exp(-root * (self.alpha1 + self.beta1 * math.sqrt(water)))
        two = math.exp(-root * (self.alpha2 + self.beta2 * math.sqrt(water)))
        return self.x * one + (1 - self.x) * two

    def _radiance(self, celsius: float) -> float:
        exponent = min(self.b / (celsius + _KELVIN), 700.0)  # beyond it exp overflows, and nothing radiates any more
        return self.r1 / (self.r2 * (math.exp(exponent) - self.f)) - self.o

    def _optics(self) -> tuple[float, float]:
        """Return (gain, background): measured counts = gain * object counts + background."""
        tau = self.transmission()
        reflected = (1 - self.emissivity) * tau * self._radiance(self.reflected_c)
        air = (1 - tau) * self._radiance(self.atmosphere_c)
        return self.emissivity * tau, reflected + air


Radiometry = Linear | Planck


@lru_cache(maxsize=8)
def _planck_table(planck: Planck) -> NDArray[np.float32]:
    """Degrees Celsius of every 16-bit count: a table, since a stream's constants do not change."""
    gain, background = planck._optics()
    measured = np.arange(65536, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = planck.r1 / (planck.r2 * ((measured - background) / gain + planck.o))
        kelvin = planck.b / np.log(np.where(ratio > 0, ratio, np.nan) + planck.f)
        kelvin[~((kelvin > 0) & np.isfinite(kelvin))] = np.nan
        table = (kelvin - _KELVIN).astype(np.float32)
    table.setflags(write=False)
    return table


def radiometry_to_json(radiometry: Radiometry | None) -> dict[str, Any] | None:
    """Return a JSON form of ``radiometry``, None for a camera that only gives counts."""
    return None if radiometry is None else {"model": type(radiometry).__name__.lower(), **asdict(radiometry)}


def radiometry_from_json(value: Mapping[str, Any] | None) -> Radiometry | None:
    """Read what :func:`radiometry_to_json` wrote.

    Raises:
        UsageError: it is none, or a value is of the wrong type or out of range.
    """
    if value is None:
        return None
    models: dict[str, type[Linear] | type[Planck]] = {"linear": Linear, "planck": Planck}
    try:
        parameters = {key: _real(number) for key, number in value.items() if key != "model"}
        return models[value["model"]](**parameters)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UsageError("Not a radiometry", where=value, why=repr(error)) from error


def _real(value: object) -> float:
    """Return a JSON number as a float; nothing else is one, neither true nor "1"."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return float(value)


@dataclass(frozen=True)
class Tone:
    """The mapping from counts to gray that one frame asks for, after smoothing over time.

    Attributes:
        low, high: the counts that become black and white.
        curve: gray (0..1) at equal steps from ``low`` to ``high``; None for a straight line.
    """

    low: float
    high: float
    curve: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Agc:
    """Automatic gain control: counts to the 8-bit picture that the model is trained on and streams with.

    A frame is measured, then the tone is applied: ``apply(counts, measure(counts))`` is :meth:`picture`. A stream
    passes the previous tone back to :meth:`measure`, and keeps it as it is while the camera's shutter is closed.

    Attributes:
        mode: ``percentile`` (straight line between two percentiles), ``plateau`` (histogram equalisation whose
            histogram is clipped, so that a large uniform background does not take all grays), ``clahe`` (contrast
            limited adaptive histogram equalisation after ``percentile``), ``window`` (a fixed range in degC).
        low, high: percentiles, 0..100.
        min_span: the smallest range of counts stretched to black..white, so that noise is not.
        smoothing_s: time constant of the tone's smoothing in a stream, seconds. 0 switches it off.
        plateau: highest bin of the histogram, as a multiple of the mean bin.
        clip: contrast limit of CLAHE.
        tiles: CLAHE tiles along each axis.
        window_c: black and white in degC, for ``window``.
    """

    mode: Mode = "percentile"
    low: float = 0.1
    high: float = 99.9
    min_span: float = 32.0
    smoothing_s: float = 1.0
    plateau: float = 3.0
    clip: float = 2.0
    tiles: int = 8
    window_c: tuple[float, float] = (0.0, 60.0)

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise UsageError("Unknown AGC mode", where=self.mode, remedy=f"Choose one of {', '.join(get_args(Mode))}.")
        if not 0 <= self.low < self.high <= 100:
            raise UsageError("AGC percentiles must satisfy 0 <= low < high <= 100", where=f"{self.low}, {self.high}")
        numbers = (self.min_span, self.smoothing_s, self.plateau, self.clip, *self.window_c)
        if not all(math.isfinite(number) for number in numbers):
            raise UsageError("An AGC parameter is not finite", where=self)
        if self.min_span < 1 or self.smoothing_s < 0 or self.plateau < 1 or self.clip <= 0:
            raise UsageError("An AGC parameter is out of range", where=self)
        if isinstance(self.tiles, bool) or not isinstance(self.tiles, int) or not 1 <= self.tiles <= 64:
            raise UsageError("The AGC's tiles must be a whole number in 1..64", where=self.tiles)
        if not -_KELVIN < self.window_c[0] < self.window_c[1]:
            raise UsageError("The AGC window must go from cold to hot", where=f"{self.window_c} degC")

    def picture(self, counts: Counts, radiometry: Radiometry | None = None) -> NDArray[np.uint8]:
        """Return the 8-bit picture of one frame on its own, same shape (H, W)."""
        return self.apply(counts, self.measure(counts, radiometry=radiometry))

    def measure(
        self,
        counts: Counts,
        previous: Tone | None = None,
        *,
        elapsed_s: float = 0.0,
        radiometry: Radiometry | None = None,
    ) -> Tone:
        """Find the tone of a frame of counts (H, W), uint8 or uint16.

        Args:
            counts: the frame.
            previous: the tone of the frame before, to be smoothed with; None for a frame on its own.
            elapsed_s: seconds since the frame before.
            radiometry: how counts become degC; needed by mode ``window`` only.

        Raises:
            UsageError: mode ``window`` with a camera whose counts have no known temperature.
        """
        _check(counts)
        if self.mode == "window":
            # A camera may lose its temperatures for a while: its mode was switched, its frames are black.
            return self._window(radiometry) if radiometry is not None or previous is None else previous
        if previous is not None and self.smoothing_s > 0 and elapsed_s <= 0:
            return previous
        tone = self._statistics(counts)
        if previous is None or self.smoothing_s == 0:
            return tone
        return _blend(tone, previous, math.exp(-elapsed_s / self.smoothing_s))

    def apply(self, counts: Counts, tone: Tone) -> NDArray[np.uint8]:
        """Map counts (H, W), uint8 or uint16, to the 8-bit picture by a tone. Same shape."""
        _check(counts)
        # The table covers every value of the type, so nothing is ever clipped: the mode only skips a bounds check.
        picture = np.take(_table(tone, np.iinfo(counts.dtype).max + 1), counts, mode="clip")
        if self.mode == "clahe":
            equaliser = cv2.createCLAHE(clipLimit=self.clip, tileGridSize=(self.tiles, self.tiles))
            picture = np.asarray(equaliser.apply(picture), np.uint8)
        return picture

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as the manifest stores them."""
        return {**asdict(self), "window_c": list(self.window_c)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Agc:
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: an entry is missing, unknown, of the wrong type or out of range.
        """
        try:
            cold, hot = value["window_c"]
            other: dict[str, Any] = {"mode": value["mode"], "tiles": value["tiles"]}
            other["window_c"] = (_real(cold), _real(hot))
            reals: dict[str, Any] = {key: _real(entry) for key, entry in value.items() if key not in other}
            return cls(**reals, **other)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError("Not the parameters of an AGC", where=value, why=repr(error)) from error

    def _window(self, radiometry: Radiometry | None) -> Tone:
        if radiometry is None:
            raise UsageError(
                "AGC mode 'window' needs temperatures, and this source gives bare counts",
                remedy="Name the camera's profile, or use mode percentile.",
            )
        cold, hot = self.window_c
        return Tone(radiometry.counts(cold), radiometry.counts(hot))

    def _statistics(self, counts: Counts) -> Tone:
        stride = max(1, math.isqrt(counts.size // _STATISTICS_PIXELS))
        sample = counts[::stride, ::stride].ravel()
        last = sample.size - 1
        ranks = int(last * self.low / 100), math.ceil(last * self.high / 100)
        low, high = (float(value) for value in np.partition(sample, ranks)[list(ranks)])
        if (missing := self.min_span - (high - low)) > 0:
            low, high = low - missing / 2, high + missing / 2
        return Tone(low, high, self._equalised(sample, low, high) if self.mode == "plateau" else None)

    def _equalised(self, sample: Counts, low: float, high: float) -> tuple[float, ...]:
        histogram, _ = np.histogram(sample, bins=_CURVE_BINS, range=(low, high))
        clipped = np.minimum(histogram, self.plateau * sample.size / _CURVE_BINS)
        curve = np.concatenate(([0.0], np.cumsum(clipped)))
        return tuple((curve / curve[-1]).tolist())


def fit(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a picture (H, W) or (H, W, 3) to (height, width) pixels: the one resize of training, calibration, stream.

    Shrinking averages (nothing aliases), growing interpolates. A picture of that size is returned as it is.
    """
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height <= picture.shape[0] and width <= picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (width, height), interpolation=method), np.uint8)


def _check(counts: Counts) -> None:
    if counts.dtype not in (np.uint8, np.uint16) or counts.ndim != 2 or not counts.size:
        raise UsageError("AGC takes one channel of uint8 or uint16", where=f"{counts.dtype} {counts.shape}")


def _blend(new: Tone, old: Tone, keep: float) -> Tone:
    """Return ``keep`` of the old tone and the rest of the new one."""

    def mix(a: float, b: float) -> float:
        return a + (b - a) * keep

    curve = new.curve
    if new.curve is not None and old.curve is not None:
        curve = tuple(mix(a, b) for a, b in zip(new.curve, old.curve, strict=True))
    return Tone(mix(new.low, old.low), mix(new.high, old.high), curve)


def _table(tone: Tone, size: int) -> NDArray[np.uint8]:
    """The gray of every count: a table makes every mode one gather, and bit-equal on every processor."""
    table = np.zeros(size, np.uint8)
    first, last = max(0, math.ceil(tone.low)), min(size, math.floor(tone.high) + 1)
    table[max(0, last) :] = 255
    if first < last:
        gray = (np.arange(first, last, dtype=np.float64) - tone.low) / ((tone.high - tone.low) or 1.0)
        if tone.curve is not None:
            gray = _bend(gray, np.asarray(tone.curve))
        table[first:last] = np.floor(gray * 255 + 0.5)
    return table


def _bend(gray: NDArray[np.float64], curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read a curve of equal steps at ``gray``, 0..1. Plain steps: np.interp may fuse two and round apart."""
    position = gray * (len(curve) - 1)
    step = np.minimum(position.astype(np.intp), len(curve) - 2)
    return np.asarray(curve[step] + (curve[step + 1] - curve[step]) * (position - step), np.float64)
