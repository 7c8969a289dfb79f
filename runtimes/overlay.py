"""A result as a colour picture: the thermal picture in gray, its classes in colour, regions in numbered boxes."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.frame import Alarm, ClassStatistics, Result, State

MIN_WIDTH = 480

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SIZE, _LINE = 0.45, 17
_SMALL = 0.38
_WHITE, _RED, _DARK_RED = (255, 255, 255), (255, 40, 40), (190, 0, 0)
_MOST_ALARMS = 5


class Overlay:
    """Draws results of one set of classes."""

    def __init__(self, classes: Classes, *, opacity: float = 0.5) -> None:
        """Build the table.

        Args:
            classes: names and colours; the first class is the background and stays gray.
            opacity: share of the class colour, 0..1.
        """
        self._classes = classes
        self._table = _table(classes, opacity)

    def colour(self, result: Result) -> NDArray[np.uint8]:
        """Return the coloured picture at native size, (H, W, 3), red green blue."""
        pair = cv2.merge([result.picture, result.class_map]).view("<u2")[..., 0]
        # The table covers all 16 bits, so nothing is ever clipped: the mode only skips a bounds check.
        packed = np.take(self._table, pair, mode="clip")
        rgba = packed.view(np.uint8).reshape(*packed.shape, 4)
        return np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8)

    def draw(self, result: Result) -> NDArray[np.uint8]:
        """Return the coloured picture with legend, (k H, k W, 3): enlarged k times to at least ``MIN_WIDTH`` wide."""
        image = self.colour(result)
        height, width = image.shape[:2]
        if (scale := -(-MIN_WIDTH // width)) > 1:
            image = np.asarray(
                cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_NEAREST), np.uint8
            )
        self._boxes(image, result, scale)
        self._legend(image, result)
        _hotspots(image, result, scale)
        _alarms(image, result)
        return image

    def _boxes(self, image: NDArray[np.uint8], result: Result, scale: int) -> None:
        """Draw the regions that are followed; those an alarm is about in red.

        Where numbers would cover one another, those of alarms are written, then those of the larger regions.
        """
        colours = dict(zip(self._classes.names, self._classes.colours, strict=True))
        alarmed = {alarm.region for alarm in result.alarms}
        followed = [region for region in result.regions if region.number]
        numbers: list[_Number] = []
        for region in sorted(followed, key=lambda one: (one.number not in alarmed, -one.statistics.pixels)):
            colour = _RED if region.number in alarmed else colours.get(region.name, _WHITE)
            x, y, width, height = (scale * side for side in region.box)
            cv2.rectangle(image, (x, y), (x + width - 1, y + height - 1), colour, 1)
            number = _Number.inside(x, y + height - 1, str(region.number))
            if not any(number.covers(other) for other in numbers):
                numbers.append(number)
        for number in numbers:
            number.write(image)

    def _legend(self, image: NDArray[np.uint8], result: Result) -> None:
        state = result.frame.state
        rows = [] if state is State.LIVE else [(state.value.upper(), _WHITE)]
        rows += [
            (_row(name, result.classes[name]), colour)
            for name, colour in zip(self._classes.names[1:], self._classes.colours[1:], strict=True)
            if name in result.classes and result.classes[name].pixels
        ]
        for index, (text, colour) in enumerate(rows):
            _label(image, text, _LINE * index, colour)


def _table(classes: Classes, opacity: float) -> NDArray[np.uint32]:
    """Red, green, blue and 255, packed as they lie in memory, at index 256 * class + gray."""
    gray = np.arange(256, dtype=np.float64)[None, :, None]
    colours = classes.palette().astype(np.float64)[:, None, :]
    share = np.zeros((256, 1, 1))
    share[1 : len(classes)] = opacity
    table = np.full((256, 256, 4), 255, np.uint8)
    table[..., :3] = np.floor(gray * (1 - share) + colours * share + 0.5)
    return table.view(np.uint32).ravel()


def _row(name: str, found: ClassStatistics) -> str:
    heat = "" if found.max_c is None else f" {found.max_c:.1f} C"
    return f"{name} {100 * found.area:.1f} %{heat}"


def _label(
    image: NDArray[np.uint8],
    text: str,
    top: int,
    colour: tuple[int, int, int],
    ground: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Write white on a dark ground, legible on any picture, beside a swatch of the class's colour."""
    (width, _), _ = cv2.getTextSize(text, _FONT, _SIZE, 1)
    cv2.rectangle(image, (0, top), (width + 24, top + _LINE), ground, cv2.FILLED)
    cv2.rectangle(image, (4, top + 4), (13, top + 13), colour, cv2.FILLED)
    cv2.putText(image, text, (18, top + 13), _FONT, _SIZE, _WHITE, 1, cv2.LINE_AA)


def _hotspots(image: NDArray[np.uint8], result: Result, scale: int) -> None:
    for name in list(result.classes)[1:]:
        if (spot := result.classes[name].hotspot) is not None:
            centre = spot[0] * scale + scale // 2, spot[1] * scale + scale // 2
            cv2.drawMarker(image, centre, _WHITE, cv2.MARKER_CROSS, 9, 1)


@dataclass(frozen=True)
class _Number:
    """The number of a box, and the pixels it takes."""

    text: str
    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def inside(cls, left: int, bottom: int, text: str) -> _Number:
        """Lay a number into a box's lower left corner, where the legend is not."""
        (wide, high), _ = cv2.getTextSize(text, _FONT, _SMALL, 1)
        return cls(text, left, bottom - high - 3, left + wide + 3, bottom)

    def covers(self, other: _Number) -> bool:
        beside = self.left > other.right or other.left > self.right
        return not (beside or self.top > other.bottom or other.top > self.bottom)

    def write(self, image: NDArray[np.uint8]) -> None:
        cv2.rectangle(image, (self.left, self.top), (self.right, self.bottom), (0, 0, 0), cv2.FILLED)
        cv2.putText(image, self.text, (self.left + 2, self.bottom - 2), _FONT, _SMALL, _WHITE, 1, cv2.LINE_AA)


def _alarms(image: NDArray[np.uint8], result: Result) -> None:
    """Write the alarms at the foot, white on red; of many, the first few and how many there are."""
    rows = [_alarm(alarm) for alarm in result.alarms]
    if len(rows) > _MOST_ALARMS:
        rows[_MOST_ALARMS - 1 :] = [f"and {len(rows) - _MOST_ALARMS + 1} alarms more"]
    for index, text in enumerate(rows):
        _label(image, text, image.shape[0] - _LINE * (len(rows) - index), _WHITE, _DARK_RED)


def _alarm(alarm: Alarm) -> str:
    value = f"{alarm.value:.0f}" if alarm.unit in ("count", "px") else f"{alarm.value:.1f}"
    where = f" at {alarm.region}" if alarm.region else ""
    return f"{alarm.name}: {value} {'' if alarm.unit == 'count' else alarm.unit}".rstrip() + where
