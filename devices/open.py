"""From what the user writes as the source to the camera that reads it."""

from __future__ import annotations

import stat
from pathlib import Path

from edgeunip.devices import profiles
from edgeunip.devices.address import redact
from edgeunip.devices.folder import FolderCamera, is_image
from edgeunip.devices.profiles import Profile
from edgeunip.errors import MissingDependencyError, SourceError
from edgeunip.protocols import Camera

_GRAMMAR = (
    "A source is /dev/videoN, rtsp://HOST/PATH, a video file, an image, a folder of images, or "
    "synthetic://lepton|boson|tc001."
)


def open_camera(source: str, *, profile: str | None = None, seed: int = 0) -> Camera:
    """Return the camera that reads ``source``. Nothing is opened before its ``with`` block.

    ================================================  =======================================================
    source                                            camera
    ================================================  =======================================================
    ``/dev/video0``, ``/dev/v4l/by-id/...``           V4L2, live; Y16 before 8-bit formats
    ``rtsp://...``, ``rtsps://...``                   RTSP over TCP, live; 8-bit luma
    a video file                                      every frame; gray up to 16 bits as it is, else the luma
    a folder, an image                                every image, FLIR radiometric JPEGs with temperatures
    ``synthetic://lepton?seed=1&night=1&seconds=9``   procedural scenes (lepton, boson, tc001), live
    ================================================  =======================================================

    Args:
        source: one of the above.
        profile: the camera model, a name in :data:`edgeunip.devices.profiles.PROFILES`: how counts become degC, and
            where they stand in the frame. Overrides what the source says. None takes the source at its word.
        seed: of a synthetic camera whose address names none.

    Raises:
        UsageError: the profile or an option of a synthetic camera is unknown.
        SourceError: there is no such file, or the source is none of the above.
    """
    chosen = None if profile is None else profiles.find(profile)
    try:
        return _by_address(source, chosen, seed) if "://" in source else _by_path(source, chosen)
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise MissingDependencyError("The package av is not installed", remedy="Run: pip install av") from error


def _by_address(source: str, profile: Profile | None, seed: int) -> Camera:
    scheme = source.partition("://")[0].lower()
    if scheme == "synthetic":
        from edgeunip.devices.synthetic import open_synthetic

        return open_synthetic(source, profile=profile, seed=seed)
    if scheme in ("rtsp", "rtsps"):
        from edgeunip.devices.rtsp import open_rtsp

        return open_rtsp(source, profile=profile)
    raise SourceError("Unknown kind of source", where=redact(source), remedy=_GRAMMAR)


def _by_path(source: str, profile: Profile | None) -> Camera:
    path = Path(source)
    try:
        mode, why = path.stat().st_mode, "it is neither a file, a folder nor a camera"
    except (OSError, ValueError) as error:
        mode, why = 0, getattr(error, "strerror", str(error))
    # A camera may be plugged in later.
    if stat.S_ISCHR(mode) or (mode == 0 and path.is_relative_to("/dev")):
        from edgeunip.devices.v4l2 import open_v4l2

        return open_v4l2(source, profile=profile)
    if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and is_image(path)):
        return FolderCamera(path, profile=profile)
    if stat.S_ISREG(mode):
        from edgeunip.devices.video import VideoCamera

        return VideoCamera(path, profile=profile)
    raise SourceError("The source cannot be opened", where=redact(source), why=why, remedy=_GRAMMAR)
