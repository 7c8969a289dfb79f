"""What the guard promises, as checks that the quick tests, the long ones and their negative controls share."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from fake_process import FakeProcess, Watch, watch

from edgeunip.budget import BUDGET, Budget
from edgeunip.devices.fakecam import read_stamp
from edgeunip.devices.guard import Guarded, Kind
from edgeunip.devices.wire import WireCamera
from edgeunip.frame import State

# What a busy machine may add to a time that is measured from outside.
BUSY_S = 0.25


def stall(fake: FakeProcess, seen: Watch, rate: float) -> float:
    """A camera that falls silent is STALE within three periods and the slack of its last frame."""
    seen.more(8)
    fake.say("silent 3")
    told = seen.until(lambda: seen.status.state is State.STALE) and seen.statuses[-1][0]
    late = told - seen.times[-1]
    assert late < 3 / rate + BUDGET.slack_s + BUSY_S, f"stall told after {late:.2f} s"
    assert seen.status.reason == "stall" and seen.status.faults["stall"] == 1
    return late


def correction(fake: FakeProcess, seen: Watch, seconds: float) -> None:
    """A shutter that is closed for so long is FFC, then settles; the camera stays open."""
    seen.until(lambda: seen.status.state is State.LIVE)
    seen.more(3)
    opened, first = seen.status.opened, len(seen.frames)
    fake.say(f"repeat {seconds}")
    seen.until(lambda: seen.status.state is not State.LIVE)
    seen.until(lambda: seen.status.state not in (State.FFC, State.SETTLING))
    assert seen.status.opened == opened and "frozen" not in _new(seen, first), "opened anew in a correction"
    assert _new(seen, first) == {"live", "ffc", "settling"}


def freeze(fake: FakeProcess, seen: Watch, seconds: float) -> None:
    """A sensor that repeats a frame for so long is FROZEN, is opened anew, and comes back."""
    seen.until(lambda: seen.status.state is State.LIVE)
    seen.more(3)
    opened, first = seen.status.opened, len(seen.frames)
    begin = time.monotonic()
    fake.say(f"repeat {seconds}")
    seen.until(lambda: seen.status.opened > opened or time.monotonic() - begin > seconds, seconds + 5)
    assert seen.status.opened > opened, "a freeze was overlooked"
    seen.until(lambda: seen.status.state is State.LIVE, seconds + 5)
    assert _new(seen, first) == {"live", "ffc", "frozen", "settling"}


def restart(fake: FakeProcess, seen: Watch) -> float:
    """Kill the camera, start it again; return how long after it can be reached a frame is there."""
    seen.more(3)
    fake.kill()
    seen.until(lambda: seen.status.state is State.OFFLINE)
    fake.start()
    begin, count = time.monotonic(), len(seen.frames)
    seen.until(lambda: len(seen.frames) > count)
    return time.monotonic() - begin


def accounts(fake: FakeProcess, frames: int, guarded: type[Guarded] = Guarded) -> tuple[float, int]:
    """Every frame sent at full speed comes out or is counted; return frames a second, and how many were dropped."""
    camera = guarded(lambda: WireCamera(str(fake.path)), name="cam", kind=Kind(goes_on=True))
    count, last, begin = 0, -1, time.monotonic()
    with camera:
        for frame in camera:
            assert read_stamp(frame.counts) == frame.seq > last
            count, last = count + 1, frame.seq
            if last == frames - 1:
                break
        seconds = time.monotonic() - begin
        assert count + camera.dropped == frames, f"account: {count} out, {camera.dropped} dropped, {frames} in"
    assert fake.stop() == frames
    assert camera.status.opened == 1 and not camera.status.faults
    return frames / seconds, camera.dropped


def reconnects(fake: FakeProcess, times: int) -> None:
    """As many descriptors and threads after so many reconnects as before."""
    with watch(fake.path, budget=Budget(retry_s=(0.005, 0.01))) as seen:
        seen.more(5)
        before = _resources()
        for _ in range(times):
            opened = seen.status.opened
            fake.say("drop")
            seen.until(lambda opened=opened: seen.status.opened > opened)  # type: ignore[misc]
        seen.more(5)
        seen.until(lambda: _resources() == before, 5)
        assert seen.status.opened == times + 1 and seen.status.faults["end"] == times


def _resources() -> tuple[int, int]:
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()


def _new(seen: Watch, first: int) -> set[Any]:
    return {frame.state.value for frame in seen.frames[first:]}
