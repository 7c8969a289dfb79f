"""The camera-stream loop: capture, inference and every sink at the same time, and no frame unaccounted for.

    camera -> capture thread -> recorders, every frame
                             -> [newest frame | every frame] -> workers -> results in frame order
                             -> analysis -> one queue and one thread a sink

A live camera is never kept waiting: a frame that no worker could take gives way to a newer one, and a result that a
sink could not take gives way too. A file is read no faster than it is written. Several cameras share one runtime:
each has a loop of its own, and the loops take turns at the model.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeunip.budget import BUDGET, Budget
from edgeunip.bundle import Manifest
from edgeunip.errors import EdgeunipError, SinkError, UsageError
from edgeunip.frame import Frame, Result
from edgeunip.health import Totals
from edgeunip.protocols import Camera, Runtime
from edgeunip.runtimes.analyse import Analyst
from edgeunip.runtimes.gate import Gate
from edgeunip.runtimes.handover import Handover
from edgeunip.runtimes.outlet import Outlet, Port
from edgeunip.runtimes.scene import Scene
from edgeunip.runtimes.segment import Segmenter
from edgeunip.runtimes.turns import Turns
from edgeunip.runtimes.workers import Model, Workers

_REPORT_S = 1.0  # between two reports
_POLL_S = 0.05  # the longest a stop goes unnoticed
_LATENCIES = 4096  # the latest results the percentiles are of
_RECORDED = 64  # frames that may wait for a recorder


def stream(
    camera: Camera,
    runtime: Runtime,
    manifest: Manifest,
    sinks: Sequence[Port[Result]],
    *,
    recorders: Sequence[Port[Frame]] = (),
    scene: Scene | None = None,
    watch: Callable[[Result], None] | None = None,
    gate: Gate | None = None,
    turns: Turns | None = None,
    frames: int | None = None,
    stop: threading.Event | None = None,
    report: Callable[[Totals], None] | None = None,
    budget: Budget = BUDGET,
) -> Totals:
    """Segment a camera's frames into sinks until the source ends.

    The sinks are closed here; the camera and the runtime stay open for their owner to close::

        with camera:
            totals = stream(camera, runtime, manifest, [Port.of(sink)])

    Args:
        camera: entered.
        runtime: gets up to ``runtime.concurrency`` calls at once.
        manifest: of the bundle the runtime runs.
        sinks: where each result goes; each is written by one thread of its own. Of a live camera, one that fails is
            opened anew after a while.
        recorders: where every captured frame goes, segmented or not.
        scene: areas of interest and rules; None: regions are found and numbered, and there are no alarms.
        watch: sees each complete result, in frame order.
        gate: skips inference while nothing moves; None infers every frame.
        turns: at the runtime, shared by the streams that share it; None: it is this stream's alone.
        frames: end after as many results.
        stop: ends the stream in order when set, in less than ``budget.stop_s``; so does Ctrl-C.
        report: called about once a second and once at the end, from the caller's thread: also while no frame comes,
            not while the runtime hangs.
        budget: the time limits.

    Raises:
        UsageError: ``frames`` is below 1, or the bundle's AGC needs temperatures the camera does not give.
        SourceError: the camera was lost, or a file is damaged; what it gave until then is written.
        SinkError: every sink has failed for good.
        InferenceError: the runtime failed.
    """
    if frames is not None and frames < 1:
        raise UsageError("The number of frames must be at least 1", where=frames)
    rate_hz = None if camera.live else camera.rate_hz or 0.0
    segmenter, analyst = Segmenter(manifest, rate_hz=rate_hz, scene=scene), Analyst(scene, rate_hz=rate_hz)
    model = Model(runtime, turns or Turns(runtime.concurrency), segmenter, gate, analyst)
    loop = _Loop(camera, model, watch, sinks, recorders, frames, budget)
    try:
        loop.run(stop or threading.Event(), report or (lambda totals: None))
    finally:
        loop.finish()
    totals = loop.totals(final=True)
    if report is not None:
        report(totals)
    loop.raise_error()
    return totals


class _Delivery:
    """One result on its way to every sink; it counts as written once the first sink has taken it."""

    def __init__(self, on_written: Callable[[], None]) -> None:
        self._on_written = on_written
        self._once = threading.Lock()

    def written(self) -> None:
        if self._once.acquire(blocking=False):
            self._on_written()


class _Loop:
    """The threads of one stream and what they share."""

    def __init__(
        self,
        camera: Camera,
        model: Model,
        watch: Callable[[Result], None] | None,
        sinks: Sequence[Port[Result]],
        recorders: Sequence[Port[Frame]],
        frames: int | None,
        budget: Budget,
    ) -> None:
        self._camera, self._watch, self._frames, self._budget = camera, watch, frames, budget
        room = 1 if camera.live else 2 * model.workers(live=False)
        self._intake: Handover[Frame] = Handover(room, newest=camera.live)
        self._woken = threading.Event()
        self._counting = threading.Lock()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._counts = Totals()
        self._lost = 0
        self._error: Exception | None = None
        self._started_s = time.monotonic()
        self._stopped_s: float | None = None
        self._ended_s: float | None = None
        self._capture = threading.Thread(target=self._read, name="capture", daemon=True)
        self._workers = Workers(
            camera,
            model,
            self._intake,
            frames=frames,
            budget=budget,
            on_result=self._take_result,
            on_failure=self._fail,
            on_end=self._woken.set,
        )
        live = camera.live
        self._outlets = [Outlet(port, live=live, on_end=self._outlet_ended, budget=budget) for port in sinks]
        self._recorders = [
            Outlet(port, live=live, on_end=self._recorder_ended, budget=budget, capacity=_RECORDED)
            for port in recorders
        ]
        self._all: list[Outlet[Any]] = [*self._outlets, *self._recorders]

    # The caller's thread.

    def run(self, stop: threading.Event, report: Callable[[Totals], None]) -> None:
        """Run until every frame is through, or stopped."""
        self._started_s = reported = time.monotonic()
        self._capture.start()
        self._workers.start()
        while not self._is_over():
            try:
                self._woken.wait(_POLL_S)
                self._woken.clear()
                if stop.is_set():
                    self._halt()
                if time.monotonic() - reported >= _REPORT_S and not self._workers.hangs():
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
        for outlet in self._all:
            outlet.queue.close(discard=self._overdue(self._budget.grace_s))
        for outlet in self._all:
            outlet.join(max(0.0, self._remaining_s(self._budget.patience_s)))
            if not outlet.ended and outlet.error is None:
                outlet.error = SinkError("The sink did not finish in time", where=outlet.name)
        if self._capture.ident is not None:
            self._capture.join(self._budget.capture_s)

    def totals(self, *, final: bool = False) -> Totals:
        """Return the counts so far."""
        with self._counting:
            counts, latencies = self._counts, list(self._latencies)
        intake = self._intake
        p50, p99 = np.percentile(latencies, (50, 99)).tolist() if latencies else (0.0, 0.0)
        return replace(
            counts,
            captured=intake.offered,
            skipped=intake.dropped + (intake.taken - counts.written if final else 0),
            lost=self._lost,
            seconds=(self._ended_s or time.monotonic()) - self._started_s,
            latency_ms=(p50, p99),
            sinks=tuple(outlet.status for outlet in self._all),
        )

    def raise_error(self) -> None:
        """Raise what went wrong in a thread, if anything did."""
        if self._error is not None:
            raise self._error
        if self._outlets and all(outlet.error is not None for outlet in self._outlets):
            first = self._outlets[0].error
            if len(self._outlets) == 1 and isinstance(first, EdgeunipError):
                raise first
            names = ", ".join(outlet.name for outlet in self._outlets)
            raise SinkError("Every sink has failed", where=names, why=first)

    def _is_over(self) -> bool:
        """Tell whether all that was taken is written; after a stop, whether it has had its time."""
        if self._workers.done:
            if self._camera.live:
                self._halt()  # from now on a sink has as long as after a stop: nobody waits for one that hangs
            for outlet in self._all:
                outlet.queue.close(discard=self._overdue(self._budget.grace_s))
            return all(outlet.ended for outlet in self._all) or self._overdue(self._budget.patience_s)
        if self._overdue(self._budget.grace_s):
            for outlet in self._all:
                outlet.queue.close(discard=True)
        return self._overdue(self._budget.patience_s)

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
                for recorder in self._recorders:
                    if not self._intake.closed:
                        recorder.queue.put((frame, _nothing))
                self._intake.put(frame)
                if self._intake.closed or (not self._camera.live and self._intake.offered == self._frames):
                    break
        except Exception as error:
            # An owner that closes the camera under a waiting read may fail that read; nobody wanted more by then.
            if not self._intake.closed:
                self._fail(error)
        finally:
            self._intake.close()
            for recorder in self._recorders:
                recorder.queue.close()

    # The workers' threads.

    def _take_result(self, result: Result) -> None:
        """Count a result and give it to every sink; they come in frame order."""
        if self._watch is not None:
            self._watch(result)
        with self._counting:
            counts = self._counts
            self._counts = replace(counts, inferred=counts.inferred + 1, held=counts.held + result.held)
            self._latencies.append(result.age_ms)
        delivery = _Delivery(self._count_written)
        if not self._outlets:
            delivery.written()
        for outlet in self._outlets:
            outlet.queue.put((result, delivery.written))

    # The sinks' threads.

    def _count_written(self) -> None:
        with self._counting:
            self._counts = replace(self._counts, written=self._counts.written + 1)

    def _outlet_ended(self, outlet: Outlet[Result]) -> None:
        if outlet.error is not None and not isinstance(outlet.error, EdgeunipError):
            self._fail(outlet.error)
            self._intake.close(discard=True)
        elif all(other.error is not None for other in self._outlets):
            self._intake.close(discard=True)
        self._woken.set()

    def _recorder_ended(self, outlet: Outlet[Frame]) -> None:
        if outlet.error is not None:
            self._fail(outlet.error)
            self._intake.close(discard=True)
        self._woken.set()


def _nothing() -> None:
    """Recorded frames are not counted as written: results are."""
