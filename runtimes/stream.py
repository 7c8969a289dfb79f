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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip.budget import BUDGET, Budget
from edgeunip.bundle import Manifest
from edgeunip.errors import EdgeunipError, SinkError, UsageError
from edgeunip.frame import Frame, Result, State
from edgeunip.health import Totals
from edgeunip.protocols import Camera, Runtime
from edgeunip.runtimes.analyse import Analyst
from edgeunip.runtimes.gate import Gate
from edgeunip.runtimes.handover import Handover
from edgeunip.runtimes.order import InOrder
from edgeunip.runtimes.outlet import Outlet, Port
from edgeunip.runtimes.scene import Scene
from edgeunip.runtimes.segment import Prepared, Segmenter
from edgeunip.runtimes.turns import Turns

_REPORT_S = 1.0  # between two reports
_POLL_S = 0.05  # the longest a stop goes unnoticed
_LATENCIES = 4096  # the latest results the percentiles are of
_RECORDED = 64  # frames that may wait for a recorder

Logits = NDArray[np.float32]

# What the camera shows then is no scene: the last class map is held.
_BLIND = (State.FFC, State.FROZEN)


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
    model = _Model(runtime, turns or Turns(runtime.concurrency), segmenter, gate, analyst, watch)
    loop = _Loop(camera, model, sinks, recorders, frames, budget)
    try:
        loop.run(stop or threading.Event(), report or (lambda totals: None))
    finally:
        loop.finish()
    totals = loop.totals(final=True)
    if report is not None:
        report(totals)
    loop.raise_error()
    return totals


@dataclass(frozen=True)
class _Model:
    """What turns a frame into a result."""

    runtime: Runtime
    turns: Turns
    segmenter: Segmenter
    gate: Gate | None
    analyst: Analyst
    watch: Callable[[Result], None] | None


