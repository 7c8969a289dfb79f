"""Where results go: ``KIND:REST?options`` to a sink."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeunip.address import redact
from edgeunip.classes import Classes
from edgeunip.errors import UsageError, near
from edgeunip.health import Board
from edgeunip.protocols import Sink
from edgeunip.runtimes.spec import Spec, parse


@dataclass(frozen=True)
class Setting:
    """What a sink may know of the stream it belongs to.

    Attributes:
        classes: names and colours, from the manifest.
        cameras: the cameras whose results it gets, by name; the same names stand in the results.
        rate_hz: frames a second of a file being read; None when frames come at their own time.
        board: the health of every camera.
        alarms: names of the rules that may raise one.
    """

    classes: Classes
    cameras: tuple[str, ...] = ("",)
    rate_hz: float | None = None
    board: Board = field(default_factory=Board)
    alarms: tuple[str, ...] = ()


def open_sink(text: str, setting: Setting) -> Sink:
    """Open a sink.

    Args:
        text: one of the forms :data:`FORMS` shows. A missing folder is made.
        setting: the stream it belongs to.

    Raises:
        UsageError: no such kind, or what follows it is wrong.
        SinkError: it cannot be opened.
        StorageError: its file cannot be written.
    """
    spec = sink_spec(text)
    return _KINDS[spec.kind](spec, setting)


def sink_spec(text: str) -> Spec:
    """Take apart what a user wrote, before anything is opened.

    Raises:
        UsageError: no such kind, or it is written wrong.
    """
    spec = parse(text)
    if spec.kind not in FORMS:
        raise UsageError("Unknown sink", where=redact(spec.kind or text), remedy=near(spec.kind, FORMS))
    if not spec.rest:
        raise UsageError(f"A {spec.kind} sink needs more", remedy=f"Write {FORMS[spec.kind]}.")
    return spec


def slug(camera: str) -> str:
    """Return a camera's name as part of a file name or topic: letters, digits, points and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", camera).strip("-.") or "camera"


def _video(spec: Spec, setting: Setting) -> Sink:
    from edgeunip.runtimes.video import open_video

    return open_video(spec, setting)


def _jsonl(spec: Spec, setting: Setting) -> Sink:
    from edgeunip.runtimes.jsonl import open_jsonl

    return open_jsonl(spec, setting)


def _mqtt(spec: Spec, setting: Setting) -> Sink:
    from edgeunip.runtimes.mqtt import open_mqtt

    return open_mqtt(spec, setting)


def _rtsp(spec: Spec, setting: Setting) -> Sink:
    from edgeunip.runtimes.rtsp_out import open_rtsp_out

    return open_rtsp_out(spec, setting)


def _window(spec: Spec, setting: Setting) -> Sink:
    from edgeunip.runtimes.window import open_window

    return open_window(spec, setting)


def _web(spec: Spec, setting: Setting) -> Sink:
    from edgeunip.runtimes.web.sink import open_web

    return open_web(spec, setting)


_KINDS: dict[str, Callable[[Spec, Setting], Sink]] = {
    "video": _video,
    "jsonl": _jsonl,
    "mqtt": _mqtt,
    "rtsp": _rtsp,
    "window": _window,
    "web": _web,
}
FORMS = {
    "video": "video:FILE.mkv",
    "record": "record:FILE.mkv",
    "jsonl": "jsonl:FILE, or jsonl:- for standard output",
    "mqtt": "mqtt:HOST[:PORT]/TOPIC",
    "rtsp": "rtsp://HOST[:PORT]/PATH",
    "window": "window:on",
    "web": "web:PORT",
}
