"""One camera's coloured picture pushed to an RTSP server, as ``rtsp://HOST[:PORT]/PATH``.

FFmpeg's RTSP writer waits for a server that takes nothing, packet by packet, and passes the fault over. So the picture
is pushed by a thread of its own: the one that writes does not wait, tells the fault within a moment,
and leaves that thread behind; it ends when FFmpeg's own limit has passed for each packet of the picture in hand.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from typing import Any
from urllib.parse import quote

import av

from edgeunip.budget import BUDGET, Budget
from edgeunip.classes import Classes
from edgeunip.errors import SinkError, UsageError
from edgeunip.frame import Result
from edgeunip.runtimes.encode import Encoder, colour_codec, colour_picture
from edgeunip.runtimes.handover import Handover
from edgeunip.runtimes.overlay import Overlay
from edgeunip.runtimes.secret import Password, login, refuse_credentials
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.spec import Spec

PASSWORD = "EDGEUNIP_RTSP_OUT_PASSWORD"
_OPTIONS = ("user", "password_file")
_ADDRESS = re.compile(r"//(\[[0-9A-Fa-f:.]+\]|[^/:\s\[\]]+)(:\d{1,5})?/\S+")

logger = logging.getLogger(__name__)


class RtspSink:
    """Pushes one camera's picture.

    Attributes:
        name: the address, without credentials.
    """

    def __init__(
        self, address: str, classes: Classes, *, login: tuple[str, Password] | None = None, budget: Budget = BUDGET
    ) -> None:
        """Take the address; the server is asked when the first picture comes.

        Args:
            address: ``rtsp://HOST[:PORT]/PATH`` without credentials.
            classes: whose colours are shown.
            login: user and password.
            budget: the time limits.
        """
        self.name = address
        self._classes, self._login, self._budget = classes, login, budget
        self._push: _Push | None = None

    def write(self, result: Result) -> None:
        """Hand over one picture. Only the first waits for the server, and not long; one that is slow misses pictures.

        Raises:
            SinkError: the server is not there, refuses, went away or takes nothing; or the picture's size changed.
        """
        if self._push is None:
            self._push = _Push(self.name, self._classes, self._login, self._budget)
        self._push.offer(result)

    def close(self) -> None:
        """Take leave of the server; one that does not answer is left behind. May be called twice."""
        if self._push is not None:
            self._push.end()
            self._push.join(self._budget.grace_s / 2)


class _Push:
    """One stream to the server, and its thread."""

    def __init__(self, address: str, classes: Classes, login: tuple[str, Password] | None, budget: Budget) -> None:
        self._address, self._login, self._budget = address, login, budget
        self._overlay = Overlay(classes)
        self._waiting: Handover[Result] = Handover(1, newest=True)
        self._busy_since: float | None = None
        self._error: Exception | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"push {address}", daemon=True)
        self._thread.start()

    def offer(self, result: Result) -> None:
        """Make ``result`` the next to be pushed; tell what went wrong meanwhile."""
        since = self._busy_since
        if self._error is None and since is not None and time.monotonic() - since > self._budget.sink_slow_s:
            raise SinkError("The RTSP server takes nothing", where=self._address)
        self._waiting.put(result)
        begun = self._begun.wait(self._budget.sink_slow_s)
        if self._error is not None:
            raise self._error
        if not begun:
            raise SinkError("The RTSP server does not answer", where=self._address)

    def end(self) -> None:
        """Push no more."""
        self._waiting.close(discard=True)

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        try:
            first = self._waiting.get()
            if first is not None:
                self._push(first)
        except av.error.FFmpegError as error:
            self._error = self._explained(error)
        except Exception as error:
            self._error = error
        finally:
            self._begun.set()

    def _push(self, first: Result) -> None:
        """Push until the end; the container is closed in any case, a second fault while closing it is the same one."""
        picture = self._picture(first)
        container = av.open(self._url(), "w", format="rtsp", options=self._options())  # durable: no file
        try:
            encoder = Encoder(container, colour_codec(), picture)
            self._mux(container, encoder, picture, first)
            while (result := self._waiting.get()) is not None:
                self._mux(container, encoder, self._picture(result), result)
        finally:
            with contextlib.suppress(av.error.FFmpegError):
                container.close()

    def _picture(self, result: Result) -> av.VideoFrame:
        return colour_picture(self._overlay.draw(result))

    def _mux(self, container: Any, encoder: Encoder, picture: av.VideoFrame, result: Result) -> None:
        if not encoder.fits(picture):
            raise SinkError("The picture changed its size", where=self._address)
        self._busy_since = time.monotonic()
        for packet in encoder.encode(picture, result.frame.t_ns / 1e6):
            container.mux(packet)
        took_s, self._busy_since = time.monotonic() - self._busy_since, None
        self._begun.set()
        if took_s > self._budget.sink_slow_s:  # what FFmpeg gave up to send is a hole in the stream
            raise SinkError("The RTSP server takes nothing", where=self._address)

    def _options(self) -> dict[str, str]:
        return {"rtsp_transport": "tcp", "timeout": str(round(self._budget.sink_slow_s * 1e6))}

    def _url(self) -> str:
        user, password = ("", None) if self._login is None else (self._login[0], self._login[1].read())
        if not user:
            return self._address
        secret = "" if password is None else f":{quote(password, safe='')}"
        return self._address.replace("//", f"//{quote(user, safe='')}{secret}@", 1)

    def _explained(self, error: Any) -> SinkError:
        """FFmpeg's text holds the address with its password: only what it says of the cause is kept."""
        refused = isinstance(error, av.error.HTTPUnauthorizedError)
        remedy = f"Check user= and password_file=, or {PASSWORD}." if refused else None
        return SinkError("The RTSP server cannot be pushed to", where=self._address, why=error.strerror, remedy=remedy)


def open_rtsp_out(spec: Spec, setting: Setting) -> RtspSink:
    """Open ``rtsp://HOST[:PORT]/PATH``.

    Options: ``user``, ``password_file`` (or the environment's EDGEUNIP_RTSP_OUT_PASSWORD).

    Raises:
        UsageError: it is written wrong, holds a password, or has a password and no user.
        SinkError: the password file cannot be read.
    """
    refuse_credentials(spec, PASSWORD)
    spec.known(_OPTIONS)
    if not _ADDRESS.fullmatch(spec.rest):
        raise UsageError("An RTSP server is written rtsp://HOST[:PORT]/PATH", where=f"rtsp:{spec.rest}"[:200])
    if len(setting.cameras) > 1:
        remedy = "Write {camera} in the path."
        raise UsageError("Several cameras cannot share one RTSP path", where=f"rtsp:{spec.rest}", remedy=remedy)
    user, password = login(spec, PASSWORD)
    return RtspSink(f"rtsp:{spec.rest}", setting.classes, login=None if user is None else (user, password))
