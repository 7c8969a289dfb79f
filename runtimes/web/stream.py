"""``GET /stream``: one long answer whose chunks are packets, each of one frame (:mod:`edgeunip.runtimes.web.packet`).

Numbers, picture and class map travel together, so they can never disagree. Why not the usual ways: a WebSocket needs
another package on the device, an MJPEG picture with server-sent events beside it shows numbers of another frame, and
polling costs a request a frame. Back-pressure is TCP's own: a client gets the newest result once it has taken the one
before, and a slow one only misses frames. Nothing is encoded while nobody watches, and a frame once for all.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from edgeunip.frame import Result
from edgeunip.runtimes.web.feed import Feed
from edgeunip.runtimes.web.server import client

MAX_STREAMS = 16
MAX_STREAMS_OF_ONE = 4  # of one address, unless it is this machine's own


class Streams:
    """The viewers of every camera, as an ASGI application.

    Attributes:
        refused: how many were one too many, so far.
    """

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self.refused = 0
        self._feeds = feeds
        self._of_one: Counter[str | None] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream the camera that ``?camera=NUMBER`` asks for, the first without it."""
        feed, who = chosen(self._feeds, Request(scope)), client(scope)
        if feed is None:
            return await PlainTextResponse("There is no such camera.\n", 404)(scope, receive, send)
        if (full := self._full(who)) is not None:
            self.refused += 1
            return await PlainTextResponse(f"{full} pages are open already: close one.\n", 503)(scope, receive, send)
        if scope["method"] == "HEAD":
            return await Response(media_type="application/octet-stream")(scope, receive, send)
        self._of_one[who] += 1
        try:
            await _watched(feed, receive, send)
        finally:
            self._of_one -= Counter({who: 1})  # and forgets who has no stream left

    @property
    def viewers(self) -> int:
        """How many watch."""
        return self._of_one.total()

    def _full(self, who: str | None) -> int | None:
        """Return the limit that one more viewer would exceed; None where there is room."""
        if self.viewers >= MAX_STREAMS:
            return MAX_STREAMS
        return MAX_STREAMS_OF_ONE if who is not None and self._of_one[who] >= MAX_STREAMS_OF_ONE else None


def chosen(feeds: Sequence[Feed], request: Request) -> Feed | None:
    """Return the feed of ``?camera=NUMBER``, the first without it; None where there is none."""
    text = request.query_params.get("camera", "0")
    known = text.isascii() and text.isdecimal() and len(text) < 4 and int(text) < len(feeds)
    return feeds[int(text)] if known else None


async def _watched(feed: Feed, receive: Receive, send: Send) -> None:
    wake = asyncio.Event()
    feed.watchers.add(wake)
    gone = asyncio.ensure_future(_disconnected(receive))
    gone.add_done_callback(lambda _: wake.set())
    try:
        await _stream(feed, send, wake, gone)
    finally:
        feed.watchers.discard(wake)
        gone.cancel()


async def _stream(feed: Feed, send: Send, wake: asyncio.Event, gone: asyncio.Future[None]) -> None:
    headers = [(b"content-type", b"application/octet-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    shown: Result | None = None
    while not gone.done():
        packet = feed.packet()
        if packet is None or packet.result is shown:
            await wake.wait()
            wake.clear()
            continue
        shown = packet.result
        await send(_chunk(packet.at(time.monotonic_ns())))
        # uvicorn waits before it writes, not after: this empty chunk returns once the client has taken the packet, so
        # that the next one is chosen as late as can be.
        await send(_chunk(b""))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunk(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}