@dataclass(frozen=True)
class _Job:
    """One frame on its way: its place in the order, frames skipped before it, when it was taken, whether it may keep
    the class map of the frame before; and, once segmented, its result."""

    place: int
    dropped: int
    taken_ns: int
    prepared: Prepared
    hold: bool
    result: Result | None = None


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
        model: _Model,
        sinks: Sequence[Port[Result]],
        recorders: Sequence[Port[Frame]],
        frames: int | None,
        budget: Budget,
    ) -> None:
        self._camera, self._model, self._frames, self._budget = camera, model, frames, budget
        # One worker more than calls prepares the next frame, or finishes the last one, meanwhile.
        workers = model.runtime.concurrency + 1
        self._unordered = threading.BoundedSemaphore(2 * workers)
        self._intake: Handover[Frame] = Handover(1 if camera.live else 2 * workers, newest=camera.live)
        self._woken = threading.Event()
        self._taking, self._counting = threading.Lock(), threading.Lock()
        self._order = InOrder(self._complete)
        self._held: NDArray[np.uint8] | None = None  # the newest class map that was inferred
        self._shape: tuple[int, ...] | None = None  # of the newest frame that was sent to the runtime
        self._calls: dict[int, float] = {}  # of the runtime, by the frame's place: when they began
        self._call_s = 0.0  # how long a call takes, of late
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._counts = Totals()
        self._lost = 0
        self._working = workers
        self._error: Exception | None = None
        self._started_s = time.monotonic()
        self._stopped_s: float | None = None
        self._ended_s: float | None = None
        self._capture = threading.Thread(target=self._read, name="capture", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"inference {index}", daemon=True) for index in range(workers)
        ]
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
        for thread in (self._capture, *self._workers):
            thread.start()
        while not self._is_over():
            try:
                self._woken.wait(_POLL_S)
                self._woken.clear()
                if stop.is_set():
                    self._halt()
                if time.monotonic() - reported >= _REPORT_S and not self._hangs():
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
        if not self._working:
            if self._camera.live:
                self._halt()  # from now on a sink has as long as after a stop: nobody waits for one that hangs
            for outlet in self._all:
                outlet.queue.close(discard=self._overdue(self._budget.grace_s))
            return all(outlet.ended for outlet in self._all) or self._overdue(self._budget.patience_s)
        if self._overdue(self._budget.grace_s):
            for outlet in self._all:
                outlet.queue.close(discard=True)
        return self._overdue(self._budget.patience_s)

    def _hangs(self) -> bool:
        """Tell whether a call of the runtime does not come back: then the stream gives no sign of life."""
        with self._counting:
            oldest = min(self._calls.values(), default=None)
        return oldest is not None and time.monotonic() - oldest > self._budget.inference_s

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

    def _work(self) -> None:
        try:
            while self._segment_one():
                pass
        except Exception as error:
            self._fail(error)
            self._intake.close(discard=True)
        finally:
            with self._counting:
                self._working -= 1
            self._woken.set()

    def _segment_one(self) -> bool:
        """Take a frame, infer it and hand its result on; False when there is none left."""
        self._unordered.acquire()
        job, logits = self._infer_newest() if self._camera.live else self._infer_next()
        if job is None:
            self._unordered.release()
            return False
        if logits is None:
            self._hand_on(job.place, job)
            return True
        done = None
        try:
            done = replace(job, result=self._model.segmenter.finish(job.prepared, logits, dropped=job.dropped))
        finally:
            self._hand_on(job.place, done)
        return True

    def _infer_newest(self) -> tuple[_Job | None, Logits | None]:
        """Take a live frame when the model is free, so that it does not grow old waiting for its turn."""
        while True:
            self._intake.wait()
            with self._model.turns:
                job = self._take(wait=False)
                if job is not None:
                    return job, self._infer(job)
            if self._intake.closed:
                return None, None

    def _infer_next(self) -> tuple[_Job | None, Logits | None]:
        """Take and prepare a file's frame while the model still works on the one before."""
        job = self._take(wait=True)
        if job is None:
            return None, None
        with self._model.turns:
            return job, self._infer(job)

    def _take(self, *, wait: bool) -> _Job | None:
        """Return the next frame, prepared in order."""
        with self._taking:
            frame = self._intake.get(wait=wait)
            if frame is None:
                return None
            place, dropped, taken_ns = self._intake.taken - 1, self._intake.dropped, time.monotonic_ns()
            if self._intake.taken == self._frames:
                self._intake.close(discard=True)
            prepared = self._model.segmenter.prepare(frame)
            return _Job(place, dropped, taken_ns, prepared, self._holds(prepared))

    def _holds(self, prepared: Prepared) -> bool:
        """Tell whether a frame keeps the last class map: its camera shows no scene, or nothing moved in it."""
        frame, gate = prepared.frame, self._model.gate
        blind = frame.state in _BLIND
        still = not blind and gate is not None and gate.is_still(frame, prepared.picture)
        if (blind or still) and self._shape == frame.counts.shape:
            return True
        self._shape = frame.counts.shape
        return False

    def _infer(self, job: _Job) -> Logits | None:
        """Return the logits, None for a frame that holds the last class map."""
        if job.hold:
            return None
        with self._counting:
            self._calls[job.place] = time.monotonic()
        try:
            return self._model.runtime(job.prepared.model_picture)
        except Exception:
            self._hand_on(job.place, None)
            raise
        finally:
            with self._counting:
                call_s = time.monotonic() - self._calls.pop(job.place)
                self._call_s = call_s if self._call_s == 0 else 0.9 * self._call_s + 0.1 * call_s

    def _hand_on(self, place: int, job: _Job | None) -> None:
        for _ in range(self._order.put(place, job)):
            self._unordered.release()

    def _complete(self, job: _Job) -> None:
        """Complete a result, in frame order, and give it to every sink."""
        model, result = self._model, job.result
        if result is not None:
            self._held = result.class_map
        elif self._held is None:
            return  # the frame whose class map it was to hold has failed, and ends the stream
        else:
            result = model.segmenter.compose(job.prepared, self._held, dropped=job.dropped, held=True)
        if not self._camera.live:
            # A recording keeps its own time: the result is as old as it took since its frame was read.
            result = replace(result, done_ns=result.frame.t_ns + result.done_ns - job.taken_ns)
        result = model.analyst.follow(self._named(result))
        if model.watch is not None:
            model.watch(result)
        latency = result.age_ms
        with self._counting:
            counts = self._counts
            self._counts = replace(counts, inferred=counts.inferred + 1, held=counts.held + result.held)
            self._latencies.append(latency)
        self._deliver(result)

    def _named(self, result: Result) -> Result:
        """Say whose result it is, and whether it comes too late to be called live."""
        frame = result.frame
        # A slow model is no fault: its frames are as old as one call, and one that was waited for.
        limit_s = self._budget.stall_s(self._camera.rate_hz) + 2 * self._call_s
        late = self._camera.live and result.age_ms > 1e3 * limit_s
        if late and frame.state is State.LIVE:
            frame = replace(frame, state=State.STALE)
        return replace(result, frame=frame, camera=self._camera.name)

    def _deliver(self, result: Result) -> None:
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
