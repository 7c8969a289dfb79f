"""Where results go: ``KIND:REST`` to a sink."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgeunip.classes import Classes
from edgeunip.errors import UsageError, near
from edgeunip.protocols import Sink


def open_sink(spec: str, *, classes: Classes, rate_hz: float | None = None) -> Sink:
    """Open a sink.

    Args:
        spec: ``video:FILE.mkv`` or ``video:FILE.mp4``, ``jsonl:FILE`` or ``jsonl:-`` for standard output, or
            ``web:PORT``. A missing folder is made.
        classes: names and colours, from the manifest.
        rate_hz: frames a second of a file being read; None when frames come at their own time.

    Raises:
        UsageError: no such kind, or what follows it is wrong.
        SinkError: it cannot be opened.
        StorageError: its file cannot be written.
    """
    kind, _, rest = spec.partition(":")
    if kind not in _KINDS:
        raise UsageError("Unknown sink", where=spec, remedy=near(kind, _KINDS))
    if not rest:
        raise UsageError("A sink needs a file or a port", where=spec, remedy=f"Write {_KINDS[kind][1]}.")
    return _KINDS[kind][0](rest, classes, rate_hz)


def _video(rest: str, classes: Classes, rate_hz: float | None) -> Sink:
    from edgeunip.runtimes.video import VideoSink

    return VideoSink(Path(rest).expanduser(), classes, rate_hz=rate_hz)


def _jsonl(rest: str, classes: Classes, rate_hz: float | None) -> Sink:
    from edgeunip.runtimes.jsonl import JsonlSink

    return JsonlSink(None if rest == "-" else Path(rest).expanduser())


def _web(rest: str, classes: Classes, rate_hz: float | None) -> Sink:
    if not (rest.isascii() and rest.isdecimal() and int(rest) <= 65535):
        raise UsageError("A web sink needs a port, 0 to 65535", where=f"web:{rest}", remedy="Write web:8080.")
    from edgeunip.runtimes.web import WebSink

    return WebSink(int(rest), classes)


_KINDS: dict[str, tuple[Callable[[str, Classes, float | None], Sink], str]] = {
    "video": (_video, "video:FILE.mkv"),
    "jsonl": (_jsonl, "jsonl:FILE, or jsonl:- for standard output"),
    "web": (_web, "web:PORT"),
}
