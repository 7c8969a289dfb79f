"""What flows through a stream: frames in, results out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from edgeunip.thermal import Counts, Radiometry


class State(str, Enum):
    """What a frame is worth."""

    LIVE = "live"
    FFC = "ffc"
    SETTLING = "settling"
    STALE = "stale"
    FROZEN = "frozen"
    OFFLINE = "offline"
    DEGRADED = "degraded"


@dataclass(frozen=True, eq=False)  # arrays have no truth value: frames are compared by identity
class Frame:
    """One frame as the sensor gave it.

    Attributes:
        counts: raw counts, shape (H, W), uint16 or uint8; never a coloured picture. Nobody writes into it.
        seq: number of the frame at its source, from 0; a gap is a frame that was lost.
        t_ns: monotonic time of capture, nanoseconds.
        state: what the frame is worth.
        radiometry: how counts become degC; None where the source gives bare counts.
    """

    counts: Counts
    seq: int
    t_ns: int
    state: State = State.LIVE
    radiometry: Radiometry | None = None


@dataclass(frozen=True)
class ClassStatistics:
    """What a frame shows of one class.

    Attributes:
        pixels: area in pixels of the native frame.
        area: share of the frame, 0..1.
        min_c, mean_c, max_c: temperatures in degC; None where the source gives bare counts or the class is absent.
        hotspot: (x, y) of the hottest pixel of the native frame; None as above.
    """

    pixels: int
    area: float
    min_c: float | None = None
    mean_c: float | None = None
    max_c: float | None = None
    hotspot: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """One segmented frame.

    Attributes:
        frame: what was segmented.
        picture: the 8-bit picture the model saw, at native size (H, W).
        class_map: class index of every native pixel, shape (H, W), uint8.
        classes: statistics by class name, in class order, absent classes included.
        done_ns: monotonic time at which the result was ready, nanoseconds.
        dropped: frames the stream has skipped so far because newer ones had come.
    """

    frame: Frame
    picture: NDArray[np.uint8]
    class_map: NDArray[np.uint8]
    classes: Mapping[str, ClassStatistics]
    done_ns: int
    dropped: int = 0

    @property
    def age_ms(self) -> float:
        """Milliseconds from capture to result."""
        return (self.done_ns - self.frame.t_ns) / 1e6
