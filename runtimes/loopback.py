"""An HTTP server for this machine only: uvicorn on 127.0.0.1, silent, with the limits it lacks.

It answers under its own name only: the ``Host`` check keeps out a foreign web page whose name was made to point here
(DNS rebinding). The headers forbid every load from elsewhere, every frame around the page, and every use of what is
served by other pages. There are no secrets and no requests that change anything, so there is no login.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgeunip.errors import SinkError

HOST = "127.0.0.1"

_MAX_CONNECTIONS = 512
_MAX_HEADER_BYTES = 8192
_HEADER_TIMEOUT_S = 5.0
_WRITE_TIMEOUT_S = 5.0
# What the kernel may hold for a client that reads slowly: pictures kept there grow old unseen.
_SEND_BUFFER_BYTES = 128 * 1024

_HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
    "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    # One request a connection: then one time limit covers every request header.
    "connection": "close",
}


def listen(port: int) -> socket.socket:
    """Return a listening socket on 127.0.0.1; ``port`` 0 picks a free one.

    Raises:
        SinkError: the port is taken, not allowed or no port.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind((HOST, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "not in 0..65535"
        remedy = "Choose another port from 1024 to 65535; 0 picks a free one."
        raise SinkError("Cannot serve the web page", where=f"{HOST}:{port}", why=why, remedy=remedy) from error
    return listener


def server(app: ASGIApp, port: int) -> uvicorn.Server:
    """Return a server of ``app`` for a socket of :func:`listen` at ``port``: call ``serve`` in a thread's loop."""
    config = uvicorn.Config(
        _guarded(app, port),
        loop="asyncio",
        http=_Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # Above CRITICAL: what a client sends is not the user's concern, and failures are told by the next write.
        log_level=logging.CRITICAL + 1,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
    )
    return uvicorn.Server(config)


def _guarded(app: ASGIApp, port: int) -> ASGIApp:
    """Refuse a foreign ``Host``, and put the security headers on every answer."""
    names = [HOST, "localhost", "[::1]"]
    hosts = {f"{name}:{port}".encode() for name in names}
    if port == 80:  # a browser leaves HTTP's own port out
        hosts |= {name.encode() for name in names}
    misdirected = PlainTextResponse(f"Not served under this name: open http://{HOST}:{port}/\n", status_code=421)
    extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        host = dict(scope["headers"]).get(b"host", b"").lower()
        await (app if host in hosts else misdirected)(scope, receive, send_guarded)

    return guarded


class _Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection with the limits it lacks: on connections, on waiting for a header and a reader."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MAX_CONNECTIONS:
            return transport.abort()
        self._limit = self.loop.call_later(_HEADER_TIMEOUT_S, self._abort_without_request)

    def _abort_without_request(self) -> None:
        if self.cycle is None:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_limit(self.loop.call_later(_WRITE_TIMEOUT_S, self.transport.abort))

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_limit(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._set_limit(None)

    def shutdown(self) -> None:
        self.transport.abort()

    def _set_limit(self, limit: asyncio.TimerHandle | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = limit
