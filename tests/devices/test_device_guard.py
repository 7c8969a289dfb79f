"""The guard against a fake camera in a process of its own, and against cameras in this one that hang.

The quick forms scale the shutter's time; test_device_guard_long.py has the real one.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import guard_checks as checks
import numpy as np
import pytest
from fake_kernel import FakeKernel
from fake_process import QUICK, FakeProcess, guard, watch
from typing_extensions import Self

from edgeunip.budget import Budget
from edgeunip.devices.guard import Guarded, Kind
from edgeunip.devices.v4l2 import V4l2Camera
from edgeunip.devices.v4l2.identity import Place
from edgeunip.errors import SourceError
from edgeunip.frame import Frame, State


@dataclass(frozen=True)
class Doubled(Budget):
    """The negative control: stalls are told too late."""

    def stall_s(self, rate_hz: float | None) -> float:
        return 2 * super().stall_s(rate_hz)


# The fake camera.


def test_a_stall_is_told_within_three_periods_and_the_slack(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=25) as fake, watch(fake.path) as seen:
        checks.stall(fake, seen, 25)


def test_control_a_stall_told_after_twice_the_time_fails_the_check(tmp_path: Path) -> None:
    with (
        FakeProcess(tmp_path, rate=10) as fake,
        watch(fake.path, budget=Doubled()) as seen,
        pytest.raises(AssertionError, match="stall"),
    ):
        checks.stall(fake, seen, 10)


def test_a_camera_that_hangs_in_a_read_is_told_as_soon(tmp_path: Path) -> None:
    """SIGSTOP: the connection stands, and nothing comes."""
    with FakeProcess(tmp_path, rate=50) as fake, watch(fake.path) as seen:
        seen.more(10)
        fake.signal(signal.SIGSTOP)
        late = seen.until(lambda: seen.status.state is State.STALE)
        assert late < 3 / 50 + 0.5 + checks.BUSY_S and seen.status.reason == "stall"
        fake.signal(signal.SIGCONT)
        seen.more(10)
        assert seen.status.state is State.LIVE


def test_a_correction_never_reopens_the_camera_and_a_freeze_always_does(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=50) as fake, watch(fake.path, budget=QUICK) as seen:
        checks.correction(fake, seen, 2.5 / 3 * QUICK.shutter_s)
        checks.freeze(fake, seen, 2 * QUICK.shutter_s)


def test_control_half_the_bound_reopens_in_a_correction_and_double_the_bound_misses_a_freeze(tmp_path: Path) -> None:
    half = Budget(shutter_s=0.5 * QUICK.shutter_s, settle_s=0.2, slack_s=0.3)
    with (
        FakeProcess(tmp_path, rate=50) as fake,
        watch(fake.path, budget=half) as seen,
        pytest.raises(AssertionError, match="opened anew"),
    ):
        checks.correction(fake, seen, 2.5 / 3 * QUICK.shutter_s)
    double = Budget(shutter_s=2.5 * QUICK.shutter_s, settle_s=0.2, slack_s=0.3)
    with (
        FakeProcess(tmp_path, rate=50) as fake,
        watch(fake.path, budget=double) as seen,
        pytest.raises(AssertionError, match="overlooked"),
    ):
        checks.freeze(fake, seen, 2 * QUICK.shutter_s)


def test_a_correction_the_camera_announces(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=50) as fake, watch(fake.path, budget=QUICK) as seen:
        seen.more(10)
        fake.say("ffc 0.3")
        seen.until(lambda: seen.status.state is State.SETTLING)
        seen.until(lambda: seen.status.state is State.LIVE)
    assert seen.states() == [State.OFFLINE, State.LIVE, State.FFC, State.SETTLING, State.LIVE]
    assert [state for state, _ in itertools.groupby(frame.state for frame in seen.frames)] == seen.states()[1:]


def test_of_a_frozen_camera_one_frame_comes_through_and_it_is_marked(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=50) as fake, watch(fake.path, budget=QUICK) as seen:
        seen.more(10)
        fake.say("repeat 1.5")
        seen.until(lambda: State.FROZEN in seen.states())
        seen.until(lambda: seen.status.state is State.LIVE)
        assert [frame.state for frame in seen.frames].count(State.FROZEN) == 1
        first = next(frame for frame in seen.frames if frame.state is State.FROZEN)
        after = seen.frames[seen.frames.index(first) + 1]
        assert after.state is State.SETTLING and after.seq > first.seq + 1


def test_a_shutter_that_silences_the_camera_is_borne_as_long_as_it_takes(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=50) as fake, watch(fake.path, budget=QUICK, silent_shutter=True) as seen:
        seen.more(10)
        fake.say("silent 0.5")
        seen.until(lambda: seen.status.state is State.STALE)
        seen.until(lambda: seen.status.state is State.LIVE)
        assert seen.status.opened == 1
        assert seen.states() == [State.OFFLINE, State.LIVE, State.STALE, State.SETTLING, State.LIVE]
        fake.say("silent 1.2")
        seen.until(lambda: seen.status.reason == "silence")
        assert seen.status.state is State.OFFLINE and "sent nothing for 0.6 s" in seen.status.message
        seen.until(lambda: seen.status.state is State.LIVE)
        assert seen.status.opened == 2


def test_killed_and_started_again_it_is_back_at_once_and_numbers_go_on(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=50) as fake, watch(fake.path) as seen:
        waits = [checks.restart(fake, seen) for _ in range(2)]
    assert max(waits) < 2.0
    assert all(a < b for a, b in itertools.pairwise(frame.seq for frame in seen.frames))
    assert seen.status.opened == 3 and set(seen.status.faults) == {"end", "refused"}
    offline = [status for _, status in seen.statuses if status.reason == "refused"]
    assert "Nobody serves the camera's socket" in offline[0].message


def test_absent_at_the_start_it_is_waited_for_without_haste(tmp_path: Path) -> None:
    fake = FakeProcess(tmp_path, rate=50)
    with watch(fake.path) as seen:
        spent = time.thread_time()
        seen.until(lambda: seen.status.faults.get("missing", 0) >= 4)
        # 0.1, 0.2, 0.4 s between the first four.
        first, fourth = (seen.statuses[index][0] for index in (1, 4))
        assert 0.65 < fourth - first < 2.0 and seen.status.opened == 0
        assert time.thread_time() - spent < 0.5
        with fake:
            seen.more(5)
            assert seen.status.opened == 1


def test_damage_is_counted_and_much_of_it_degrades(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=100) as fake, watch(fake.path) as seen:
        seen.more(20)
        fake.say("tear 6")
        fake.say("corrupt 3")
        seen.more(5)
        assert {frame.state for frame in seen.frames} == {State.LIVE}
        fake.say("corrupt 5")
        seen.until(lambda: seen.status.state is State.DEGRADED)
        assert seen.status.message.endswith("of the latest 100 frames were lost or damaged")
        assert seen.frames[-1].state is State.DEGRADED
        seen.until(lambda: seen.status.state is State.LIVE)
        assert seen.status.faults == {"damage": 14} and seen.status.opened == 1
    missing = seen.frames[-1].seq - seen.frames[0].seq + 1 - len(seen.frames)
    assert missing == 14 + seen.camera.dropped


def test_a_change_of_size_is_a_clean_new_opening(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=50) as fake, watch(fake.path) as seen:
        seen.more(5)
        fake.say("resize 40 30")
        seen.until(lambda: seen.frames[-1].counts.shape == (30, 40))
        assert seen.status.opened == 2 and seen.status.faults == {"format": 1}
    shapes = [shape for shape, _ in itertools.groupby(frame.counts.shape for frame in seen.frames)]
    assert shapes == [(24, 32), (30, 40)]


def test_every_frame_is_accounted_for_at_full_speed(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, "--frames", "10000", rate=0) as fake:
        checks.accounts(fake, 10_000)


def test_control_a_frame_lost_in_secret_fails_the_account(tmp_path: Path) -> None:
    class Forgetful(Guarded):
        def __iter__(self) -> Iterator[Frame]:
            return (frame for index, frame in enumerate(super().__iter__()) if index != 50)

    with (
        FakeProcess(tmp_path, "--frames", "3000", rate=0) as fake,
        pytest.raises(AssertionError, match="account"),
    ):
        checks.accounts(fake, 3000, guarded=Forgetful)


def test_descriptors_and_threads_are_the_same_after_many_reconnects(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=200) as fake:
        checks.reconnects(fake, 30)


# Cameras in this process.


class Scripted:
    """A camera whose iteration is ``frames(opening)``; with ``hang`` it neither gives frames nor closes."""

    name, live, raw, damaged, skipped = "scripted", True, True, 0, 0

    def __init__(
        self,
        frames: Callable[[], Iterator[Frame]] = lambda: iter(()),
        *,
        rate_hz: float | None = None,
        hang: threading.Event | None = None,
    ) -> None:
        self.rate_hz = rate_hz
        self._frames, self._hang = frames, hang

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hang:
            self._hang.wait()

    def __iter__(self) -> Iterator[Frame]:
        yield from self._frames()
        if self._hang:
            self._hang.wait()


class Late(Scripted):
    """Passes over every other frame, for newer ones had come."""

    def __iter__(self) -> Iterator[Frame]:
        for frame in noisy(60, rate_hz=200):
            self.skipped += 1
            yield replace(frame, seq=2 * frame.seq + 1)
        time.sleep(1.0)


def test_frames_that_were_passed_over_are_counted_and_are_no_damage() -> None:
    with guard(Late) as seen:
        seen.until(lambda: len(seen.frames) >= 60)
    assert {frame.state for frame in seen.frames} == {State.LIVE}
    assert seen.camera.dropped == seen.frames[-1].seq + 1 - len(seen.frames) >= 60


def test_control_the_same_gaps_without_a_word_are_damage() -> None:
    with guard(lambda: Scripted(lambda: (replace(one, seq=2 * one.seq + 1) for one in noisy(60, rate_hz=200)))) as seen:
        seen.until(lambda: len(seen.frames) >= 60)
    assert seen.frames[50].state is State.DEGRADED


def test_a_v4l2_camera_unplugged_and_plugged_in_again() -> None:
    """On a kernel of ours: the node goes with EINVAL, and numbers go on when it is back."""
    kernel, ended = FakeKernel(), threading.Event()

    def feed() -> None:
        while not ended.wait(0.02):
            if kernel.streaming:
                kernel.expose(np.full((120, 160), kernel.sequence, "<u2"))

    feeder = threading.Thread(target=feed)
    feeder.start()
    with guard(
        lambda: V4l2Camera(Place("/dev/video7"), budget=QUICK, kernel=kernel),
        kind=Kind(silent_shutter=True),
        budget=QUICK,
    ) as seen:
        for opened in (1, 2, 3):
            seen.more(10)
            assert (seen.status.opened, seen.status.state) == (opened, State.LIVE)
            kernel.unplug()
            assert seen.until(lambda: seen.status.state is State.OFFLINE) < 1.0
            seen.until(lambda: seen.status.reason == "missing")
            kernel.plug()
            count = len(seen.frames)
            assert seen.until(lambda count=count: len(seen.frames) > count) < 2.0  # type: ignore[misc]
    ended.set()
    feeder.join()
    assert all(a < b for a, b in itertools.pairwise(frame.seq for frame in seen.frames))
    assert set(seen.status.faults) == {"missing"}


def noisy(count: int, *, rate_hz: float = 100.0, dtype: type = np.uint16, fixed: bool = False) -> Iterator[Frame]:
    for seq in range(count):
        yield Frame(np.full((4, 4), 0 if fixed else seq % 200, dtype), seq, time.monotonic_ns())
        time.sleep(1 / rate_hz)


def test_closing_ends_the_iteration_at_once_even_when_the_camera_hangs() -> None:
    hang = threading.Event()
    try:
        with guard(lambda: Scripted(lambda: noisy(5), hang=hang)) as seen:
            seen.more(5)
            begin = time.monotonic()
            seen.camera.close()
            seen._thread.join(1)
            assert time.monotonic() - begin < 0.3 and not seen._thread.is_alive()
    finally:
        hang.set()


def test_cameras_that_hang_are_left_behind_but_not_without_end() -> None:
    hang = threading.Event()
    budget = Budget(slack_s=0.05, shutter_s=0.1, retry_s=(0.01, 0.02), stop_s=0.1)
    opened: list[Scripted] = []

    def one() -> Scripted:
        opened.append(Scripted(lambda: noisy(6), hang=hang))
        return opened[-1]

    before = threading.active_count()
    with guard(one, budget=budget) as seen:
        seen.until(lambda: seen.status.reason == "hang")
        time.sleep(0.3)
        assert len(opened) == 5 and seen.status.state is State.OFFLINE
        assert seen.status.message == "The camera hangs: 5 attempts to close it have not come back"
        hang.set()
        seen.until(lambda: len(opened) > 5)
    seen.until(lambda: threading.active_count() == before)


def test_an_open_that_hangs_is_given_up_in_time() -> None:
    hang = threading.Event()

    def one() -> Scripted:
        hang.wait()
        return Scripted()

    with guard(one, budget=Budget(open_s=0.2, stop_s=0.1)) as seen:
        waited = seen.until(lambda: seen.status.reason == "timeout")
        assert 0.15 < waited < 1.0 and seen.status.message == "The camera gives no frame for 0.2 s"
        hang.set()


def test_a_fault_of_the_program_is_raised_and_not_retried() -> None:
    def one() -> Scripted:
        raise ZeroDivisionError("bug")

    with guard(one) as seen:
        seen.until(lambda: seen.error is not None)
    assert isinstance(seen.error, ZeroDivisionError)


def test_each_fault_is_told_by_its_reason_and_the_status_says_since_when() -> None:
    reasons = iter(["busy", "permission", "bandwidth", "bandwidth"])

    def one() -> Scripted:
        reason = next(reasons, None)
        if reason is None:
            return Scripted(lambda: noisy(1000))
        raise SourceError(f"No: {reason}", where="cam", reason=reason)

    with guard(one, budget=QUICK) as seen:
        seen.until(lambda: seen.status.state is State.LIVE)
    told = [status for _, status in seen.statuses]
    assert [status.reason for status in told] == ["starting", "busy", "permission", "bandwidth", "bandwidth", "frame"]
    assert told[1].message == "No: busy: cam" and told[-1].message == ""
    assert told[-1].faults == {"busy": 1, "permission": 1, "bandwidth": 2} and told[-1].opened == 1
    since = [status.since_ns for status in told]
    assert since[3] == since[4] and since[0] < since[1] < since[2] < since[3] < since[5]


def test_a_rate_that_no_camera_states_is_measured() -> None:
    with guard(lambda: Scripted(lambda: noisy(1000, rate_hz=20))) as seen:
        seen.more(20)
        rate = seen.camera.rate_hz
        assert rate is not None and 12 < rate < 22
    with guard(lambda: Scripted(lambda: noisy(1000), rate_hz=30.0)) as seen:
        seen.more(10)
        assert seen.camera.rate_hz == 30.0


def test_a_camera_slower_than_it_states_is_not_lost_all_the_time() -> None:
    budget = Budget(slack_s=0.02)
    with guard(lambda: Scripted(lambda: noisy(40, rate_hz=10), rate_hz=60.0), budget=budget) as seen:
        seen.more(12)
        assert seen.status.opened == 1 and not seen.status.faults


def test_still_8_bit_video_is_live_and_still_raw_counts_are_not() -> None:
    class Decoded(Scripted):
        raw = False

    def still() -> Iterator[Frame]:
        return noisy(1000, dtype=np.uint8, fixed=True)

    with guard(lambda: Decoded(still), budget=QUICK) as seen:
        seen.more(100)
        assert seen.states() == [State.OFFLINE, State.LIVE] and seen.status.opened == 1
    with guard(lambda: Scripted(still), budget=QUICK) as seen:
        seen.until(lambda: seen.status.faults.get("frozen", 0) > 0)


def test_a_consumer_that_is_late_gets_the_newest_and_it_is_all_counted() -> None:
    camera = Guarded(lambda: Scripted(lambda: noisy(120, rate_hz=400)), name="cam", kind=Kind())
    seen: list[Frame] = []
    with camera:
        for frame in camera:
            seen.append(frame)
            assert frame.state is State.LIVE
            if frame.seq >= 100:
                break
            time.sleep(0.03)
        on_the_way = seen[-1].seq + 1 - len(seen)
        assert on_the_way == camera.dropped > 20
    assert camera.dropped >= on_the_way


def test_a_repeated_frame_here_and_there_is_no_news() -> None:
    """A 9 Hz sensor behind a 27 Hz stream: every frame comes three times."""

    def thrice() -> Iterator[Frame]:
        for seq in range(300):
            yield Frame(np.full((4, 4), seq // 3, np.uint16), seq, time.monotonic_ns())
            time.sleep(0.005)

    with guard(lambda: Scripted(thrice)) as seen:
        seen.more(60)
        assert seen.states() == [State.OFFLINE, State.LIVE] and len(seen.statuses) == 2
        assert [frame.state for frame in seen.frames[:6]] == [State.LIVE, State.FFC, State.FFC] * 2


def test_a_camera_that_fails_after_each_frame_is_not_opened_in_a_busy_loop() -> None:
    with guard(lambda: Scripted(lambda: noisy(1))) as seen:
        time.sleep(1.5)
        assert 4 <= seen.status.opened <= 6


def test_it_can_be_used_again() -> None:
    camera = Guarded(lambda: Scripted(lambda: noisy(100)), name="cam")
    for _ in range(2):
        with camera:
            assert [frame.seq for frame in itertools.islice(camera, 3)] == [0, 1, 2]
    camera.close()
    assert list(camera) == []


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    threads, descriptors = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    deadline = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads and len(list(Path("/proc/self/fd").iterdir())) == descriptors
