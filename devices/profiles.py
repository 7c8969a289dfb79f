"""What is known of camera models: where the counts stand in a frame and how they become degC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import SourceError, UsageError, near
from edgeunip.thermal import Counts, Linear, Radiometry

_KELVIN = 273.15


@dataclass(frozen=True)
class Profile:
    """A camera model.

    Attributes:
        name: as the user writes it.
        about: what it stands for, one line for people.
        radiometry: counts to degC; None where the camera gives bare counts.
        packed: the camera announces YUYV, but each pair of bytes is one little-endian 16-bit count.
        split: (rows, columns) of a frame on the wire whose lower half holds the counts; the upper is a picture.
        telemetry: (rows, columns) of a frame on the wire whose last two rows are no pixels.
    """

    name: str
    about: str
    radiometry: Linear | None = None
    packed: bool = False
    split: tuple[int, int] | None = None
    telemetry: tuple[int, int] | None = None


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "lepton",
            "FLIR Lepton on a PureThermal board with TLinear on: centikelvin, 160x120",
            Linear(0.01, -_KELVIN),
            telemetry=(122, 160),
        ),
        Profile(
            "tc001",
            "TOPDON TC001, InfiRay P2 Pro and clones: 1/64 K, 256x192 below a picture of the same size",
            Linear(1 / 64, -_KELVIN),
            packed=True,
            split=(384, 256),
        ),
        # Its telemetry rows are not documented well enough to cut them off.
        Profile("tc002c", "TOPDON TC002C Duo in radiometric mode: 1/16 K", Linear(1 / 16, -_KELVIN), packed=True),
        Profile("boson", "FLIR Boson, Y16 before its gain control: counts without a temperature"),
        Profile("raw", "any camera: counts as they come, without a temperature"),
    )
}


def find(name: str) -> Profile:
    """Return the profile called ``name``.

    Raises:
        UsageError: there is none.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError("Unknown camera profile", where=name, remedy=near(name, PROFILES)) from None


def unpack(yuyv: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return the 16-bit counts (H, W) in the bytes (H, 2 W) of a YUYV frame."""
    return np.ascontiguousarray(yuyv).view("<u2").astype(np.uint16, copy=False)


def apply(
    profile: Profile | None, counts: Counts, radiometry: Radiometry | None, where: object
) -> tuple[Counts, Radiometry | None]:
    """Cut the sensor's pixels out of a frame on the wire, and tell how they become degC.

    Args:
        profile: the camera model; None leaves everything as the source gives it.
        counts: the frame on the wire, shape (H, W).
        radiometry: what the source itself says; a profile overrides it.
        where: the source, for the message.

    Raises:
        SourceError: the frame is not one this camera model gives.
    """
    if profile is None:
        return counts, radiometry
    if profile.radiometry is not None and counts.dtype != np.uint16:
        raise SourceError(
            f"Profile {profile.name} needs 16-bit counts, and the source gives 8-bit ones",
            where=where,
            why="the picture went through a gain control or a lossy codec",
            remedy="Use the camera's 16-bit format or a lossless recording, or profile raw for bare counts.",
        )
    return _pixels(profile, counts, where), profile.radiometry


def _pixels(profile: Profile, counts: Any, where: object) -> Counts:
    if counts.shape == profile.telemetry:
        return np.asarray(counts[:-2])
    if profile.split is None:
        return np.asarray(counts)
    rows, columns = profile.split
    if counts.shape == profile.split:
        return np.asarray(counts[rows // 2 :])
    if counts.shape == (rows // 2, columns):
        return np.asarray(counts)
    height, width = counts.shape
    raise SourceError(
        f"Profile {profile.name} expects frames of {columns}x{rows} or {columns}x{rows // 2}, not {width}x{height}",
        where=where,
        remedy="Choose the camera's radiometric mode, or another profile.",
    )
