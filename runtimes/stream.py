"""The camera-stream loop: capture, inference and every sink at the same time, and no frame unaccounted for.

    camera -> capture thread -> [newest frame | every frame] -> as many workers as the runtime takes calls
           -> results in frame order -> one queue and one thread a sink

A live camera is never kept waiting: a frame that no worker could take gives way to a newer one, and a result that a
sink could not take gives way too. A file is read no faster than it is written.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeunip.bundle import Manifest
from edgeunip.errors import EdgeunipError, SinkError, UsageError
from edgeunip.frame import Frame, Result
from edgeunip.protocols import Camera, Runtime, Sink
from edgeunip.runtimes.handover import Handover
from edgeunip.runtimes.outlet import Delivery, Outlet
from edgeunip.runtimes.segment import Prepared, Segmenter

_REPORT_S = 1.0  # between two reports
_POLL_S = 0.05  # the longest a stop goes unnoticed
_GRACE_S = 0.8  # after a stop, until results that wait for a slow sink are given up
_PATIENCE_S = 1.2  # after a stop, until what still hangs is left behind
_CAPTURE_S = 0.25  # at the end, for the capture thread to hand in its last frame
_LATENCIES = 4096  # the latest results the percentiles are of


@dataclass(frozen=True)
class Totals:
    """What a stream has done so far. At its end ``captured == written + skipped``.

    Attributes:
        captured: frames the camera gave.
        skipped: frames passed over because newer ones had come or the stream was stopped, at the end also those whose
            result no sink took.
        lost: frames missing in the camera's own numbering: it or its link dropped them.
        inferred: frames segmented.
        written: results that at least one sink took; with no sinks, all.
        seconds: since the stream began.
        latency_ms: (p50, p99) from capture to result, for files from reading to result; of the latest 4096 results,
            0 before the first.
        failed_sinks: names of the sinks the stream goes on without.
        sink_drops: results a sink was too slow for, by its name; only sinks with any.
    """

    captured: int
    skipped: int
    lost: int
    inferred: int
    written: int
    seconds: float
    latency_ms: tuple[float, float]
    failed_sinks: tuple[str, ...]
    sink_drops: Mapping[str, int] = field(default_factory=dict)


def stream(
    camera: Camera,
    runtime: Runtime,
    manifest: Manifest,
    sinks: Sequence[Sink],
    *,
    frames: int | None = None,
    stop: threading.Event | None = None,
    report: Callable[[Totals], None] | None = None,
) -> Totals:
    """Segment a camera's frames into sinks until the source ends.

    The sinks are closed here; the camera and the runtime stay open for their owner to close::

        with camera:
            sinks = [open_sink(spec, classes=manifest.classes, rate_hz=None if camera.live else camera.rate_hz)]
            totals = stream(camera, runtime, manifest, sinks)

    Args:
        camera: entered.
        runtime: gets up to ``runtime.concurrency`` calls at once.
        manifest: of the bundle the runtime runs.
        sinks: where each result goes; each is written by one thread of its own.
        frames: end after as many results.
        stop: ends the stream in order when set, in less than 2 s; so does Ctrl-C.
        report: called about once a second and once at the end, from the caller's thread.

    Raises:
        UsageError: ``frames`` is below 1, or the bundle's AGC needs temperatures the camera does not give.
        SourceError: the camera was lost, or a file is damaged; what it gave until then is written.
        SinkError: every sink has failed.
        InferenceError: the runtime failed.
    """
    if frames is not None and frames < 1:
        raise UsageError("The number of frames must be at least 1", where=frames)
    loop = _Loop(camera, runtime, manifest, sinks, frames)
    try:
        loop.run(stop or threading.Event(), report or (lambda totals: None))
    finally:
        loop.finish()
    totals = loop.totals(final=True)
    if report is not None:
        report(totals)
    loop.raise_error()
    return totals


class _Loop:
    """The threads of one stream and what they share."""

    def __init__(
        self, camera: Camera, runtime: Runtime, manifest: Manifest, sinks: Sequence[Sink], frames: int | None
    ) -> None:
        self._camera, self._runtime, self._frames = camera, runtime, frames
        self._segmenter = Segmenter(manifest, rate_hz=None if camera.live else camera.rate_hz or 0.0)
        # One worker more than calls prepares the next frame meanwhile. Live, that frame would only grow old.
        workers = runtime.concurrency + (0 if camera.live else 1)
        self._calls = threading.BoundedSemaphore(runtime.concurrency)
        self._unordered = threading.BoundedSemaphore(2 * workers)
        self._intake: Handover[Frame] = Handover(1 if camera.live else 2 * workers, newest=camera.live)
        self._woken = threading.Event()
        self._taking, self._emitting, self._counting = threading.Lock(), threading.Lock(), threading.Lock()
        self._done: dict[int, tuple[Result, float] | None] = {}
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._next = self._lost = self._inferred = self._written = 0
        self._working = workers
        self._error: Exception | None = None
        self._started_s = time.monotonic()
        self._stopped_s: float | None = None
        self._ended_s: float | None = None
        self._capture = threading.Thread(target=self._read, name="capture", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"inference {index}", daemon=True) for index in range(workers)
        ]
        self._outlets = [Outlet(sink, live=camera.live, on_end=self._outlet_ended) for sink in sinks]

    # The caller's thread.

    def run(self, stop: threading.Event, report: Callable[[Totals], None]) -> None:
        """Run until every frame is through, or stopped."""
        self._started_s = reported = time.monotonic()
        for thread in (self._capture, *self._workers):
            thread.start()
        while not self._is_over():
            try:
                self._woken.wait(_POLL_S)
                self._woken.clear()
                if stop.is_set():
                    self._halt()
                if time.monotonic() - reported >= _REPORT_S:
                    reported = time.monotonic()
                    report(self.totals())
            except KeyboardInterrupt:
                if self._stopped_s is not None:
                    raise
                self._halt()
        self._ended_s = time.monotonic()

    def finish(self) -> None:
        """End what still runs. A capture thread that waits for a silent camera ends when its owner closes that."""
        self._halt()
        for outlet in self._outlets:
            outlet.queue.close(discard=self._overdue(_GRACE_S))
        for outlet in self._outlets:
            outlet.join(max(0.0, self._remaining_s(_PATIENCE_S)))
            if not outlet.ended and outlet.error is None:
                outlet.error = SinkError("The sink did not finish in time", where=outlet.name)
        if self._capture.ident is not None:
            self._capture.join(_CAPTURE_S)

    def totals(self, *, final: bool = False) -> Totals:
        """Return the counts so far."""
        with self._counting:
            latencies = list(self._latencies)
            inferred, written = self._inferred, self._written
        intake = self._intake
        p50, p99 = np.percentile(latencies, (50, 99)).tolist() if latencies else (0.0, 0.0)
        return Totals(
            captured=intake.offered,
            skipped=intake.dropped + (intake.taken - written if final else 0),
            lost=self._lost,
            inferred=inferred,
            written=written,
            seconds=(self._ended_s or time.monotonic()) - self._started_s,
            latency_ms=(p50, p99),
            failed_sinks=tuple(outlet.name for outlet in self._outlets if outlet.error is not None),
            sink_drops={outlet.name: outlet.queue.dropped for outlet in self._outlets if outlet.queue.dropped},
        )

    def raise_error(self) -> None:
        """Raise what went wrong in a thread, if anything did."""
        if self._error is not None:
            raise self._error
        if self._outlets and all(outlet.error is not None for outlet in self._outlets):
            first = self._outlets[0].error
            if len(self._outlets) == 1 and isinstance(first, EdgeunipError):
                raise first
            raise SinkError("Every sink has failed", where=", ".join(o.name for o in self._outlets), why=first)

    def _is_over(self) -> bool:
        """Tell whether all that was taken is written; after a stop, whether it has had its time."""
        if not self._working:
            for outlet in self._outlets:
                outlet.queue.close(discard=self._overdue(_GRACE_S))
            return all(outlet.ended for outlet in self._outlets) or self._overdue(_PATIENCE_S)
        if self._overdue(_GRACE_S):
            for outlet in self._outlets:
                outlet.queue.close(discard=True)
        return self._overdue(_PATIENCE_S)

    def _halt(self) -> None:
        """Take no more frames."""
        if self._stopped_s is None:
            self._stopped_s = time.monotonic()
        self._intake.close(discard=True)
        self._woken.set()

    def _overdue(self, limit_s: float) -> bool:
        return self._stopped_s is not None and self._remaining_s(limit_s) <= 0

    def _remaining_s(self, limit_s: float) -> float:
        return limit_s if self._stopped_s is None else self._stopped_s + limit_s - time.monotonic()

    def _fail(self, error: Exception) -> None:
        """Keep the first error, for the caller's thread to raise."""
        with self._counting:
            self._error = self._error or error
        self._woken.set()

    # The capture thread.

    def _read(self) -> None:
        try:
            before: int | None = None
            for frame in self._camera:
                if before is not None:
                    self._lost += max(0, frame.seq - before - 1)
                before = frame.seq
                self._intake.put(frame)
                if self._intake.closed or (not self._camera.live and self._intake.offered == self._frames):
                    break
        except Exception as error:
            # An owner that closes the camera under a waiting read may fail that read; nobody wanted more by then.
            if not self._intake.closed:
                self._fail(error)
        finally:
            self._intake.close()

    # The workers' threads.

    def _work(self) -> None:
        try:
            while (job := self._take()) is not None:
                self._segment(*job)
        except Exception as error:
            self._fail(error)
            self._intake.close(discard=True)
        finally:
            with self._counting:
                self._working -= 1
            self._woken.set()

    def _take(self) -> tuple[int, int, int, Prepared] | None:
        """Return (place in the order, frames skipped before it, time in ns, the prepared frame) of the next frame."""
        with self._taking:
            self._unordered.acquire()
            frame = self._intake.get()
            if frame is None:
                self._unordered.release()
                return None
            place, taken_ns = self._intake.taken - 1, time.monotonic_ns()
            if self._intake.taken == self._frames:
                self._intake.close(discard=True)
            return place, self._intake.dropped, taken_ns, self._segmenter.prepare(frame)

    def _segment(self, place: int, dropped: int, taken_ns: int, prepared: Prepared) -> None:
        done = None
        try:
            with self._calls:
                logits = self._runtime(prepared.model_picture)
            result = self._segmenter.finish(prepared, logits, dropped=dropped)
            latency = result.age_ms if self._camera.live else (result.done_ns - taken_ns) / 1e6
            done = result, latency
        finally:
            self._emit(place, done)

    def _emit(self, place: int, done: tuple[Result, float] | None) -> None:
        """Hand on this result and those that waited for it; None stands for a frame that failed."""
        with self._emitting:
            self._done[place] = done
            while self._next in self._done:
                ready = self._done.pop(self._next)
                self._next += 1
                self._unordered.release()
                if ready is not None:
                    self._deliver(*ready)

    def _deliver(self, result: Result, latency: float) -> None:
        with self._counting:
            self._inferred += 1
            self._latencies.append(latency)
        delivery = Delivery(result, self._count_written)
        if not self._outlets:
            delivery.written()
        for outlet in self._outlets:
            outlet.queue.put(delivery)

    # The sinks' threads.

    def _count_written(self) -> None:
        with self._counting:
            self._written += 1

    def _outlet_ended(self, outlet: Outlet) -> None:
        if outlet.error is not None and not isinstance(outlet.error, EdgeunipError):
            self._fail(outlet.error)
            self._intake.close(discard=True)
        elif all(other.error is not None for other in self._outlets):
            self._intake.close(discard=True)
        self._woken.set()
