"""A window with the coloured picture: ``window:on``.

Keys: ``q`` or Escape closes it, and the stream goes on; with several cameras ``1`` to ``9`` show one, Tab the next,
``a`` all side by side. The window is a process of its own (:mod:`edgeunip.runtimes.window_child`), which asks for a
picture when it can show one: a slow display misses pictures and holds up nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.budget import BUDGET, Budget
from edgeunip.errors import SinkClosedError, SinkError, UsageError
from edgeunip.frame import Result
from edgeunip.runtimes.overlay import Overlay
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.spec import Spec
from edgeunip.runtimes.window_child import PICTURE, REQUEST

_CHILD = "edgeunip.runtimes.window_child"
_MOST = 16


class WindowSink:
    """Shows every camera's newest picture. Several threads may write.

    Attributes:
        name: ``window``.
    """

    def __init__(self, setting: Setting, *, budget: Budget = BUDGET) -> None:
        """Open the window.

        Args:
            setting: cameras and classes.
            budget: the time limits.

        Raises:
            SinkError: there is no display, or it lets nobody in.
        """
        self.name = "window"
        self._overlay, self._cameras, self._budget = Overlay(setting.classes), setting.cameras, budget
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[int, int]] = {}
        self._heard = bytearray()
        self._connection, theirs = socket.socketpair()
        with theirs:
            command = [
                sys.executable,
                "-m",
                _CHILD,
                str(theirs.fileno()),
                *(name or "camera" for name in self._cameras),
            ]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        try:
            self._wait_until_open()
        except BaseException:
            self.close()
            raise

    def write(self, result: Result) -> None:
        """Show a picture, if the window is ready for one.

        Raises:
            SinkClosedError: the user has closed the window.
            SinkError: the display has gone, or the window does not answer.
        """
        number = self._cameras.index(result.camera) if result.camera in self._cameras else 0
        with self._lock:
            try:
                self._hear()
                size = self._requests.pop(number, None)
                if size is not None:
                    image = _fitted(self._overlay.draw(result), *size)
                    self._connection.settimeout(self._budget.sink_slow_s)
                    head = PICTURE.pack(number, image.shape[1], image.shape[0])
                    self._connection.sendall(head + image.tobytes())
            except TimeoutError:
                raise SinkError("The window does not answer", where=self.name) from None
            except OSError as error:
                raise self._gone() from error

    def close(self) -> None:
        """Close the window. May be called twice."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._budget.grace_s / 2)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _hear(self) -> None:
        """Take what the window has sent; an end is a ConnectionError."""
        self._connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._connection.recv(4096)
                if not data:
                    raise ConnectionError
                self._heard += data
        while len(self._heard) >= REQUEST.size:
            number, width, height = REQUEST.unpack_from(self._heard)
            del self._heard[: REQUEST.size]
            self._requests[number] = (width, height)

    def _wait_until_open(self) -> None:
        self._connection.settimeout(self._budget.open_s)
        deadline = time.monotonic() + self._budget.open_s
        try:
            first = self._connection.recv(1)
        except TimeoutError:
            first = b""
        if first == b">":
            return
        self._connection.settimeout(max(0.1, deadline - time.monotonic()))
        why = self._connection.recv(1000).decode(errors="replace") if first == b"!" else "it does not open"
        raise SinkError("There is no window", where=self.name, why=why, remedy="Leave window:on out.")

    def _gone(self) -> SinkError:
        """Return why the window has gone: its user closed it, which ends it well, or its display went."""
        try:
            code = self._process.wait(self._budget.slack_s)
        except subprocess.TimeoutExpired:
            code = None
        if code == 0:
            return SinkClosedError("The window was closed", where=self.name)
        return SinkError("The window has gone", where=self.name, why="its display or its process ended")


def open_window(spec: Spec, setting: Setting) -> WindowSink:
    """Open ``window:on``.

    Raises:
        UsageError: it is written otherwise.
        SinkError: there is no display, or Python comes without tkinter.
    """
    spec.known(())
    if spec.rest != "on":
        raise UsageError("A window is written window:on", where=f"window:{spec.rest}")
    if len(setting.cameras) > _MOST:
        raise UsageError(f"A window shows at most {_MOST} cameras", where=len(setting.cameras))
    if importlib.util.find_spec("_tkinter") is None or importlib.util.find_spec("tkinter") is None:
        remedy = "Install the distribution's python3-tk, or leave window:on out."
        raise SinkError("A window needs tkinter, which this Python comes without", where="window", remedy=remedy)
    if not os.environ.get("DISPLAY"):
        remedy = "Set DISPLAY, or use web:8080 and a browser."
        raise SinkError("There is no display for a window", where="window", why="DISPLAY is not set", remedy=remedy)
    return WindowSink(setting)


def _fitted(image: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Return the picture enlarged or reduced to fit into ``width`` x ``height``, its proportions kept."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=how), np.uint8)
