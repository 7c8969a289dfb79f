"""A camera that needs no hardware: procedural scenes seen through a sensor model, at the sensor's own pace."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import Self

from edgeunip.devices import profiles
from edgeunip.devices.profiles import Profile
from edgeunip.errors import UsageError, near
from edgeunip.frame import Frame
from edgeunip.scenes import SENSORS, Scene, Sensor, SensorModel

_OPTIONS = ("seed", "night", "seconds")
_EXAMPLE = "synthetic://lepton?seed=3&night=1&seconds=10"
_Value = TypeVar("_Value")
_Default = TypeVar("_Default")


def open_synthetic(address: str, *, profile: Profile | None = None) -> SyntheticCamera:
    """Return the camera at ``synthetic://SENSOR[?seed=N&night=0|1&seconds=S]``.

    Raises:
        UsageError: the sensor or an option is unknown, or a value makes no sense.
    """
    parts = urlsplit(address)
    if parts.netloc not in SENSORS:
        raise UsageError("Unknown synthetic camera", where=address, remedy=near(parts.netloc, SENSORS))
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for key in options:
        if key not in _OPTIONS:
            raise UsageError(f"Unknown option {key}", where=address, remedy=near(key, _OPTIONS))
    return SyntheticCamera(
        address,
        SENSORS[parts.netloc],
        seed=_option(options, "seed", _natural, 0),
        night=_option(options, "night", _flag, None),
        seconds=_option(options, "seconds", _duration, None),
        profile=profile,
    )


class SyntheticCamera:
    """A live camera: frame ``k`` is exposed ``k`` periods after opening, and who comes late finds the newest.

    Args:
        name: what it is, for people.
        sensor: the camera model it plays. The counts are the sensor's: of a split frame, the radiometric half.
        seed: decides the scene and the sensor's noise.
        night: night or day; None leaves it to the seed.
        seconds: length of the stream; None for an endless one.
        profile: overrides the sensor's own radiometry.
    """

    live = True

    def __init__(
        self,
        name: str,
        sensor: Sensor,
        *,
        seed: int = 0,
        night: bool | None = None,
        seconds: float | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.name = name
        self.rate_hz: float | None = sensor.rate_hz
        self._sensor = sensor
        self._seed = seed
        self._night = night
        self._seconds = math.inf if seconds is None else seconds
        self._profile = profile
        self._closed = threading.Event()
        self._start_ns = 0

    def __enter__(self) -> Self:
        self._scene = Scene(self._seed, night=self._night)
        self._model = SensorModel(self._sensor, self._seed)
        self._closed = threading.Event()
        # The first picture of a scene takes longest; it must not cost the stream its first frames.
        self._scene.render(0.0, self._sensor.height, self._sensor.width)
        self._start_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame each time, each frame once."""
        closed, seq = self._closed, -1
        while True:
            seq = max(seq + 1, self._elapsed())
            due_s = seq / self._sensor.rate_hz
            if due_s >= self._seconds or closed.wait(max(0.0, due_s - self._elapsed_s())):
                return
            yield self._expose(seq, due_s)

    def _elapsed_s(self) -> float:
        return (time.monotonic_ns() - self._start_ns) / 1e9

    def _elapsed(self) -> int:
        """Return the number of the newest frame exposed so far."""
        return int(self._elapsed_s() * self._sensor.rate_hz)

    def _expose(self, seq: int, t_s: float) -> Frame:
        celsius, _ = self._scene.render(t_s, self._sensor.height, self._sensor.width)
        counts, state = self._model.expose(celsius, t_s)
        return profiles.frame(
            self._profile,
            counts,
            seq=seq,
            t_ns=self._start_ns + round(t_s * 1e9),
            where=self.name,
            radiometry=self._sensor.radiometry,
            state=state,
        )


def _option(options: dict[str, str], key: str, parse: Callable[[str], _Value], default: _Default) -> _Value | _Default:
    if key not in options:
        return default
    try:
        return parse(options[key])
    except (ValueError, KeyError) as error:
        raise UsageError(f"Option {key} cannot be {options[key]!r}", remedy=f"For example: {_EXAMPLE}") from error


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def _flag(text: str) -> bool:
    return {"0": False, "1": True}[text]


def _duration(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise ValueError(text)
    return seconds
