"""A live camera kept alive for weeks: every fault is told, closed in full and opened anew, for ever.

    open() -> reading thread -> [newest frames] -> judged in the consumer's thread -> frames with state and number

The reading thread may be stuck in a read that never returns: the consumer waits for frames with a time limit, never
for the thread, and leaves behind a thread that does not come back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

from typing_extensions import Self

from edgeunip.budget import BUDGET, Budget
from edgeunip.devices.opening import Arrival, Opening, Source
from edgeunip.devices.shutter import Shutter
from edgeunip.devices.tally import Tally
from edgeunip.errors import SourceError
from edgeunip.frame import Frame, State
from edgeunip.health import CameraStatus

# Openings that hang and were left behind; with more, the camera is not opened again until one comes back.
_MOST_LEFT = 4
# Between two reports of nothing but damaged frames.
_DAMAGE_S = 1.0

_WORDS = {
    State.FFC: ("shutter", "The shutter is closed"),
    State.SETTLING: ("shutter", "The picture settles after a correction"),
    State.FROZEN: ("frozen", "The camera repeats one frame"),
    State.DEGRADED: ("damage", "{lost} of the latest 100 frames were lost or damaged"),
}


@dataclass(frozen=True)
class Kind:
    """What a guard must know of a kind of source.

    Attributes:
        silent_shutter: some cameras of this kind send nothing while their shutter is closed, so that silence is borne
            as long as a shutter takes. Others are opened anew as soon as they stall.
        goes_on: its frame numbers count on while it is closed.
    """

    silent_shutter: bool = False
    goes_on: bool = False


class Guarded:
    """A live camera whose iteration ends only when it is closed.

    Every frame carries a state: the camera's own, else what the frames tell (see :mod:`edgeunip.devices.shutter`).
    Of a frozen camera only the first frame that is known to be frozen comes through. Numbers rise strictly over all
    openings; what was lost leaves a gap, and so does a frame the consumer was too slow for.

    Attributes:
        name: what it is, for people; without credentials.
        rate_hz: frames a second: as the camera says, else as measured.
        status: how the camera does.
        dropped: frames given up because the consumer was too slow, or that were frozen.

    Args:
        open: returns the camera, not entered; called in the reading thread, for each opening.
        name: see above.
        kind: the kind of source.
        budget: the time limits.
        on_status: told each change of the status, in the consumer's thread.
    """

    live = True

    def __init__(
        self,
        open: Callable[[], Source],
        *,
        name: str,
        kind: Kind = Kind(),
        budget: Budget = BUDGET,
        on_status: Callable[[CameraStatus], None] = lambda status: None,
    ) -> None:
        self.name, self.status = name, CameraStatus()
        self.rate_hz: float | None = None
        self.dropped = 0
        self._open, self._kind, self._budget, self._on_status = open, kind, budget, on_status
        self._changed = threading.Condition()
        self._closed = True
        self._opening: Opening | None = None
        self._left: list[Opening] = []

    def __enter__(self) -> Self:
        """Begin. A camera that is absent is waited for while iterating; nothing is raised here."""
        self._closed = False
        self._faults: dict[str, int] = {}
        self._failures = 0
        self._shutter, self._tally = Shutter(self._budget), Tally(goes_on=self._kind.goes_on)
        self._told_s = 0.0
        self._tell(State.OFFLINE, "starting", "")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration, from any thread, even when the camera hangs. May be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            opening = self._opening
        if opening is not None:
            opening.stop()
            opening.join(self._budget.capture_s)
            self._drop(opening.discard())

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until closed.

        Raises:
            Exception: whatever the camera raises that is no :class:`SourceError`: a fault of the program or of the
                user's options, which no reopening heals.
        """
        while (opening := self._start()) is not None:
            began_s = time.monotonic()
            self._shutter.reopened()
            self._tally.reopened()
            yield from self._watch(opening)
            self._end(opening)
            self._pause(sound=opening.last_s - began_s >= self._budget.retry_s[1])

    # One opening after the other.

    def _start(self) -> Opening | None:
        with self._changed:
            if self._closed:
                return None
            self._opening = opening = Opening(self._open, self.name, self._changed)
            opening.start()
            return opening

    def _end(self, opening: Opening) -> None:
        """Close the camera in full, as long as that takes; leave it behind if it hangs."""
        opening.stop()
        self._wait(lambda: opening.ended, self._budget.patience_s)
        self._drop(opening.discard())
        self._opening = None
        self._left = [one for one in (*self._left, opening) if not one.ended]
        if len(self._left) > _MOST_LEFT:
            self._fault("hang", f"The camera hangs: {len(self._left)} attempts to close it have not come back")
            self._wait(lambda: any(one.ended for one in self._left))

    def _pause(self, *, sound: bool) -> None:
        """Wait before the next opening: not at all after one that lasted, then longer each time."""
        self._failures = 0 if sound else self._failures + 1
        first, longest = self._budget.retry_s
        if self._failures > 0:
            self._wait(lambda: False, min(longest, first * 2 ** min(self._failures - 1, 16)))

    def _wait(self, ready: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Wait until ``ready()`` or closed; tell whether either came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or ready(), limit_s)

    # The frames of one opening.

    def _watch(self, opening: Opening) -> Iterator[Frame]:
        """Yield frames until the camera fails, falls silent or freezes."""
        while (arrival := self._take(opening)) is not None:
            frame = self._judge(opening, arrival)
            if frame is not None:
                yield frame
            if self._shutter.stuck:
                self._count("frozen")
                return

    def _take(self, opening: Opening) -> Arrival | None:
        """Wait for a frame; None once closed or lost."""
        for limit_s, act in self._limits(opening):
            if self._wait(opening.has_news, max(0.0, opening.last_s + limit_s - time.monotonic())):
                return self._news(opening)
            act(limit_s)
        return None

    def _limits(self, opening: Opening) -> list[tuple[float, Callable[[float], None]]]:
        """Return how long to wait for the next frame, and what to do when it does not come."""
        if not opening.frames:
            return [(self._budget.open_s, lambda s: self._fault("timeout", f"The camera gives no frame for {s:.1f} s"))]
        stall_s = self._stall_s(opening)
        if not self._kind.silent_shutter:
            return [(stall_s, self._stalled)]
        lost_s = max(stall_s, self._budget.shutter_s)
        return [
            (stall_s, self._stalled),
            (lost_s, lambda s: self._fault("silence", f"The camera has sent nothing for {s:.1f} s")),
        ]

    def _stall_s(self, opening: Opening) -> float:
        """Return how long after its last frame the camera counts as stalled; with few frames seen, more patiently."""
        measured = opening.measured_hz()
        stated = opening.stated_hz
        self.rate_hz = stated or measured or self.rate_hz
        if measured is None:
            return max(self._budget.stall_s(stated), self._budget.shutter_s)
        return self._budget.stall_s(min(stated or measured, measured))

    def _news(self, opening: Opening) -> Arrival | None:
        with self._changed:
            if self._closed:
                return None
            if opening.arrivals:
                return opening.arrivals.popleft()
        fault = opening.fault
        if not isinstance(fault, SourceError):
            raise fault or RuntimeError("a reading thread ended without a word")
        self._fault(fault.reason, str(fault))
        return None

    def _judge(self, opening: Opening, arrival: Arrival) -> Frame | None:
        """Return the frame as it goes on; None for one that is frozen as those before."""
        frame, first = arrival.frame, arrival.first
        if self.status.state is State.STALE and self._kind.silent_shutter:
            self._shutter.closed(arrival.at_s)
        seq = self._tally.number(frame.seq, skipped=arrival.skipped)
        state = self._shutter.judge(frame, arrival.at_s, sensor=frame.counts.itemsize > 1 or opening.raw)
        if state is State.LIVE and self._tally.degraded:
            state = State.DEGRADED
        known = state is State.FROZEN and self.status.state is State.FROZEN
        self._drop(arrival.skipped + known)
        self._tell_frame(opening, state, first=first)
        return None if known else replace(frame, seq=seq, state=state)

    def _drop(self, frames: int) -> None:
        with self._changed:
            self.dropped += frames

    # What is told.

    def _tell_frame(self, opening: Opening, state: State, *, first: bool) -> None:
        if damaged := opening.new_damage():
            self._count("damage", damaged)
        if state is State.FFC and not self._shutter.settling:
            state = self.status.state if not first else State.LIVE  # A frame sent twice: no news.
        due = self._faults != self.status.faults and time.monotonic() - self._told_s >= _DAMAGE_S
        if first or due or state is not self.status.state:
            reason, message = _WORDS.get(state, ("frame", ""))
            self._tell(state, reason, message.format(lost=self._tally.lost), opened=first)

    def _stalled(self, limit_s: float) -> None:
        self._count("stall")
        self._tell(State.STALE, "stall", f"No frame for {limit_s:.2f} s")

    def _fault(self, reason: str, message: str) -> None:
        self._count(reason)
        self._tell(State.OFFLINE, reason, message)

    def _count(self, reason: str, times: int = 1) -> None:
        self._faults[reason] = self._faults.get(reason, 0) + times

    def _tell(self, state: State, reason: str, message: str, *, opened: bool = False) -> None:
        before, self._told_s = self.status, time.monotonic()
        same = (before.state, before.reason) == (state, reason)
        since_ns = before.since_ns if same and before.since_ns else time.monotonic_ns()
        self.status = CameraStatus(state, reason, message, since_ns, before.opened + opened, dict(self._faults))
        self._on_status(self.status)
