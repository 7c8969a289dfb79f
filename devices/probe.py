"""A camera nobody knows yet: what its frames tell of it, and the profile that follows from that."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from edgeunip.devices import lepton
from edgeunip.devices import v4l2 as nodes
from edgeunip.devices.corrected import bare
from edgeunip.devices.open import open_camera
from edgeunip.devices.profile import Profile, Size
from edgeunip.devices.recognise import profile_of, usb_id
from edgeunip.devices.sanity import is_swapped
from edgeunip.devices.v4l2 import formats
from edgeunip.errors import DataError, UsageError
from edgeunip.frame import Frame
from edgeunip.protocols import Camera
from edgeunip.thermal import Counts, Linear

_KELVIN = 273.15
# Temperatures between which a room's scene lies, by which a scale proves itself.
_ROOM_C = (-30.0, 120.0)
# Kelvins a count of the cameras that are known.
SCALES = {"1/100 K": 0.01, "1/64 K": 1 / 64, "1/16 K": 1 / 16, "1/10 K": 0.1}
# YUYV bytes taken as counts: a gray picture's colour bytes stand at 128 and become the high byte.
_GRAY, _NEAR_GRAY = 128, 8


@dataclass(frozen=True)
class Findings:
    """What frames tell of their camera.

    Attributes:
        width, height: of a frame on the wire, pixels.
        dtype: uint8 or uint16.
        frames: how many were looked at.
        lowest, highest: counts.
        bits: that the counts use, whatever their type.
        swapped: the bytes of each count are exchanged.
        split: the upper half is a picture, the lower one counts.
        telemetry: what a Lepton's telemetry rows say in the last frame; None where there are none.
        telemetry_rises: whether its frame counter rises from frame to frame.
        rate_hz: frames a second as they came, None where the source has no time of its own.
        noise: standard deviation of a pixel from frame to frame, counts; 0 of a single frame.
        repeats: frames that are the same as the one before.
        lost: frames missing in the camera's own numbering.
        scales: temperature scales under which these counts would be a scene of -30 to 120 degC.
    """

    width: int
    height: int
    dtype: str
    frames: int
    lowest: int
    highest: int
    bits: int
    swapped: bool
    split: bool
    telemetry: lepton.Telemetry | None
    telemetry_rises: bool
    rate_hz: float | None
    noise: float
    repeats: int
    lost: int
    scales: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Wire:
    """A source as it comes over the wire: what was found, its USB id and format, and the profile it has already."""

    findings: Findings
    usb: str = ""
    code: str = ""
    known: str = ""


def look(source: str, *, seconds: float, frames: int = 256) -> Wire:
    """Open a source without any profile and look at its frames.

    Raises:
        SourceError: it cannot be opened, or failed.
        DataError: it gave no frame.
    """
    if not source.startswith("/dev/"):
        camera = bare(open_camera(source, profile="raw"))
        return Wire(_study(camera, seconds=seconds, frames=frames))
    node = nodes.look(source)
    codes = [offer.code for offer in node.offers]
    packed = "YUYV" in codes and not any(code.startswith("Y1") for code in codes)
    profile = profile_of(node)
    wire = Profile("wire", "as it comes", packed=packed, sizes=profile.sizes if profile else _stacked(node))
    findings = _study(nodes.open_v4l2(source, profile=wire), seconds=seconds, frames=frames)
    code = formats.choose_format(codes, source, profile=wire)
    known = f"This is a known camera: --camera {profile.name} ({profile.about})" if profile else ""
    return Wire(findings, usb_id(node), code, known)


def _stacked(node: nodes.Node) -> tuple[Size, ...]:
    """Return the sizes that are taller than wide: two pictures, one above the other."""
    sizes = [(size.height, size.width) for offer in node.offers for size in offer.sizes]
    return tuple(size for size in sizes if size[0] > size[1])


def _study(camera: Camera, *, seconds: float, frames: int) -> Findings:
    with camera:
        return study(take(camera, frames=frames, seconds=seconds), live=camera.live)


def take(camera: Camera, *, frames: int, seconds: float) -> list[Frame]:
    """Return the first frames of an open camera: so many, or those of so many seconds.

    Raises:
        SourceError: the camera failed.
        DataError: it gave none.
    """
    taken: list[Frame] = []
    end = time.monotonic() + seconds
    for frame in camera:
        taken.append(frame)
        if len(taken) >= frames or time.monotonic() > end:
            break
    if not taken:
        raise DataError("The source gave no frame", where=camera.name)
    return taken


def study(frames: Sequence[Frame], *, live: bool) -> Findings:
    """Find out what frames on the wire tell.

    Args:
        frames: at least one, taken without a profile (or with one that unpacks only), all of one size and type.
        live: their times are the camera's, not those of reading a file.
    """
    counts = [frame.counts for frame in frames]
    told = [lepton.cut(one) for one in counts]
    last = told[-1][1] if told[-1] is not None else None
    swapped, split = is_swapped(counts[-1]), _is_split(counts[-1])
    pixels = _pixels(counts[-1], swapped=swapped, split=split)
    low, high = int(pixels.min()), int(pixels.max())
    height, width = counts[-1].shape
    return Findings(
        width=width,
        height=height,
        dtype=str(counts[-1].dtype),
        frames=len(counts),
        lowest=low,
        highest=high,
        bits=high.bit_length(),
        swapped=swapped,
        split=split,
        telemetry=last,
        telemetry_rises=_rises([one[1].counter for one in told if one is not None], len(told)),
        rate_hz=_rate_hz(frames) if live else None,
        noise=_noise([_pixels(one, swapped=swapped, split=split) for one in counts]),
        repeats=sum(np.array_equal(a, b) for a, b in pairwise(counts)),
        lost=frames[-1].seq - frames[0].seq + 1 - len(frames) if live else 0,
        scales=_scales(pixels),
    )


def suggest(
    findings: Findings, name: str, *, usb: str = "", code: str = "", radiometry: Linear | None = None
) -> Profile:
    """Return the profile that findings lead to. It claims degC for what proves itself or was calibrated, only.

    Args:
        findings: of the camera.
        name: of the profile.
        usb: the camera's ``vendor:product``; empty where it has none.
        code: four-character code of the format the frames came in; empty where unknown.
        radiometry: from :func:`calibrate`.
    """
    size = findings.height, findings.width
    told = findings.telemetry
    if radiometry is None and told is not None:
        radiometry = told.radiometry
    return Profile(
        name,
        f"{findings.width}x{findings.height}, {findings.bits} bits, as probed",
        radiometry,
        usb=(usb,) if usb else (),
        formats=(code,) if code else (),
        sizes=(size,),
        packed=code == "YUYV" and findings.dtype == "uint16",
        swapped=findings.swapped,
        split=size if findings.split else None,
        telemetry={size: lepton.ROWS[size]} if told is not None else {},
        layout="lepton" if told is not None else "",
        rate_hz=None if findings.rate_hz is None else round(findings.rate_hz, 1),
    )


def calibrate(points: Sequence[str]) -> Linear:
    """Return the scale and offset through two points, ``COUNTS=DEGC`` each.

    Raises:
        UsageError: they are not two such points, or hotter does not give more counts.
    """
    try:
        pairs = [(float(counts), float(celsius)) for counts, celsius in (point.split("=") for point in points)]
        (cold, cold_c), (hot, hot_c) = sorted(pairs)
        scale = (hot_c - cold_c) / (hot - cold)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            "Calibration takes two different points",
            where=" ".join(points),
            remedy="Measure two surfaces: --point COUNTS=DEGC --point COUNTS=DEGC",
        ) from error
    if scale <= 0:
        raise UsageError("In a calibration, hotter must give more counts", where=" ".join(points))
    return Linear(scale, cold_c - scale * cold)


def _pixels(counts: Counts, *, swapped: bool, split: bool) -> Counts:
    """Return what of a frame on the wire is the sensor's."""
    if (found := lepton.cut(counts)) is not None:
        return found[0]
    if swapped:
        counts = np.asarray(counts.byteswap(), np.uint16)
    return counts[counts.shape[0] // 2 :] if split else counts


def _is_split(counts: Counts) -> bool:
    """Tell whether 16-bit counts are, in their upper half, the bytes of a gray YUYV picture, and below not."""
    if counts.dtype != np.uint16 or counts.shape[0] % 2:
        return False
    high = (counts >> 8).astype(np.int32)
    gray = np.abs(high - _GRAY) <= _NEAR_GRAY
    half = counts.shape[0] // 2
    return bool(gray[:half].mean() > 0.95 and gray[half:].mean() < 0.5)


def _rises(counters: list[int], frames: int) -> bool:
    return frames > 1 and len(counters) == frames and all(a < b for a, b in pairwise(counters))


def _rate_hz(frames: Sequence[Frame]) -> float | None:
    span_s = (frames[-1].t_ns - frames[0].t_ns) / 1e9
    return (frames[-1].seq - frames[0].seq) / span_s if span_s > 0 else None


def _noise(pixels: list[Counts]) -> float:
    """Return the usual standard deviation of a pixel, from the differences of neighbouring frames.

    By their median, which leaves out what moves; a sensor so quiet that it is 0 is measured by their mean. The median
    over the frames leaves out moments of great unrest.
    """
    steps = [np.abs(b.astype(np.float32) - a) for a, b in pairwise(pixels) if (a != b).any()]
    sigmas = [1.4826 * float(np.median(step)) or math.sqrt(math.pi / 2) * float(step.mean()) for step in steps]
    return round(float(np.median(sigmas)) / math.sqrt(2), 2) if sigmas else 0.0


def _scales(pixels: Counts) -> tuple[str, ...]:
    if pixels.dtype != np.uint16:
        return ()
    low, high = np.percentile(pixels, (1, 99))
    inside = [
        name
        for name, scale in SCALES.items()
        if _ROOM_C[0] <= scale * low - _KELVIN and scale * high - _KELVIN <= _ROOM_C[1]
    ]
    return tuple(inside)
