"""What a running stream knows of itself: every camera, every loop, every sink. One board, written by the threads that
know, read by the page, the metrics, MQTT and the supervisor's watchdog."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgeunip.frame import State


@dataclass(frozen=True)
class CameraStatus:
    """How a camera does.

    Attributes:
        state: LIVE, FFC, SETTLING, STALE, FROZEN, OFFLINE or DEGRADED.
        reason: code of the last change: ``starting``, ``frame``, ``shutter``, ``stall``, ``silence``, ``frozen``,
            ``end``, ``error``, ``busy``, ``permission``, ``bandwidth``, ``missing``, ``damage``; also ``format`` (the
            frames changed size or make no sense), ``refused`` (nobody listens), ``reset`` (the connection was cut),
            ``timeout`` (no answer or no first frame), ``hang`` (it does not close any more).
        message: the same in one line for people; without credentials.
        since_ns: monotonic time of the last change, nanoseconds.
        opened: how often the camera was opened.
        faults: how often each reason came up; only those that did.
    """

    state: State = State.OFFLINE
    reason: str = "starting"
    message: str = ""
    since_ns: int = 0
    opened: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SinkStatus:
    """How a sink does.

    Attributes:
        name: the sink's.
        running: whether it takes results.
        message: why not, in one line; while it runs, why what it took has not arrived yet; else empty.
        written: results it took.
        dropped: results it was too slow for, or that came while it was off.
        failures: how often it was stopped by an error.
    """

    name: str
    running: bool = True
    message: str = ""
    written: int = 0
    dropped: int = 0
    failures: int = 0


@dataclass(frozen=True)
class Totals:
    """What a stream has done so far. At its end ``captured == written + skipped``.

    Attributes:
        captured: frames the camera gave.
        skipped: frames passed over because newer ones had come or the stream was stopped, at the end also those whose
            result no sink took.
        lost: frames missing in the camera's own numbering: it or its link dropped them.
        inferred: frames with a result; those of a held class map included.
        held: results whose class map is an earlier frame's.
        written: results that at least one sink took; with no sinks, all.
        seconds: since the stream began.
        latency_ms: (p50, p99) from capture to result, for files from reading to result; of the latest 4096 results,
            0 before the first.
        sinks: how each sink does.
    """

    captured: int = 0
    skipped: int = 0
    lost: int = 0
    inferred: int = 0
    held: int = 0
    written: int = 0
    seconds: float = 0.0
    latency_ms: tuple[float, float] = (0.0, 0.0)
    sinks: tuple[SinkStatus, ...] = ()

    @property
    def failed_sinks(self) -> tuple[str, ...]:
        """Names of the sinks the stream goes on without."""
        return tuple(sink.name for sink in self.sinks if not sink.running)

    @property
    def sink_drops(self) -> dict[str, int]:
        """Results each sink was too slow for, by its name; only sinks with any."""
        return {sink.name: sink.dropped for sink in self.sinks if sink.dropped}


@dataclass(frozen=True)
class Health:
    """One camera's stream at one moment.

    Attributes:
        camera: its name.
        status: of the camera.
        totals: of the loop.
        warnings: what the operator should look at, by a code: such as ``histogram``: the scene has left the range the
            model was calibrated on.
        progress_ns: monotonic time at which the loop last turned, nanoseconds.
    """

    camera: str
    status: CameraStatus = CameraStatus()
    totals: Totals = Totals()
    warnings: Mapping[str, str] = field(default_factory=dict)
    progress_ns: int = 0

    @property
    def ok(self) -> bool:
        """Whether results come as they should: no fault of the camera or a sink. A closed shutter is none."""
        good = self.status.state in (State.LIVE, State.FFC, State.SETTLING)
        return good and not self.totals.failed_sinks

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values; ``since_s`` says how long the state has lasted."""
        found = asdict(self)
        found["status"]["state"] = self.status.state.value
        found["status"]["since_s"] = round((time.monotonic_ns() - found["status"].pop("since_ns")) / 1e9, 1)
        found.pop("progress_ns")
        return {**found, "ok": self.ok}


class Board:
    """The health of every camera of a process. Any thread may write and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cameras: dict[str, Health] = {}

    def put(
        self,
        camera: str,
        *,
        status: CameraStatus | None = None,
        totals: Totals | None = None,
        warnings: Mapping[str, str] | None = None,
    ) -> None:
        """Note what is new about a camera; the rest stays. New totals are a sign of life."""
        changes: dict[str, Any] = {"status": status, "totals": totals, "warnings": warnings}
        if totals is not None:
            changes["progress_ns"] = time.monotonic_ns()
        with self._lock:
            old = self._cameras.get(camera, Health(camera))
            self._cameras[camera] = replace(old, **{k: v for k, v in changes.items() if v is not None})

    def read(self) -> tuple[Health, ...]:
        """Return every camera's health, in the order they came."""
        with self._lock:
            return tuple(self._cameras.values())
