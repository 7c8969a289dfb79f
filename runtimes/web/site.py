"""What is served: a fixed table of whole paths. No path is ever joined to a folder, and no GET changes anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgeunip.address import redact
from edgeunip.budget import BUDGET
from edgeunip.health import Health
from edgeunip.redaction import clean
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.web.access import Access
from edgeunip.runtimes.web.feed import Feed
from edgeunip.runtimes.web.metrics import CONTENT_TYPE, Exporter
from edgeunip.runtimes.web.server import client
from edgeunip.runtimes.web.stream import Streams, chosen
from edgeunip.runtimes.web.throttle import Throttle

_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_SCRIPTS = ("page.js", "stream.js", "picture.js", "cursor.js", "chart.js", "panels.js", "common.js")
_MAX_POINTS = 8
# A viewer asks ten times a second; what all viewers of one address ask for must not take the processor.
_QUERIES, _QUERY_EVERY_S = 100, 0.01


class Site:
    """The answers to every request.

    Attributes:
        routes: the table.
        streams: those who watch.
    """

    def __init__(
        self, setting: Setting, feeds: Mapping[str, Feed], token: str | None, *, port: int, secure: bool
    ) -> None:
        """Read the page's files; ``port`` and ``secure`` say where it is served, and whether by TLS."""
        self._setting, self._feeds = setting, tuple(feeds.values())
        self._queries = Throttle(_QUERIES, _QUERY_EVERY_S)
        self._exporter = Exporter(setting.board.read, self._results, self._figures)
        self.streams = Streams(self._feeds)
        self.access = Access(token, _text("login.html"), port=port, secure=secure)
        self.routes = [
            Route("/", _asset("index.html"), methods=["GET"]),
            *[Route(f"/{file}", _asset(file), methods=["GET"]) for file in (*_SCRIPTS, "page.css", "icon.svg")],
            Route("/stream", self.streams, methods=["GET"]),
            Route("/celsius", self._celsius, methods=["GET"]),
            Route("/status.json", self._status, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/healthz", self._healthz, methods=["GET"]),
            Route("/login", self.access.login, methods=["GET", "POST"]),
        ]

    async def _celsius(self, request: Request) -> Response:
        """``?camera=NUMBER&seq=NUMBER&at=X,Y&at=..``: temperatures of a frame that was shown."""
        feed, points = chosen(self._feeds, request), [_pair(text) for text in request.query_params.getlist("at")]
        seq = _whole(request.query_params.get("seq", "0"))
        if feed is None or seq is None or not 1 <= len(points) <= _MAX_POINTS or None in points:
            return _bad(f"Ask for ?camera=NUMBER&seq=NUMBER&at=X,Y with 1 to {_MAX_POINTS} points.")
        if (late := self._too_often(request)) is not None:
            return late
        seq, celsius = feed.celsius(seq, [point for point in points if point])
        return JSONResponse({"seq": seq, "celsius": celsius})

    async def _status(self, request: Request) -> Response:
        """``?camera=NUMBER&since=SECOND``: every camera's health and alarms, and the history of one."""
        feed, since = chosen(self._feeds, request), _whole(request.query_params.get("since", "0"))
        if feed is None or since is None:
            return _bad("Ask for ?camera=NUMBER&since=SECOND.")
        if (late := self._too_often(request)) is not None:
            return late
        samples = [[one.second, one.highest, one.mean] for one in feed.history.since(since)]
        history = {"classes": self._setting.classes.names, "samples": samples}
        said = {"now": time.monotonic_ns() // 10**9, "cameras": self._cameras(), "alarms": self._alarms()}
        return JSONResponse({**said, "history": history})

    def _cameras(self) -> list[dict[str, Any]]:
        known = {health.camera: health for health in self._setting.board.read()}
        return [_shown(known.get(name, Health(name))) for name in self._setting.cameras]

    def _alarms(self) -> dict[str, list[dict[str, Any]]]:
        raised, past = zip(*(feed.alarms.read() for feed in self._feeds), strict=True)
        latest = sorted((one for part in past for one in part), key=lambda one: one.ended_s or 0.0, reverse=True)
        return {
            "raised": [one.to_json() for part in raised for one in part],
            "past": [one.to_json() for one in latest],
        }

    async def _metrics(self, request: Request) -> Response:
        return self._too_often(request) or Response(self._exporter.text(), media_type=CONTENT_TYPE)

    async def _healthz(self, _: Request) -> Response:
        """Say one word, to everybody: it must tell nothing about what is wrong."""
        known = {health.camera: health for health in self._setting.board.read()}
        good = all(name in known and _works(known[name]) for name in self._setting.cameras)
        return PlainTextResponse("ok\n" if good else "degraded\n", 200 if good else 503)

    def _too_often(self, request: Request) -> Response | None:
        who = client(request.scope)
        if self._queries.wait_s(who):
            return PlainTextResponse("Too many requests.\n", 429, {"retry-after": "1"})
        self._queries.count(who)
        return None

    def _results(self) -> list[Any]:
        return [feed.newest for feed in self._feeds if feed.newest is not None]

    def _figures(self) -> dict[str, float]:
        return {"viewers": self.streams.viewers, "viewers_refused": self.streams.refused}


def _shown(health: Health) -> dict[str, Any]:
    """Names may be addresses as their user wrote them, and messages quote them: what they hide is not for the page."""
    said = health.to_json()
    said["camera"] = redact(said["camera"])
    said["warnings"] = {code: clean(text) for code, text in said["warnings"].items()}
    said["status"]["message"] = clean(said["status"]["message"])
    for sink in said["totals"]["sinks"]:
        sink["name"], sink["message"] = redact(sink["name"]), clean(sink["message"])
    return said


def _works(health: Health) -> bool:
    """Whether a camera is well and its loop turns."""
    silent_s = (time.monotonic_ns() - health.progress_ns) / 1e9
    return health.ok and silent_s < BUDGET.watchdog_s


def _asset(file: str) -> Response:
    kind = _KINDS[file[file.rindex(".") :]]
    return HTMLResponse(_text(file)) if kind == "text/html" else Response(_text(file), media_type=kind)


def _text(file: str) -> str:
    return (resources.files("edgeunip.runtimes.web") / "page" / file).read_text(encoding="utf-8")


def _bad(message: str) -> Response:
    return PlainTextResponse(f"{message}\n", 400)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _pair(text: str) -> tuple[int, int] | None:
    x, _, y = text.partition(",")
    column, row = _whole(x), _whole(y)
    return None if column is None or row is None else (column, row)
