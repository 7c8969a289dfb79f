"""The HTTP server of the page: uvicorn's connections, silent, with the limits that they lack.

One request a connection: then one time limit covers every request's header. A client that does not send, does not read
or is one too many is cut off, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from edgeunip.errors import SinkError

MAX_CONNECTIONS = 512
MAX_CONNECTIONS_OF_ONE = 64  # of one address, unless it is this machine's own
MAX_HEADER_BYTES = 8192
HEADER_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 5.0
# What was being accepted when the server closed has become a connection by then, and is cut off with the others.
_LAST_S = 0.05
# What the kernel may hold for a client that reads slowly: pictures kept there grow old unseen.
_SEND_BUFFER_BYTES = 128 * 1024


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on the address ``host``; ``port`` 0 picks a free one.

    Raises:
        SinkError: the port is taken, not allowed or no port, or no interface has the address.
    """
    v6 = ":" in host
    listener = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        if v6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        listener.bind((host, port))
        listener.listen(MAX_CONNECTIONS)
    except (OSError, OverflowError) as error:
        listener.close()
        why = error.strerror if isinstance(error, OSError) else "not in 0..65535"
        remedy = "Choose another port from 1024 to 65535; 0 picks a free one."
        raise SinkError("Cannot serve the web page", where=f"{host}:{port}", why=why, remedy=remedy) from error
    return listener


def tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return what a server needs to speak TLS 1.2 and later.

    Raises:
        SinkError: a file cannot be read, or is no certificate chain and its key, both PEM.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password: asked at the terminal, an encrypted key would hang a service.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        remedy = "Give an unencrypted key and its certificate chain as PEM files."
        raise SinkError("Cannot use the certificate", where=f"{certificate}, {key}", why=why, remedy=remedy) from error
    return context


async def serve(app: ASGIApp, listener: socket.socket, stop: asyncio.Event, *, context: ssl.SSLContext | None) -> None:
    """Serve ``app`` on a socket of :func:`listen` until ``stop`` is set; then cut all clients off."""
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # Above CRITICAL: what a client sends is not the user's concern, and failures are told by the next write.
        log_level=logging.CRITICAL + 1,
        access_log=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    config.load()
    state = ServerState()
    handshake = None if context is None else HEADER_TIMEOUT_S
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(config, state, {}),
        sock=listener,
        backlog=MAX_CONNECTIONS,
        ssl=context,
        ssl_handshake_timeout=handshake,
    )
    try:
        await stop.wait()
    finally:
        server.close()
        await asyncio.sleep(_LAST_S)
        for connection in list(state.connections):
            connection.transport.abort()
        for task in list(state.tasks):
            task.cancel()
        await asyncio.gather(*state.tasks, return_exceptions=True)


def client(scope: Scope) -> str | None:
    """Return whom a request counts for: an address, a network of IPv6's smallest kind; None for this machine."""
    return _counted((scope.get("client") or ("127.0.0.1", 0))[0])


def _counted(address: str) -> str | None:
    found = bare(address)
    if found.is_loopback:
        return None
    return str(found) if found.version == 4 else str(ipaddress.IPv6Address(int(found) >> 64 << 64))


def bare(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address as itself: 1.2.3.4 where a socket for both kinds says ::ffff:1.2.3.4.

    Raises:
        ValueError: it is no address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    return getattr(found, "ipv4_mapped", None) or found


class _Connection(H11Protocol):
    """uvicorn's HTTP/1.1 connection with limits on connections, on waiting for a header and on waiting for a reader."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS or self._of_one() > MAX_CONNECTIONS_OF_ONE:
            return transport.abort()
        self._limit = self.loop.call_later(HEADER_TIMEOUT_S, self._abort_without_request)

    def _of_one(self) -> int:
        """Count the connections of this one's address; those of this machine count as none."""
        if self.client is None or (mine := _counted(self.client[0])) is None:
            return 0
        others = [getattr(other, "client", None) for other in self.connections]
        return sum(1 for other in others if other and _counted(other[0]) == mine)

    def _abort_without_request(self) -> None:
        if self.cycle is None:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_limit(self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort))

    def resume_writing(self) -> None:
        super().resume_writing()
        self._set_limit(None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._set_limit(None)

    def _set_limit(self, limit: asyncio.TimerHandle | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._limit = limit
