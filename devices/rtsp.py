"""RTSP cameras. Credentials stay in the address given to the connection, and appear nowhere else.

Over TCP, since lost UDP packets tear pictures. ``rtsps`` encrypts, but cameras sign their certificates themselves,
so the certificate is not verified.
"""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from edgeunip.address import redact
from edgeunip.budget import BUDGET
from edgeunip.devices.live import LiveCamera
from edgeunip.devices.profiles import Profile
from edgeunip.errors import SourceError

_OPTIONS = {
    "rtsp_transport": "tcp",
    "fflags": "nobuffer",
    "flags": "low_delay",
    "fpsprobesize": "0",  # Looking for the frame rate delays the first frame and piles up old ones.
    "timeout": str(round(BUDGET.open_s / 2 * 1e6)),  # Microseconds a socket may be silent.
}
LIMIT_S = BUDGET.open_s / 2

# What FFmpeg raises: the reason for programs, and what to do.
_REMEDIES: dict[type[Exception], tuple[str, str]] = {
    av.error.HTTPUnauthorizedError: ("permission", "Check user name and password: rtsp://USER:PASSWORD@HOST/PATH."),
    av.error.HTTPForbiddenError: ("permission", "This user may not see this stream; check the camera's rights."),
    av.error.HTTPNotFoundError: ("missing", "Check the path of the address against the camera's manual."),
    ConnectionRefusedError: ("refused", "Check the port; is RTSP switched on in the camera?"),
    ConnectionResetError: ("reset", "Is the camera still on? It, or a device on the way, cut the connection."),
    BrokenPipeError: ("reset", "Is the camera still on? It, or a device on the way, cut the connection."),
    av.error.ArgumentError: (
        "error",
        "Write a password's special characters as URLs do: @ is %40, / is %2F, ? is %3F.",
    ),
    EOFError: ("end", "Is the camera still on? It ended the connection."),
}
_OTHER = ("error", "Check the address and the network.")


def open_rtsp(url: str, *, profile: Profile | None = None) -> LiveCamera:
    """Return the camera at ``url``; 8-bit luma, the picture as the camera's own gain control made it."""
    name = redact(url)

    def connect() -> InputContainer:
        begin = time.monotonic()
        try:
            return av.open(url, options=_OPTIONS, timeout=LIMIT_S)
        except av.error.InvalidDataError as error:
            late = time.monotonic() - begin >= LIMIT_S
            fault = _explain(error if late else _what_it_does(url) or error, name, late=late)
        except av.FFmpegError as error:
            fault = _explain(error, name, late=time.monotonic() - begin >= LIMIT_S)
        # Raised out here, so that no traceback shows FFmpeg's message: it holds the whole address.
        raise fault

    return LiveCamera(name, connect, explain=lambda error: _explain(error, name), profile=profile)


def _what_it_does(url: str) -> Exception | None:
    """Ask a server that FFmpeg says sent invalid data; return how it cut the connection, None if it did not.

    FFmpeg says so, too, of a server that hung up or cut the connection before it answered.
    """
    parts = urlsplit(url)
    if parts.scheme != "rtsp" or "@" in parts.path or not parts.hostname:
        return None  # An odd password: what looks like the host may be a part of it.
    try:
        with socket.create_connection((parts.hostname, parts.port or 554), LIMIT_S / 4) as connection:
            connection.sendall(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
            answer = connection.recv(1)
    except (OSError, ValueError) as error:
        return error if isinstance(error, ConnectionError) else None
    return None if answer else EOFError("it hung up before an answer")


def _explain(error: Exception, name: str, *, late: bool = False) -> SourceError:
    # FFmpeg tells a silent server as one that sent invalid data.
    silent = late or isinstance(error, (av.error.ExitError, TimeoutError))
    reason, remedy = next((found for kind, found in _REMEDIES.items() if isinstance(error, kind)), _OTHER)
    return SourceError(
        "The RTSP stream failed",
        where=name,
        why="no answer in time" if silent else getattr(error, "strerror", None) or error,
        remedy=_OTHER[1] if silent else remedy,
        reason="timeout" if silent else reason,
    )
