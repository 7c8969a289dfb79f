"""What is known of a camera model, and what its frames on the wire become: the sensor's pixels, their state and how
they turn into degC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeunip.devices import lepton
from edgeunip.errors import SourceError
from edgeunip.frame import Frame, State
from edgeunip.thermal import Counts, Linear, Radiometry

Shutter = Literal["freezes", "silent", "none", "unknown"]
Size = tuple[int, int]

# No scene is colder, a clear night sky included: counts that say so are no temperatures.
_COLDEST_C = -100.0
_KELVIN, _KELVIN_WITHIN = 273.15, 1.0


@dataclass(frozen=True)
class Profile:
    """A camera model.

    Attributes:
        name: as the user writes it.
        about: what it stands for, one line for people.
        radiometry: counts to degC; None where the camera gives bare counts.
        usb: ``vendor:product`` ids it announces, lower case.
        cards: what the name of its device node may begin with, where it has no USB id.
        formats: the kernel's four-character codes it is read in, the first is preferred; empty: whatever it offers.
        sizes: (rows, columns) of its frames on the wire, the first is preferred; empty: any.
        packed: the camera announces YUYV, but each pair of bytes is one little-endian 16-bit count.
        swapped: the camera announces 16-bit counts, but with the bytes of each exchanged.
        split: (rows, columns) of a frame on the wire whose lower half holds the counts; the upper is a picture.
        telemetry: frames on the wire with rows that are no pixels: (rows, columns) to the number of such rows, at the
            bottom unless the layout's own marks stand at the top.
        layout: how telemetry rows are read: ``lepton``, or empty where they are just cut off.
        rate_hz: frames a second, None where it differs from camera to camera.
        shutter: what comes while the flat-field correction closes the shutter: the last frame again (freezes),
            nothing (silent); none: it has no shutter.
        range_c: (lowest, highest) degC before it saturates, in its usual range; None where unknown.
        notes: what to know before trusting it.
    """

    name: str
    about: str
    radiometry: Linear | None = None
    usb: tuple[str, ...] = ()
    cards: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()
    packed: bool = False
    swapped: bool = False
    split: Size | None = None
    telemetry: Mapping[Size, int] = field(default_factory=dict)
    layout: Literal["", "lepton"] = ""
    rate_hz: float | None = None
    shutter: Shutter = "unknown"
    range_c: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


def frame(
    profile: Profile | None,
    counts: Counts,
    *,
    seq: int,
    t_ns: int,
    where: object,
    radiometry: Radiometry | None = None,
    state: State = State.LIVE,
) -> Frame:
    """Return the frame that the counts on the wire hold.

    Rows of telemetry are cut off and read. They decide where they know more: whether the shutter is closed, and
    whether the counts are temperatures at all. Without a profile nothing is cut but telemetry that proves itself.

    Args:
        profile: the camera model; None leaves everything as the source gives it.
        counts: the frame on the wire, shape (H, W).
        seq: number of the frame at its source.
        t_ns: monotonic time of capture, nanoseconds.
        where: the source, for the message.
        radiometry: what the source itself says of its counts; a profile overrides it.
        state: what the source says of the frame; telemetry overrides it.

    Raises:
        SourceError: the frame is not one this camera model gives.
    """
    if profile is not None and profile.radiometry is not None and counts.dtype != np.uint16:
        raise SourceError(
            f"Profile {profile.name} needs 16-bit counts, and the source gives 8-bit ones",
            where=where,
            why="the picture went through a gain control or a lossy codec",
            remedy="Use the camera's 16-bit format or a lossless recording, or profile raw for bare counts.",
            reason="format",
        )
    if profile is not None:
        radiometry = profile.radiometry
    counts, told = _pixels(profile, counts, where)
    if told is not None:
        state = told.state
        if profile is None or (profile.radiometry is not None and _is_kelvin(profile.radiometry)):
            radiometry = told.radiometry
    if isinstance(radiometry, Linear) and not _are_temperatures(counts, radiometry):
        radiometry = None
    return Frame(counts, seq, t_ns, state, radiometry, None if profile is None else profile.range_c)


def unpack(yuyv: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the 16-bit counts (H, W) in the bytes (H, 2 W) of a YUYV frame."""
    return np.ascontiguousarray(yuyv).view("<u2").astype(np.uint16, copy=False)


def _pixels(profile: Profile | None, counts: Counts, where: object) -> tuple[Counts, lepton.Telemetry | None]:
    if profile is None:
        return lepton.cut(counts) or (counts, None)
    if profile.swapped and counts.dtype == np.uint16:
        counts = np.asarray(counts.byteswap(), np.uint16)
    if rows := profile.telemetry.get(counts.shape, 0):
        if profile.layout == "lepton" and (found := lepton.cut(counts)):
            return found
        return counts[:-rows], None
    return (_half(profile, counts, where) if profile.split else counts), None


def _half(profile: Profile, counts: Counts, where: object) -> Counts:
    rows, columns = profile.split or (0, 0)
    if counts.shape == (rows, columns):
        return counts[rows // 2 :]
    if counts.shape == (rows // 2, columns):
        return counts
    height, width = counts.shape
    raise SourceError(
        f"Profile {profile.name} expects frames of {columns}x{rows} or {columns}x{rows // 2}, not {width}x{height}",
        where=where,
        remedy="Choose the camera's radiometric mode, or another profile.",
        reason="format",
    )


def _is_kelvin(radiometry: Linear) -> bool:
    """Tell a scale in kelvins, which a camera may have switched off, from one that a user calibrated on counts."""
    return abs(radiometry.offset + _KELVIN) < _KELVIN_WITHIN


def _are_temperatures(counts: Counts, radiometry: Linear) -> bool:
    """Tell whether any scene could give these counts: a camera whose radiometric mode is off gives far lower ones."""
    return bool(counts.max() > radiometry.counts(_COLDEST_C))
