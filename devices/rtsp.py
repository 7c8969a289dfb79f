"""RTSP cameras. Credentials stay in the address given to the connection, and appear nowhere else.

Over TCP, since lost UDP packets tear pictures. ``rtsps`` encrypts, but cameras sign their certificates themselves,
so the certificate is not verified.
"""

from __future__ import annotations

import time

import av
from av.container import InputContainer

from edgeunip.devices.address import redact
from edgeunip.devices.live import LiveCamera
from edgeunip.devices.profiles import Profile
from edgeunip.errors import SourceError

_OPTIONS = {
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
    "flags": "low_delay",
    "fpsprobesize": "0",  # Looking for the frame rate delays the first frame and piles up old ones.
    "timeout": "4000000",  # Microseconds a socket may be silent.
}
LIMIT_S = 5.0

_REMEDIES: dict[type[av.FFmpegError], str] = {
    av.error.HTTPUnauthorizedError: "Check user name and password: rtsp://USER:PASSWORD@HOST/PATH.",
    av.error.HTTPForbiddenError: "This user may not see this stream; check the camera's rights.",
    av.error.HTTPNotFoundError: "Check the path of the address against the camera's manual.",
    av.error.ConnectionRefusedError: "Check the port; is RTSP switched on in the camera?",
}


def open_rtsp(url: str, *, profile: Profile | None = None) -> LiveCamera:
    """Return the camera at ``url``; 8-bit luma, the picture as the camera's own gain control made it."""
    name = redact(url)

    def connect() -> InputContainer:
        begin = time.monotonic()
        try:
            return av.open(url, options=_OPTIONS, timeout=LIMIT_S)
        except av.FFmpegError as error:
            fault = _explain(error, name, late=time.monotonic() - begin >= LIMIT_S)
        # Raised out here, so that no traceback shows FFmpeg's message: it holds the whole address.
        raise fault

    return LiveCamera(name, connect, explain=lambda error: _explain(error, name), profile=profile)


def _explain(error: av.FFmpegError, name: str, *, late: bool = False) -> SourceError:
    # FFmpeg tells a silent server as one that sent invalid data.
    why = "no answer in time" if late or isinstance(error, av.error.ExitError) else error.strerror
    remedy = _REMEDIES.get(type(error), "Check the address and the network.")
    return SourceError("The RTSP stream failed", where=name, why=why, remedy=remedy)
