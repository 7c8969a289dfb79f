"""From what the user writes as the source to the camera that reads it."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeunip.address import redact
from edgeunip.devices import dump, profiles
from edgeunip.devices.corrected import corrected
from edgeunip.devices.folder import FolderCamera, is_image
from edgeunip.devices.guard import Guarded, Kind
from edgeunip.devices.opening import Source
from edgeunip.devices.profiles import Profile
from edgeunip.errors import MissingDependencyError, SourceError
from edgeunip.health import CameraStatus
from edgeunip.protocols import Camera

_GRAMMAR = (
    "A source is /dev/videoN, rtsp://HOST/PATH, unix:SOCKET, a video or .y16 file, an image, a folder of images, or "
    "synthetic://lepton|boson|tc001."
)
_RTSP, _UNIX = ("rtsp://", "rtsps://"), "unix:"


def open_guarded(
    source: str,
    *,
    profile: str | None = None,
    on_status: Callable[[CameraStatus], None] = lambda status: None,
) -> Camera:
    """Return the camera that reads ``source``, kept alive for weeks if it is a live device.

    A live device (V4L2, RTSP, ``unix:``) comes :class:`~edgeunip.devices.guard.Guarded`: it is opened anew after every
    fault, and told through ``on_status`` in the thread that iterates. Files, folders and synthetic cameras come as
    :func:`open_camera` gives them.

    Raises:
        UsageError, SourceError: as :func:`open_camera`.
    """
    kind = _kind(source)
    if kind is None:
        return open_camera(source, profile=profile)
    chosen = None if profile is None else profiles.find(profile)
    opener = _opener(source, chosen)
    return Guarded(lambda: corrected(opener(), source), name=redact(source), kind=kind, on_status=on_status)


def open_camera(source: str, *, profile: str | None = None) -> Camera:
    """Return the camera that reads ``source``. Nothing is opened before its ``with`` block.

    ================================================  =======================================================
    source                                            camera
    ================================================  =======================================================
    ``/dev/video0``, ``/dev/v4l/by-id/...``           V4L2, live; Y16 before 8-bit formats
    ``rtsp://...``, ``rtsps://...``                   RTSP over TCP, live; 8-bit luma
    ``unix:/run/cam.sock``                            frames of another process, live: see devices/wire.py
    ``clip.y16``                                      headless 16-bit frames, of the profile's size
    a video file                                      every frame; gray up to 16 bits as it is, else the luma
    a folder, an image                                every image, FLIR radiometric JPEGs with temperatures
    ``synthetic://lepton?seed=1&night=1&seconds=9``   procedural scenes (lepton, boson, tc001), live
    ================================================  =======================================================

    Args:
        source: one of the above.
        profile: the camera model, a name as ``edgeunip cameras profiles`` lists them: how counts become degC, and
            where they stand in the frame. Overrides what the source says. None takes the source at its word, and a
            V4L2 camera for the model that its USB id and frame sizes say.

    Raises:
        UsageError: the profile or an option of a synthetic camera is unknown.
        SourceError: there is no such file, or the source is none of the above.
    """
    chosen = None if profile is None else profiles.find(profile)
    if _kind(source) is not None:
        return corrected(_opener(source, chosen)(), source)
    return corrected(_by_address(source, chosen) if "://" in source else _by_path(source, chosen), source)


def _kind(source: str) -> Kind | None:
    """Return the kind of live device that ``source`` names; None for anything else."""
    if source.lower().startswith(_RTSP):
        return Kind()
    if source.startswith(_UNIX):
        return Kind(goes_on=True)
    if "://" not in source and _is_device(source):
        return Kind(silent_shutter=True)
    return None


def _is_device(source: str) -> bool:
    path = Path(source)
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except (OSError, ValueError):
        return path.is_relative_to("/dev")  # It may be plugged in later.


def _opener(source: str, profile: Profile | None) -> Callable[[], Source]:
    """Return what opens the live device ``source``, as often as it takes."""
    if source.lower().startswith(_RTSP):
        with _needs_av():
            from edgeunip.devices.rtsp import open_rtsp
        return lambda: open_rtsp(source, profile=profile)
    if source.startswith(_UNIX):
        from edgeunip.devices.wire import WireCamera

        return lambda: WireCamera(source[len(_UNIX) :], profile=profile)
    from edgeunip.devices.recognise import opener

    return opener(source, profile=profile)


@contextlib.contextmanager
def _needs_av() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise MissingDependencyError("The package av is not installed", remedy="Run: pip install av") from error


def _by_address(source: str, profile: Profile | None) -> Camera:
    scheme = source.partition("://")[0].lower()
    if scheme == "synthetic":
        from edgeunip.devices.synthetic import open_synthetic

        return open_synthetic(source, profile=profile)
    raise SourceError("Unknown kind of source", where=redact(source), remedy=_GRAMMAR)


def _by_path(source: str, profile: Profile | None) -> Camera:
    path = Path(source)
    try:
        mode, why = path.stat().st_mode, "it is neither a file, a folder nor a camera"
    except (OSError, ValueError) as error:
        mode, why = 0, getattr(error, "strerror", str(error))
    if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and is_image(path)):
        return FolderCamera(path, profile=profile)
    if stat.S_ISREG(mode) and path.suffix.lower() in dump.SUFFIXES:
        return dump.DumpCamera(path, profile=profile)
    if stat.S_ISREG(mode):
        with _needs_av():
            from edgeunip.devices.video import VideoCamera
        return VideoCamera(path, profile=profile)
    raise SourceError("The source cannot be opened", where=redact(source), why=why, remedy=_GRAMMAR)
