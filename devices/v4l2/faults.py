"""What the kernel's error numbers mean for a camera, and what to do about them."""

from __future__ import annotations

import errno
import os

from edgeunip.errors import SourceError

_LIST = "List cameras with: edgeunip cameras"
_REPLUG = "Plug it in again; /dev/v4l/by-id/ names stay the same."

# reason, what, remedy
_FAILURES = {
    errno.ENOENT: ("missing", "The camera is not there", _LIST),
    errno.ENODEV: ("missing", "The camera is gone", _REPLUG),
    errno.ENXIO: ("missing", "The camera is gone", _REPLUG),
    errno.EACCES: (
        "permission",
        "You may not open the camera",
        "Join its group: sudo usermod -aG video $USER, then log in again.",
    ),
    errno.EPERM: (
        "permission",
        "You may not open the camera",
        "In a container, pass the device in: --device /dev/videoN.",
    ),
    errno.EBUSY: ("busy", "Another program uses the camera", "Find it with: fuser -v /dev/videoN"),
    errno.ENOSPC: (
        "bandwidth",
        "The USB bus has no bandwidth left for this camera",
        "Plug it into another port, away from other cameras, or lower its resolution.",
    ),
    errno.ENOTTY: ("error", "This is not a video device", _LIST),
}
_UNKNOWN = ("error", "The camera failed", "Plug it in again, and see: dmesg")


def failure(error: OSError, path: str) -> SourceError:
    """Tell in one line what an error of the kernel means for the camera at ``path``."""
    reason, what, remedy = _FAILURES.get(error.errno or 0, _UNKNOWN)
    why = error.strerror or str(error)
    return SourceError(what, where=path, why=why, remedy=remedy, reason=reason)


def gone(path: str) -> SourceError:
    """Tell that the node at ``path`` has vanished, whatever error number the driver chose to say so."""
    return failure(OSError(errno.ENODEV, os.strerror(errno.ENODEV)), path)
