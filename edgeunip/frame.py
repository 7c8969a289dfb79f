"""What flows through a stream: frames in, results out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from edgeunip.thermal import Counts, Radiometry


class State(str, Enum):
    """What a frame is worth, and how a camera does.

    live: a scene. ffc: the shutter is closed (flat-field correction), there is no scene. settling: offsets still
    drift after it. stale: nothing came in time, or the result is older than it may be. frozen: the camera repeats
    one frame for longer than a shutter takes. offline: there is no camera, no frame and no result. degraded: frames
    come, but many are damaged or lost.
    """

    LIVE = "live"
    FFC = "ffc"
    SETTLING = "settling"
    STALE = "stale"
    FROZEN = "frozen"
    OFFLINE = "offline"
    DEGRADED = "degraded"

    @property
    def blind(self) -> bool:
        """Whether a frame shows no scene: it has no temperatures, and the class map before it still holds."""
        return self in (State.FFC, State.FROZEN)

    @property
    def current(self) -> bool:
        """Whether a frame shows the scene as it is now: rules are judged and regions are followed."""
        return self in (State.LIVE, State.DEGRADED)


@dataclass(frozen=True, eq=False)  # arrays have no truth value: frames are compared by identity
class Frame:
    """One frame as the sensor gave it.

    Attributes:
        counts: raw counts, shape (H, W), uint16 or uint8; never a coloured picture. Nobody writes into it.
        seq: number of the frame at its source, from 0; a gap is a frame that was lost.
        t_ns: monotonic time of capture, nanoseconds.
        state: what the frame is worth.
        radiometry: how counts become degC; None where the source gives bare counts.
        range_c: (lowest, highest) degC the camera measures before it saturates; None where that is not known, and of a
            camera that measures none.
    """

    counts: Counts
    seq: int
    t_ns: int
    state: State = State.LIVE
    radiometry: Radiometry | None = None
    range_c: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClassStatistics:
    """What a frame, or a part of one, shows of one class.

    Attributes:
        pixels: area in pixels of the native frame.
        area: share of the frame or part, 0..1.
        min_c, mean_c, max_c: temperatures in degC; None where the source gives bare counts, the class is absent, or
            what the camera shows is no scene (its shutter is closed).
        hotspot: (x, y) of the hottest pixel of the native frame; None as above.
        p95_c: the temperature in degC that 95 % of the pixels stay at or below; None as above.
        centroid: (x, y), mean position of its pixels in the native frame; None where the class is absent.
    """

    pixels: int
    area: float
    min_c: float | None = None
    mean_c: float | None = None
    max_c: float | None = None
    hotspot: tuple[int, int] | None = None
    p95_c: float | None = None
    centroid: tuple[float, float] | None = None


@dataclass(frozen=True)
class Region:
    """One connected region of a class.

    Attributes:
        name: the class.
        number: from 1, the same from frame to frame while the region is followed; 0 where it is not.
        box: (x, y, width, height) around it in native pixels.
        statistics: its area, centroid and temperatures.
    """

    name: str
    number: int
    box: tuple[int, int, int, int]
    statistics: ClassStatistics


@dataclass(frozen=True)
class Alarm:
    """A rule that holds.

    Attributes:
        rule: the rule as its author wrote it.
        name: short name, unique among the rules.
        since_ns: monotonic time since which it is raised, nanoseconds.
        value: what was measured last, in ``unit``.
        unit: ``C``, ``%``, ``px`` or ``count``.
        hotspot: (x, y) of the pixel it is about; None where it is about no pixel.
        region: number of the region it is about, 0 where it is about none.
    """

    rule: str
    name: str
    since_ns: int
    value: float
    unit: str
    hotspot: tuple[int, int] | None = None
    region: int = 0


@dataclass(frozen=True, eq=False)
class Result:
    """One segmented frame.

    Attributes:
        frame: what was segmented.
        picture: the 8-bit picture the model saw, at native size (H, W).
        class_map: class index of every native pixel, shape (H, W), uint8.
        classes: statistics by class name, in class order, absent classes included.
        done_ns: time at which the result was ready, nanoseconds on the clock of its frame: the monotonic one, of a
            recording that of the recording.
        dropped: frames the stream has skipped so far because newer ones had come.
        camera: name of the camera, as people read it; without credentials.
        held: the class map is an earlier frame's: the shutter was closed, or nothing had moved.
        regions: connected regions, largest first within their class; background left out.
        areas: statistics by class name within each of the user's areas of interest, by the area's name.
        alarms: the alarms that are raised at this frame.
    """

    frame: Frame
    picture: NDArray[np.uint8]
    class_map: NDArray[np.uint8]
    classes: Mapping[str, ClassStatistics]
    done_ns: int
    dropped: int = 0
    camera: str = ""
    held: bool = False
    regions: tuple[Region, ...] = ()
    areas: Mapping[str, Mapping[str, ClassStatistics]] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()

    @property
    def age_ms(self) -> float:
        """Milliseconds from capture to result."""
        return (self.done_ns - self.frame.t_ns) / 1e6
