"""The live page: ``http://127.0.0.1:PORT/`` shows the stream in a browser while it runs.

A page holds one long ``GET /stream`` open; each chunk is a packet that carries numbers, picture and class map of one
frame (:mod:`edgeunip.runtimes.packet`), so they can never disagree. Why not the usual ways: a WebSocket needs another
package on the device, an MJPEG picture with server-sent events beside it shows numbers of another frame, and polling
costs a request a frame. Back-pressure is TCP's own: a client gets the newest result once it has taken the one before,
and a slow one only misses frames. Nothing is encoded while nobody watches, and a frame is encoded once for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import deque
from importlib import resources
from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from edgeunip.classes import Classes
from edgeunip.errors import SinkError
from edgeunip.frame import Result
from edgeunip.runtimes.loopback import HOST, listen, server
from edgeunip.runtimes.packet import Packet, encode

_MAX_STREAMS = 16
_CLOSE_TIMEOUT_S = 1.0
_FPS_WINDOW = 30

_ASSETS = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class WebSink:
    """Serves the live page from a thread of its own.

    Args:
        port: TCP port on 127.0.0.1; 0 picks a free one.
        classes: names and colours of the class maps to come.

    Attributes:
        name: what it is, for people.
        url: where the page is.

    Raises:
        SinkError: the port is taken or not allowed.
    """

    def __init__(self, port: int, classes: Classes) -> None:
        listener = listen(port)
        port = listener.getsockname()[1]
        self.url = f"http://{HOST}:{port}/"
        self.name = f"web page {self.url}"
        self._feed = _Feed(classes)
        self._server = server(_router(self._feed), port)
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, args=(listener,), name="edgeunip-web", daemon=True)
        self._thread.start()
        self._ready.wait()
        self._check()

    def write(self, result: Result) -> None:
        """Show ``result`` from now on. Never waits for a client.

        Raises:
            SinkError: the server has stopped, or was closed.
        """
        self._check()
        self._feed.offer(result)

    def close(self) -> None:
        """Cut all clients off and free the port. May be called twice."""
        self._closed = True
        self._server.should_exit = True
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _check(self) -> None:
        failure = self._failure or self._feed.failure
        if failure is not None or self._closed:
            why = "it was closed" if failure is None else f"{type(failure).__name__}: {failure}"
            raise SinkError("The web page has stopped", where=self.url, why=why, remedy="Start the stream again.")

    def _run(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listener))
        # uvicorn leaves by SystemExit when it cannot start: kept, and told by the next write.
        except BaseException as error:
            self._failure = error
        finally:
            listener.close()
            self._ready.set()

    async def _serve(self, listener: socket.socket) -> None:
        self._feed.loop = asyncio.get_running_loop()
        self._feed.loop.set_exception_handler(self._on_loop_error)
        self._ready.set()
        await self._server.serve(sockets=[listener])

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # An OSError is one connection's end, or no free file descriptor, after which asyncio accepts again by itself.
        if error is not None and not isinstance(error, OSError):
            self._failure = error


class _Feed:
    """Hands the newest result to every open stream. Lives in the server's loop, but for :meth:`offer`."""

    def __init__(self, classes: Classes) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.failure: Exception | None = None
        self._classes = classes
        self._newest: tuple[Result, float | None] | None = None
        self._encoded: Packet | None = None
        self._times_ns: deque[int] = deque(maxlen=_FPS_WINDOW)
        self._streams: set[asyncio.Event] = set()

    def offer(self, result: Result) -> None:
        """Make ``result`` the newest and wake the streams. Called by the thread that writes."""
        self._times_ns.append(result.done_ns)
        self._newest = result, _rate(self._times_ns)
        # The loop may end at any moment; then the next write tells the cause.
        with contextlib.suppress(RuntimeError):
            if self.loop is not None:
                self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for wake in self._streams:
            wake.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer ``GET /stream``."""
        if len(self._streams) >= _MAX_STREAMS:
            full = PlainTextResponse(f"{_MAX_STREAMS} pages are open already: close one.\n", status_code=503)
            return await full(scope, receive, send)
        if scope["method"] == "HEAD":
            return await Response(media_type="application/octet-stream")(scope, receive, send)
        wake = asyncio.Event()
        self._streams.add(wake)
        gone = asyncio.ensure_future(_disconnected(receive))
        gone.add_done_callback(lambda _: wake.set())
        try:
            await self._stream(send, wake, gone)
        except Exception as error:
            self.failure = error
            raise
        finally:
            self._streams.discard(wake)
            gone.cancel()

    async def _stream(self, send: Send, wake: asyncio.Event, gone: asyncio.Future[None]) -> None:
        headers = [(b"content-type", b"application/octet-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        shown: Result | None = None
        while not gone.done():
            packet = self._packet()
            if packet is None or packet.result is shown:
                await wake.wait()
                wake.clear()
                continue
            shown = packet.result
            await send(_chunk(packet.at(time.monotonic_ns())))
            # uvicorn waits before it writes, not after: this empty chunk returns once the client has taken the
            # packet, so that the next one is chosen as late as can be.
            await send(_chunk(b""))

    def _packet(self) -> Packet | None:
        """Return the newest result, encoded at most once."""
        if self._newest is None:
            return None
        result, fps = self._newest
        if self._encoded is None or self._encoded.result is not result:
            self._encoded = encode(result, self._classes, fps)
        return self._encoded


def _router(feed: _Feed) -> Router:
    """A fixed table of whole paths: no path is ever joined to a folder."""
    page = resources.files("edgeunip.runtimes") / "page"
    assets = {path: Response((page / file).read_bytes(), media_type=kind) for path, (file, kind) in _ASSETS.items()}
    routes = [Route(path, asset, methods=["GET"]) for path, asset in assets.items()]
    return Router([*routes, Route("/stream", feed, methods=["GET"])], redirect_slashes=False)


def _rate(times_ns: deque[int]) -> float | None:
    span = times_ns[-1] - times_ns[0]
    return (len(times_ns) - 1) * 1e9 / span if span > 0 else None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunk(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}
