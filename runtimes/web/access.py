"""Who may see what: names the page is served under, the token, sessions, and the headers on every answer.

The ``Host`` check keeps out a foreign web page whose name was made to point here (DNS rebinding). The headers forbid
every load from elsewhere, every frame around the page, and every use of what is served by other pages. A browser sends
the token once, in a POST, and gets a session id for it in a cookie that no script and no other site's request can use;
scripts send ``Authorization: Bearer``. No GET changes anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
import secrets
import time
from collections import OrderedDict
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeunip.runtimes.web.server import HEADER_TIMEOUT_S, bare, client
from edgeunip.runtimes.web.throttle import Throttle

HEADERS = {
    "content-security-policy": "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
    "style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "connection": "close",
}
# What is served to everybody: no picture, no number, no name.
OPEN = ("/healthz", "/login", "/page.css", "/icon.svg")

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
_MAX_BODY_BYTES = 4096
_MAX_SESSIONS = 64
_SESSION_S = 7 * 86400.0
_TRIES, _TRY_EVERY_S = 5, 12.0


class Hosts:
    """The names that the page answers to, as they stand in the header ``Host``."""

    def __init__(self, port: int, names: tuple[str, ...], *, secure: bool) -> None:
        self._port, self._usual = port, 443 if secure else 80
        self._known = {host for name in (*_LOOPBACK_NAMES, *names) for host in self._written(name.lower())}

    def allow(self, scope: Scope) -> bool:
        """Return whether a request names us: by a known name, or by the very address at which it has reached us."""
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        reached = bare(scope["server"][0])
        literal = f"[{reached}]" if reached.version == 6 else str(reached)
        return host in self._known or (not reached.is_loopback and host in self._written(literal))

    def _written(self, name: str) -> set[str]:
        """A browser leaves HTTP's own port out; a name given with a port is taken as it is."""
        if ":" in name and name.rpartition(":")[2].isdecimal():
            return {name}
        return {f"{name}:{self._port}"} | ({name} if self._port == self._usual else set())


class Access:
    """Lets those in who know the token, and everybody where there is none."""

    def __init__(self, token: str | None, login_page: str, *, port: int, secure: bool) -> None:
        self._token = None if token is None else _digest(token.encode())
        self._page = login_page
        # Cookies do not know ports: two pages on one device must not overwrite each other's.
        self._cookie, self._secure = f"edgeunip-{port}", secure
        self._sessions: OrderedDict[bytes, float] = OrderedDict()
        self._failures = Throttle(_TRIES, _TRY_EVERY_S)

    def refusal(self, scope: Scope) -> Response | None:
        """Return the answer to who may not see ``scope``'s path; None for who may."""
        if self._token is None or scope["path"] in OPEN:
            return None
        request = Request(scope)
        if self._has_session(request.cookies.get(self._cookie, "")):
            return None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and given:
            return self._tried(given.strip().encode("latin-1"), client(scope))
        return self._unauthorized("" if scope["path"] == "/" else None)

    async def login(self, request: Request) -> Response:
        """Answer the login form: GET shows it, POST takes the token and sets the cookie."""
        if self._token is None:
            return RedirectResponse("/", 303)
        if request.method != "POST":
            return HTMLResponse(self._page)
        refused = self._tried(_field(await _body(request), "token"), client(request.scope), page=True)
        if refused is not None:
            return refused
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            self._cookie, self._new_session(), int(_SESSION_S), httponly=True, samesite="strict", secure=self._secure
        )
        return answer

    def _tried(self, given: bytes, who: str | None, *, page: bool = False) -> Response | None:
        """Compare a token, unless its sender has guessed too often."""
        if wait_s := self._failures.wait_s(who):
            later = {"retry-after": str(math.ceil(wait_s))}
            return PlainTextResponse("Too many wrong tokens: try again later.\n", 429, later)
        if self._token is not None and hmac.compare_digest(_digest(given), self._token):
            return None
        self._failures.count(who)
        return self._unauthorized("That is not the token." if page else None)

    def _unauthorized(self, message: str | None) -> Response:
        """Return 401 with the login form and a message, or in plain text."""
        if message is None:
            return PlainTextResponse("The token is needed.\n", 401, {"www-authenticate": "Bearer"})
        page = self._page.replace("<!-- message -->", message)
        return HTMLResponse(page, 401, {"www-authenticate": "Bearer"})

    def _new_session(self) -> str:
        session = secrets.token_urlsafe(32)
        self._sessions[_digest(session.encode())] = time.monotonic()
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def _has_session(self, session: str) -> bool:
        """Look up a digest: how long that takes tells nothing of the session's id."""
        found = _digest(session.encode())
        used = self._sessions.pop(found, -math.inf)
        if time.monotonic() - used > _SESSION_S:
            return False
        self._sessions[found] = time.monotonic()
        return True


def guarded(app: ASGIApp, hosts: Hosts, access: Access, url: str) -> ASGIApp:
    """Refuse a foreign ``Host`` and who may not see, and put the security headers on every answer."""
    misdirected = PlainTextResponse(f"Not served under this name: open {url}\n", status_code=421)
    extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        served = (access.refusal(scope) or app) if hosts.allow(scope) else misdirected
        await served(scope, receive, send_guarded)

    return answer


async def _body(request: Request) -> bytes:
    """Return a small body; empty when it is too large, too slow, or its sender has gone."""
    try:
        return await asyncio.wait_for(_small(request), HEADER_TIMEOUT_S)
    except (ClientDisconnect, asyncio.TimeoutError):
        return b""


async def _small(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            return b""
    return body


def _field(form: bytes, name: str) -> bytes:
    """Return a field of a form; empty when it is not there, or the form is none of ours."""
    try:
        fields = parse_qs(form.decode("ascii"), max_num_fields=4)
    except ValueError:  # too many fields, or no ASCII
        return b""
    return fields.get(name, [""])[0].strip().encode()


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
