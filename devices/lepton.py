"""The telemetry rows of a FLIR Lepton, as its datasheet lays them out.

A Lepton 3 sends them as two rows of 160 words, a Lepton 2 as three of 80; either way they are packets of 80 words one
after the other: A (times, status, temperatures), B (assumptions about the scene), C (gain, TLinear). Of 32-bit values
the low word comes first. They stand below the pixels, or above them where the camera was told so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip.budget import BUDGET
from edgeunip.frame import State
from edgeunip.thermal import Counts, Linear

ROWS = {(122, 160): 2, (63, 80): 3}
"""(rows, columns) of a frame on the wire that carries telemetry, to the number of its telemetry rows."""

_KELVIN = 273.15
_IMMINENT, _RUNNING = 1, 2
# Of the sensor and its housing, in 0.01 K: what electronics survive. Pixels hardly ever lie in it four times over.
_WARMTH = range(22_000, 39_000)
_STATUS_BITS = 21  # The datasheet uses none above.
_TLINEAR_K = (0.1, 0.01)


@dataclass(frozen=True)
class Telemetry:
    """What a Lepton says of one frame.

    Attributes:
        revision: of the telemetry's layout, (major, minor).
        counter: number of the frame since the camera was switched on.
        uptime_ms: milliseconds since then.
        ffc: state of the flat-field correction: 0 never asked for, 1 imminent, 2 in progress, 3 complete.
        since_ffc_ms: milliseconds since the last correction.
        sensor_c: temperature of the sensor, degC.
        tlinear_k: kelvins a count; None where the counts are no temperatures.
    """

    revision: tuple[int, int]
    counter: int
    uptime_ms: int
    ffc: int
    since_ffc_ms: int
    sensor_c: float
    tlinear_k: float | None

    @property
    def state(self) -> State:
        """What the frame is worth."""
        if self.ffc == _RUNNING:
            return State.FFC
        recent = self.ffc > _RUNNING and self.since_ffc_ms < 1000 * BUDGET.settle_s
        return State.SETTLING if recent else State.LIVE

    @property
    def radiometry(self) -> Linear | None:
        """How counts become degC."""
        return None if self.tlinear_k is None else Linear(self.tlinear_k, -_KELVIN)


def cut(counts: Counts) -> tuple[Counts, Telemetry] | None:
    """Cut the telemetry off a frame on the wire (H, W); None where it has none.

    The size alone proves nothing: the rows must also read as telemetry (times in order, temperatures that electronics
    survive, flags that are flags).
    """
    rows = ROWS.get(counts.shape)
    if rows is None or counts.dtype != np.uint16:
        return None
    for pixels, words in ((counts[:-rows], counts[-rows:]), (counts[rows:], counts[:rows])):
        if (told := parse(words)) is not None:
            return pixels, told
    return None


def parse(words: NDArray[Any]) -> Telemetry | None:
    """Read rows of telemetry, at least 240 words; None where they cannot be that."""
    word = words.ravel().tolist()

    def double(at: int) -> int:
        return int(word[at] | word[at + 1] << 16)

    status, uptime, last = double(3), double(1), double(30)
    warm = all(word[at] in _WARMTH for at in (24, 26))
    if not (word[0] and warm and last <= uptime and not status >> _STATUS_BITS and word[208] < 2 and word[209] < 2):
        return None
    return Telemetry(
        revision=(word[0] & 0xFF, word[0] >> 8),
        counter=double(20),
        uptime_ms=uptime,
        ffc=status >> 4 & 3,
        since_ffc_ms=uptime - last,
        sensor_c=round(word[24] / 100 - _KELVIN, 2),
        tlinear_k=_TLINEAR_K[word[209]] if word[208] else None,
    )
