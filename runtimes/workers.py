"""Frames to results: several threads that prepare, infer and finish, and the order put right behind them.

A live frame is taken when the model is free, so that it does not grow old waiting for its turn; a file's frame is taken
and prepared while the model still works on the one before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeunip.budget import Budget
from edgeunip.frame import Frame, Result, State
from edgeunip.protocols import Camera, Runtime
from edgeunip.runtimes.analyse import Analyst
from edgeunip.runtimes.gate import Gate
from edgeunip.runtimes.handover import Handover
from edgeunip.runtimes.order import InOrder
from edgeunip.runtimes.segment import Prepared, Segmenter
from edgeunip.runtimes.turns import Turns

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """What turns a frame into a result.

    Attributes:
        runtime: gets up to ``runtime.concurrency`` calls at once.
        turns: at the runtime, which other streams may share.
        segmenter: the bundle's rules.
        gate: tells which frames need no inference; None infers every one.
        analyst: follows regions and rules.
    """

    runtime: Runtime
    turns: Turns
    segmenter: Segmenter
    gate: Gate | None
    analyst: Analyst

    def workers(self, *, live: bool) -> int:
        """Return how many threads serve it: as many as calls, of a file one more.

        One more prepares the next frame while the model works, which a file's reader gains by. A live mask would only
        come later: finishing one takes a processor from the model at work on the next, whose threads wait for each
        other (benchmarks/live.py: 0.89 to 0.96 of the bare model without the extra thread, 0.84 to 0.94 with it).
        """
        return self.runtime.concurrency + (0 if live else 1)


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


class Workers:
    """The threads that empty a stream's intake.

    A failure ends the worker it happens in, and no frame is taken any more.
    """

    def __init__(
        self,
        camera: Camera,
        model: Model,
        intake: Handover[Frame],
        *,
        frames: int | None,
        budget: Budget,
        on_result: Callable[[Result], None],
        on_failure: Callable[[Exception], None],
        on_end: Callable[[], None],
    ) -> None:
        """Prepare the threads.

        Args:
            camera: whose frames they are.
            model: what they go through.
            intake: where the frames are taken from; closed after a failure.
            frames: take no more than so many; None: all.
            budget: the time limits.
            on_result: called with each complete result, in frame order, one call at a time.
            on_failure: called with what ends a thread before its time.
            on_end: called by each thread once it counts as ended.
        """
        self._camera, self._model, self._intake, self._frames, self._budget = camera, model, intake, frames, budget
        self._on_result, self._on_failure, self._on_end = on_result, on_failure, on_end
        self._working = workers = model.workers(live=camera.live)
        self._unordered = threading.BoundedSemaphore(2 * workers)
        self._taking, self._counting = threading.Lock(), threading.Lock()
        self._order = InOrder(self._complete)
        self._held: NDArray[np.uint8] | None = None  # the newest class map that was inferred
        self._shape: tuple[int, ...] | None = None  # of the newest frame that was sent to the runtime
        self._calls: dict[int, float] = {}  # of the runtime, by the frame's place: when they began
        self._call_s = 0.0  # how long a call takes, of late

    def start(self) -> None:
        """Start the threads."""
        for index in range(self._working):
            threading.Thread(target=self._work, name=f"inference {index}", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether every thread has ended."""
        return not self._working

    def hangs(self) -> bool:
        """Tell whether a call of the runtime does not come back."""
        with self._counting:
            oldest = min(self._calls.values(), default=None)
        return oldest is not None and time.monotonic() - oldest > self._budget.inference_s

    def _work(self) -> None:
        try:
            while self._segment_one():
                pass
        except Exception as error:
            self._on_failure(error)
            self._intake.close(discard=True)
        finally:
            with self._counting:
                self._working -= 1
            self._on_end()

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
            return _Job(place, dropped, taken_ns, prepared, self._holds(frame))

    def _holds(self, frame: Frame) -> bool:
        """Tell whether a frame keeps the last class map: its camera shows no scene, or nothing moved in it."""
        gate = self._model.gate
        blind = frame.state.blind
        still = not blind and gate is not None and gate.is_still(frame)
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
        """Complete a result, in frame order, and pass it on."""
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
        self._on_result(model.analyst.follow(self._named(result)))

    def _named(self, result: Result) -> Result:
        """Say whose result it is, and whether it comes too late to be called live."""
        frame = result.frame
        # A slow model is no fault: its frames are as old as one call, and one that was waited for.
        limit_s = self._budget.stall_s(self._camera.rate_hz) + 2 * self._call_s
        late = self._camera.live and result.age_ms > 1e3 * limit_s
        if late and frame.state is State.LIVE:
            frame = replace(frame, state=State.STALE)
        return replace(result, frame=frame, camera=self._camera.name)
