"""V4L2 cameras (``/dev/video*``) read through PyAV, in the format that keeps most of the counts."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import struct
from collections.abc import Iterator

import av
from av.container import InputContainer

from edgeunip.devices.live import LiveCamera
from edgeunip.devices.profiles import Profile
from edgeunip.errors import SourceError

# The kernel's formats in the order they are wanted, and FFmpeg's options for them.
_FORMATS = {
    "Y16 ": {"pixel_format": "gray16le"},
    "GREY": {"pixel_format": "gray"},
    "YUYV": {"pixel_format": "yuyv422"},
    "UYVY": {"pixel_format": "uyvy422"},
    "NV12": {"pixel_format": "nv12"},
    "YU12": {"pixel_format": "yuv420p"},
    "MJPG": {"input_format": "mjpeg"},
}
_QUERYCAP = 0x80685600  # _IOR('V', 0, struct v4l2_capability)
_ENUM_FMT = 0xC0405602  # _IOWR('V', 2, struct v4l2_fmtdesc)
_CAPABILITY = struct.Struct("16s 32s 32s 3I 12x")
_FORMAT = struct.Struct("3I 32s 4s 16x")
_CAPTURE, _DEVICE_CAPS = 0x1, 0x80000000

_FAILURES = {
    errno.ENOENT: ("The camera is not there", "List cameras with: ls /dev/video* /dev/v4l/by-id/"),
    errno.ENODEV: ("The camera is gone", "Plug it in again; /dev/v4l/by-id/ names stay the same."),
    errno.ENXIO: ("The camera is gone", "Plug it in again; /dev/v4l/by-id/ names stay the same."),
    errno.EACCES: ("You may not open the camera", "Join its group: sudo usermod -aG video $USER, then log in again."),
    errno.EPERM: ("You may not open the camera", "In a container, pass the device in: --device /dev/videoN."),
    errno.EBUSY: ("Another program uses the camera", "Find it with: fuser -v /dev/videoN"),
    errno.ENOSPC: (
        "The USB bus has no bandwidth left for this camera",
        "Plug it into another port, away from other cameras, or lower its resolution.",
    ),
    errno.ENOTTY: ("This is not a video device", "List cameras with: ls /dev/video* /dev/v4l/by-id/"),
}


def open_v4l2(path: str, *, profile: Profile | None = None) -> LiveCamera:
    """Return the camera at the device node ``path``."""

    def connect() -> InputContainer:
        return av.open(path, format="v4l2", options=_options(path, profile))

    def explain(error: av.FFmpegError) -> SourceError:
        return failure(error, path)

    return LiveCamera(path, connect, explain=explain, profile=profile, stamped=True)


def failure(error: OSError | av.FFmpegError, path: str) -> SourceError:
    """Tell what the kernel's error number means for a camera, and what to do."""
    what, remedy = _FAILURES.get(error.errno or 0, ("The camera failed", "Plug it in again, and see: dmesg"))
    return SourceError(what, where=path, why=error.strerror, remedy=remedy)


def choose_format(offered: list[str], path: str, *, profile: Profile | None = None) -> str:
    """Return the four-character code to ask for out of those a camera offers.

    Raises:
        SourceError: none is one that is read, or the profile needs another.
    """
    wanted = ["YUYV"] if profile is not None and profile.packed else list(_FORMATS)
    for code in wanted:
        if code in offered:
            return code
    raise SourceError(
        f"The camera offers none of the formats {', '.join(code.strip() for code in wanted)}",
        where=path,
        why=f"it offers {', '.join(code.strip() for code in offered) or 'none'}",
        remedy="See: v4l2-ctl --list-formats-ext -d " + path,
    )


def _options(path: str, profile: Profile | None) -> dict[str, str]:
    # Not looking for the frame rate saves some 20 frames at the start.
    options = {"fpsprobesize": "0", **_FORMATS[choose_format(_offered(path), path, profile=profile)]}
    if profile is not None and profile.split is not None:
        rows, columns = profile.split
        options["video_size"] = f"{columns}x{rows}"
    return options


def _offered(path: str) -> list[str]:
    """Return the four-character codes a capture device offers."""
    try:
        node = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise failure(error, path) from error
    try:
        _check_capture(node, path)
        return list(_enumerate(node))
    except OSError as error:
        raise failure(error, path) from error
    finally:
        os.close(node)


def _check_capture(node: int, path: str) -> None:
    answer = fcntl.ioctl(node, _QUERYCAP, bytes(_CAPABILITY.size))
    _, card, _, _, driver_can, node_can = _CAPABILITY.unpack(answer)
    if not (node_can if driver_can & _DEVICE_CAPS else driver_can) & _CAPTURE:
        raise SourceError(
            "This device node captures no video",
            where=path,
            why=card.rstrip(b"\0").decode(errors="replace"),
            remedy="A camera often has a second node for metadata; try its other /dev/video node.",
        )


def _enumerate(node: int) -> Iterator[str]:
    for index in itertools.count():
        try:
            answer = fcntl.ioctl(node, _ENUM_FMT, _FORMAT.pack(index, 1, 0, b"", b""))
        except OSError as error:
            if error.errno == errno.EINVAL:
                return
            raise
        yield _code(_FORMAT.unpack(answer)[4])


def _code(raw: bytes) -> str:
    """Return a format's four characters. Bit 31 marks big-endian variants, which FFmpeg cannot read."""
    text = bytes(byte & 0x7F for byte in raw).decode("ascii")
    return f"{text.strip()}-BE" if raw[3] & 0x80 else text
