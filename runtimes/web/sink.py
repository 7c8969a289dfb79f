"""The sink ``web:PORT``: ``http://127.0.0.1:PORT/`` shows the stream in a browser while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from edgeunip.budget import BUDGET
from edgeunip.errors import SinkError, UsageError
from edgeunip.frame import Result
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.spec import Spec
from edgeunip.runtimes.web import server, token
from edgeunip.runtimes.web.access import Hosts, guarded
from edgeunip.runtimes.web.feed import Feed
from edgeunip.runtimes.web.site import Site

LOOPBACK = "127.0.0.1"

logger = logging.getLogger(__name__)


def open_web(spec: Spec, setting: Setting) -> WebSink:
    """Open ``web:PORT?host=ADDRESS&name=NAME,..&token_file=FILE&cert=FILE&key=FILE``.

    Raises:
        UsageError: an option is unknown or wrong, or the page would be open to other machines without a token.
        SinkError: the port is taken, or the token or certificate cannot be used.
    """
    spec.known(("host", "name", "token_file", "cert", "key"))
    host = spec.option("host", _address, LOOPBACK)
    names = tuple(filter(None, spec.options.get("name", "").split(",")))
    secret = token.find(spec.option("token_file", Path, None))
    context = _context(spec)
    if not ipaddress.ip_address(host).is_loopback:
        _check_open(host, secret, context)
    return WebSink(_port(spec), setting, host=host, names=names, token=secret, context=context)


class WebSink:
    """Serves the live page from a thread of its own.

    Args:
        port: TCP port; 0 picks a free one.
        setting: the stream's classes, cameras and health.
        host: address of the interface to serve at.
        names: host names under which the page may be reached besides this machine's own.
        token: what viewers must know; None lets everybody in who can connect.
        context: TLS; None serves plain HTTP.

    Attributes:
        name: what it is, for people.
        url: where the page is, seen from this machine.

    Raises:
        SinkError: the port is taken or not allowed.
    """

    def __init__(
        self, port: int, setting: Setting, *, host: str = LOOPBACK, names: tuple[str, ...] = (),
        token: str | None = None, context: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        listener = server.listen(host, port)
        port = listener.getsockname()[1]
        self.url = _url(host, port, secure=context is not None)
        self.name = f"web page {self.url}" + ("" if ipaddress.ip_address(host).is_loopback else f" on {host}")
        live = setting.rate_hz is None
        self._feeds: Mapping[str, Feed] = {camera: Feed(setting.classes, live=live) for camera in setting.cameras}
        self.site = Site(setting, self._feeds, token, port=port, secure=context is not None)
        hosts = Hosts(port, names, secure=context is not None)
        self._app = guarded(Router(self.site.routes, redirect_slashes=False), hosts, self.site.access, self.url)
        self._context = context
        self._failure: BaseException | None = None
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener,), name="edgeunip-web", daemon=True)
        self._thread.start()
        self._ready.wait()
        self._check()

    def write(self, result: Result) -> None:
        """Show ``result`` from now on. Never waits for a viewer. Several threads may call it, one a camera.

        Raises:
            SinkError: the server has stopped, or was closed.
        """
        feed = self._feeds[result.camera]
        self._check(feed.failure)
        feed.offer(result)
        if feed.watchers:
            self._tell(_wake, feed)

    def close(self) -> None:
        """Cut all viewers off and free the port. May be called twice."""
        self._closed = True
        self._tell(self._stop.set)
        self._thread.join(BUDGET.grace_s)

    def _tell(self, call: Any, *arguments: object) -> None:
        # The loop may end at any moment; then the next write tells the cause.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *arguments)

    def _check(self, failure: BaseException | None = None) -> None:
        failure = failure or self._failure
        if failure is not None or self._closed:
            why = "it was closed" if failure is None else f"{type(failure).__name__}: {failure}"
            raise SinkError("The web page has stopped", where=self.url, why=why, remedy="Start the stream again.")

    def _run(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listener))
        # Whatever ends the server is kept, and told by the next write.
        except BaseException as error:
            self._failure = error
        finally:
            listener.close()
            self._ready.set()

    async def _serve(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._on_loop_error)
        self._ready.set()
        await server.serve(self._answer, listener, self._stop, context=self._context)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        # uvicorn answers 500. Not the end of the page: whoever found such a request could end it at will.
        except Exception as error:
            logger.error("The web page could not answer a request (%s: %s)", type(error).__name__, error)
            raise

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # An OSError is one connection's end, or no free file descriptor, after which asyncio accepts again by itself.
        if error is not None and not isinstance(error, OSError):
            self._failure = error


def _wake(feed: Feed) -> None:
    for watcher in feed.watchers:
        watcher.set()


def _check_open(host: str, secret: str | None, context: ssl.SSLContext | None) -> None:
    if secret is None:
        raise UsageError(
            "A web page for other machines needs a token",
            where=f"host={host}",
            remedy=f"Add token_file=FILE (it is made if it is not there), or set {token.VARIABLE}.",
        )
    if context is None:
        logger.warning(
            "The web page's token and pictures cross the network unencrypted: give the options cert and key, or serve "
            "127.0.0.1 behind a reverse proxy with TLS"
        )


def _context(spec: Spec) -> ssl.SSLContext | None:
    certificate, key = spec.options.get("cert"), spec.options.get("key")
    if not certificate and not key:
        return None
    if not certificate or not key:
        raise UsageError("A web sink needs cert and key together", remedy="Both name PEM files.")
    return server.tls(Path(certificate), Path(key))


def _port(spec: Spec) -> int:
    if not (spec.rest.isascii() and spec.rest.isdecimal() and int(spec.rest) < 65536):
        raise UsageError("A web sink needs a port, 0 to 65535", where=f"web:{spec.rest}")
    return int(spec.rest)


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address("127.0.0.1" if text == "localhost" else text.strip("[]")))
    except ValueError as error:
        raise ValueError("it takes an address of this device, 0.0.0.0 for all; names go into name=") from error


def _url(host: str, port: int, *, secure: bool) -> str:
    """Where this machine finds the page: a server at all addresses is at 127.0.0.1 too."""
    shown = {"0.0.0.0": LOOPBACK, "::": LOOPBACK}.get(host, host)
    return f"{'https' if secure else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{port}/"
