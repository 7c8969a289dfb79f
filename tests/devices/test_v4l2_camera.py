"""V4L2 cameras on a kernel of ours that fails in every way a real one does. The real one: tests/vivid."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_kernel import METADATA, FakeKernel

from edgeunip.budget import Budget
from edgeunip.devices.profiles import find
from edgeunip.devices.v4l2 import V4l2Camera, abi, faults
from edgeunip.devices.v4l2.identity import Place
from edgeunip.devices.v4l2.reader import Numbering, Reader, capture_ns
from edgeunip.errors import SourceError
from edgeunip.frame import Frame

NODE = "/dev/video7"
QUICK = Budget(open_s=0.3, shutter_s=0.2, slack_s=0.05)
SILENCE_S = QUICK.shutter_s + QUICK.stall_s(25)


def camera(kernel: FakeKernel, profile: str | None = None, **more: object) -> V4l2Camera:
    return V4l2Camera(Place(NODE), profile=find(profile) if profile else None, budget=QUICK, kernel=kernel, **more)


class Feed:
    """Exposes a frame all of whose pixels hold its number, in a thread, until the block ends."""

    def __init__(self, kernel: FakeKernel, period_s: float = 0.02, frames: int = 10**9) -> None:
        self._kernel, self._period_s, self._frames = kernel, period_s, frames
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for _ in range(self._frames):
            if self._stop.wait(self._period_s):
                return
            if self._kernel.streaming:
                self._kernel.expose(np.full((120, 160), self._kernel.sequence, "<u2"))


class Once(FakeKernel):
    """A camera that fills ``first`` buffers as soon as it streams."""

    def __init__(self, first: int = 1, **more: object) -> None:
        super().__init__(**more)
        self._first = first

    def _streamon(self, argument: bytes) -> bytes:
        super()._streamon(argument)
        for number in range(self._first):
            self.expose(np.full((self.height, self.width), number, "<u2") if self.code == "Y16 " else b"")
        return argument


def nothing_left(kernel: FakeKernel) -> bool:
    return kernel.node == -1 and kernel.mapped == 0 and not kernel.streaming


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def test_every_frame_for_a_quick_consumer() -> None:
    kernel, seen = FakeKernel(), []
    with Feed(kernel), camera(kernel, "lepton") as source:
        assert (source.name, source.live, source.raw, source.rate_hz) == (NODE, True, False, 25.0)
        for frame in source:
            seen.append(frame.seq)
            assert frame.counts.shape == (120, 160) and frame.counts.dtype == np.uint16
            assert (frame.counts == frame.seq).all() and 0 <= time.monotonic_ns() - frame.t_ns < 1e9
            if len(seen) == 20:
                break
    assert seen == sorted(set(seen)) and seen[-1] <= 30 and nothing_left(kernel)


def test_a_slow_consumer_gets_the_newest_frame() -> None:
    """Also when every buffer was full, so that the newest of them is old."""
    kernel, seen, ages = FakeKernel(), [], []
    with Feed(kernel, 0.01), camera(kernel) as source:
        for frame in source:
            seen.append(frame.seq)
            ages.append((time.monotonic_ns() - frame.t_ns) / 1e9)
            if len(seen) == 6:
                break
            time.sleep(0.15)
        assert source.skipped > 0
    assert min(np.diff(seen)) >= 5 and np.median(ages) < 0.05
    # The control: read one after the other, the second frame would have been exposed 140 ms before.


def test_drained_frames_are_counted_and_leave_gaps() -> None:
    kernel = Once(3)
    with camera(kernel) as source:
        frame = next(iter(source))
        assert (frame.seq, source.skipped, source.damaged) == (2, 2, 0)
        assert (frame.counts == 2).all()


def test_numbers_of_lost_frames_stay_gaps() -> None:
    kernel = Once(1)
    with camera(kernel) as source:
        frames = iter(source)
        assert next(frames).seq == 0
        kernel.sequence = 5
        kernel.expose(np.full((120, 160), 9, "<u2"))
        assert next(frames).seq == 5


def test_damaged_and_short_buffers_are_counted_and_left_out() -> None:
    kernel = Once(1)
    with camera(kernel) as source:
        frames = iter(source)
        next(frames)
        kernel.expose(flags=abi.FLAG_ERROR)
        kernel.expose(used=38399)
        kernel.expose(np.full((120, 160), 3, "<u2"))
        assert (next(frames).seq, source.damaged) == (3, 2)


def test_nothing_but_damage_is_a_fault_of_its_own() -> None:
    kernel = Once(1)
    with camera(kernel) as source:
        frames = iter(source)
        next(frames)
        kernel.expose(flags=abi.FLAG_ERROR)
        with pytest.raises(SourceError, match=r"only damaged frames: /dev/video7 \(1 in 0\.4 s\)") as caught:
            next(frames)
    assert caught.value.reason == "damage" and nothing_left(kernel)


def test_silence_is_told_after_its_time() -> None:
    kernel = Once(1)
    with camera(kernel) as source:
        frames = iter(source)
        next(frames)
        begin = time.monotonic()
        with pytest.raises(SourceError, match=r"The camera gives no frame: /dev/video7 \(for 0\.4 s\)") as caught:
            next(frames)
        assert SILENCE_S <= time.monotonic() - begin < SILENCE_S + 1
        assert caught.value.reason == "silence" and nothing_left(kernel)


def test_a_camera_that_never_delivers() -> None:
    kernel = FakeKernel()
    begin = time.monotonic()
    with pytest.raises(SourceError, match=r"gives no frame: /dev/video7 \(for 0\.3 s\)"), camera(kernel):
        pass
    assert 0.3 <= time.monotonic() - begin < 1.3 and nothing_left(kernel)


REQUESTS = ["QUERYCAP", "ENUM_FMT", "G_FMT", "S_FMT", "G_PARM", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON"]
NUMBERS = {
    errno.EIO: ("error", "The camera failed"),
    errno.ENODEV: ("missing", "The camera is gone"),
    errno.EBUSY: ("busy", "Another program uses the camera: /dev/video7 .*fuser"),
    errno.EACCES: ("permission", "You may not open the camera: /dev/video7 .*usermod -aG video"),
    errno.EPERM: ("permission", "In a container"),
    errno.ENOSPC: ("bandwidth", "no bandwidth left.*: /dev/video7 .*lower its resolution"),
    errno.EINVAL: ("error", r"The camera failed: /dev/video7 \(Invalid argument\).*dmesg"),
}


# There it is no error: the end of a list, or a driver that knows no rates.
NO_ERROR = {("ENUM_FMT", errno.EINVAL), ("G_PARM", errno.EINVAL)}
CASES = [(name, number) for name in ("open", *REQUESTS) for number in NUMBERS if (name, number) not in NO_ERROR]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_any_call_may_fail_in_any_way(name: str, number: int) -> None:
    """The error is told, and nothing stays behind."""
    kernel = Once(1)
    kernel.fails[0 if name == "open" else getattr(abi, name)] = number
    before = descriptors()
    reason, words = NUMBERS[number]
    with pytest.raises(SourceError, match=words) as caught, camera(kernel) as source:
        list(source)
    assert caught.value.reason == reason and nothing_left(kernel)
    assert descriptors() == before


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENODEV, errno.EIO])
def test_unplugged_in_mid_stream_whatever_the_driver_calls_it(number: int) -> None:
    kernel = Once(1)
    with camera(kernel) as source:
        frames = iter(source)
        next(frames)
        threading.Timer(0.05, kernel.unplug, [number]).start()
        begin = time.monotonic()
        with pytest.raises(SourceError, match="The camera is gone: /dev/video7") as caught:
            next(frames)
        assert time.monotonic() - begin < 0.5 and caught.value.reason == "missing" and nothing_left(kernel)
    with pytest.raises(SourceError, match=r"The camera is not there.*edgeunip cameras") as caught, source:
        pass
    assert caught.value.reason == "missing"
    kernel.plug()
    with source:
        assert next(iter(source)).seq == 0


def test_always_ready_and_never_a_buffer_costs_no_processor() -> None:
    kernel = Once(1)
    reader = Reader(NODE, kernel)
    assert reader.take(1.0) is not None
    kernel.storm = True
    wall, cpu = time.monotonic(), time.thread_time()
    with pytest.raises(SourceError, match="gives no frame"):
        reader.take(1.0)
    assert (time.thread_time() - cpu) / (time.monotonic() - wall) < 0.05 and kernel.calls[abi.DQBUF] < 60


@pytest.mark.parametrize("feeding", [True, False])
def test_closing_from_another_thread_ends_the_iteration(feeding: bool) -> None:
    kernel, got = Once(1), list[Frame]()
    with Feed(kernel, frames=10**9 if feeding else 0):
        source = camera(kernel).__enter__()
        reading = threading.Thread(target=lambda: got.extend(source))
        reading.start()
        time.sleep(0.1)
        begin = time.monotonic()
        source.__exit__(None, None, None)
        reading.join(1.0)
        assert not reading.is_alive() and time.monotonic() - begin < 0.3
    assert got and nothing_left(kernel)


def test_closing_while_the_driver_holds_the_reader() -> None:
    """The closing one does not wait for ever; the reader frees the device when it comes back."""
    held = threading.Event()

    class Stuck(Once):
        def _dqbuf(self, argument: bytes) -> bytes:
            if self.sequence > 1:
                held.wait(5)
            return super()._dqbuf(argument)

    kernel = Stuck(1)
    source = camera(kernel).__enter__()
    reading = threading.Thread(target=lambda: list(source))
    reading.start()
    time.sleep(0.05)
    kernel.expose()
    time.sleep(0.05)
    begin = time.monotonic()
    source.__exit__(None, None, None)
    assert time.monotonic() - begin < 1.0 and not nothing_left(kernel)
    held.set()
    reading.join(1.0)
    assert not reading.is_alive() and nothing_left(kernel)


def test_closed_twice_and_never_opened() -> None:
    kernel = Once(1)
    source = camera(kernel)
    source.__exit__(None, None, None)
    assert list(source) == []
    with source:
        pass
    source.__exit__(None, None, None)
    assert list(source) == [] and nothing_left(kernel)


def test_nothing_is_left_after_300_openings() -> None:
    kernel = Once(1)
    before, threads = len(descriptors()), threading.active_count()
    for number in range(300):
        kernel.fails = {abi.STREAMON: errno.ENOSPC} if number % 3 == 2 else {}
        try:
            with camera(kernel) as source:
                next(iter(source))
        except SourceError as error:
            assert error.reason == "bandwidth"
    assert len(descriptors()) == before and threading.active_count() == threads
    assert nothing_left(kernel) and len(kernel.opened) == 300


@pytest.mark.parametrize(
    ("can", "why"),
    [
        (METADATA, "it is for something else, such as metadata"),
        (abi.CAP_CAPTURE, "its driver does not stream"),
        (abi.CAP_CAPTURE_MPLANE | abi.CAP_STREAMING, "its frames come in several planes"),
    ],
)
def test_a_node_that_gives_no_frames(can: int, why: str) -> None:
    kernel = FakeKernel(can=can)
    with pytest.raises(SourceError, match=rf"captures no video: /dev/video7 \(PureThermal: {why}\)"), camera(kernel):
        pass
    assert nothing_left(kernel)


def test_a_driver_that_gives_another_format_than_it_offers() -> None:
    kernel = FakeKernel(gives="GREY")
    with pytest.raises(SourceError, match="offers Y16 and then gives GREY 160x120: /dev/video7"), camera(kernel):
        pass


def test_a_driver_with_a_single_buffer_or_none() -> None:
    kernel = Once(1, most_buffers=1)
    with camera(kernel) as source:
        frames = iter(source)
        assert next(frames).seq == 0
        kernel.expose()
        assert next(frames).seq == 1
    with pytest.raises(SourceError, match="the driver gives no buffers"), camera(FakeKernel(most_buffers=0)):
        pass


def test_a_camera_that_knows_no_rate() -> None:
    for interval, fails in (((0, 25), {}), ((1, 25), {abi.G_PARM: errno.ENOTTY})):
        kernel = Once(1, interval=interval)
        kernel.fails = fails
        with camera(kernel) as source:
            assert source.rate_hz is None


def test_the_profile_chooses_the_size() -> None:
    kernel = Once(1, sizes=((120, 160), (122, 160)))
    with camera(kernel, "lepton") as source:
        assert next(iter(source)).counts.shape[1] == 160 and kernel.height == 122
    kernel = Once(1, codes=("YUYV",), sizes=((192, 256), (384, 256)))
    with camera(kernel, "tc001") as source:
        frame = next(iter(source))
    assert (frame.counts.shape, frame.counts.dtype) == ((192, 256), np.uint16)


def test_padded_rows_and_big_endian() -> None:
    pixels = np.arange(120 * 160, dtype=">u2").reshape(120, 160)
    rows = np.pad(pixels.view(np.uint8), ((0, 0), (0, 32)))

    class Padded(FakeKernel):
        def _streamon(self, argument: bytes) -> bytes:
            super()._streamon(argument)
            self.expose(rows)
            return argument

    with camera(Padded(codes=("GREY", "Y16-BE"), padding=32)) as source:
        frame = next(iter(source))
    assert np.array_equal(frame.counts, pixels) and frame.counts.dtype == np.uint16


def jpeg(height: int, width: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width), 90, np.uint8))[1].tobytes()


def test_jpeg_frames() -> None:
    kernel = Once(0, codes=("MJPG",))
    threading.Timer(0.05, lambda: kernel.expose(jpeg(120, 160))).start()
    with camera(kernel) as source:
        frames = iter(source)
        assert abs(int(next(frames).counts.max()) - 90) < 3 and not source.raw
        kernel.expose(jpeg(120, 160)[:-9])
        kernel.expose(jpeg(120, 160))
        assert (next(frames).seq, source.damaged) in ((2, 1), (2, 0))
        kernel.expose(jpeg(60, 80))
        with pytest.raises(SourceError, match=r"change from 160x120 to 80x60: /dev/video7 \(at frame 3\)"):
            next(frames)
    assert nothing_left(kernel)


def test_the_camera_comes_back_under_another_number(tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    link = dev / "v4l/by-id/usb-GroupGets_PureThermal_8003-video-index0"
    link.parent.mkdir(parents=True)
    (dev / "video0").touch()
    link.symlink_to("../../video0")
    kernel, place = Once(1), Place(str(dev / "video0"), dev=dev)
    with V4l2Camera(place, budget=QUICK, kernel=kernel):
        pass
    (dev / "video0").unlink()
    link.unlink()
    kernel.unplug()
    with pytest.raises(SourceError, match="not there"), V4l2Camera(place, budget=QUICK, kernel=kernel):
        pass
    (dev / "video0").touch()  # another camera took the number
    (dev / "video3").touch()
    link.symlink_to("../../video3")
    kernel.plug()
    with V4l2Camera(place, budget=QUICK, kernel=kernel) as source:
        next(iter(source))
    assert kernel.opened == [str(link)] * 3 and source.name == str(dev / "video0")


def test_frame_numbers_count_on_over_a_wrap_and_without_help() -> None:
    number = Numbering()
    assert [number(n) for n in (2**32 - 2, 2**32 - 1, 0, 3)] == [0, 1, 2, 5]
    number = Numbering()
    assert [number(n) for n in (0, 0, 0, 7, 2)] == [0, 1, 2, 9, 10]


def test_the_time_of_capture_is_the_drivers_unless_its_clock_is_another() -> None:
    now = 1_000_000_000_000

    def at(stamp_ns: int, flags: int = abi.FLAG_CLOCK_MONOTONIC) -> int:
        return capture_ns(abi.Buffer(0, 0, flags, stamp_ns, 0, 0, 0), now)

    assert at(999_950_000_000) == 999_950_000_000
    assert [at(stamp) for stamp in (1_000_500_000_000, 900_000_000_000, 0)] == [now] * 3
    assert at(999_950_000_000, 0) == at(999_950_000_000, 0x4000) == now


@pytest.mark.parametrize(
    ("number", "words", "reason"),
    [
        (errno.ENOENT, r"is not there: /dev/video7 .*edgeunip cameras", "missing"),
        (errno.ENOTTY, r"not a video device: /dev/video7", "error"),
        (errno.ENXIO, r"The camera is gone: /dev/video7", "missing"),
    ],
)
def test_each_failure_has_its_own_message(number: int, words: str, reason: str) -> None:
    error = faults.failure(OSError(number, os.strerror(number)), NODE)
    assert error.reason == reason
    with pytest.raises(SourceError, match=words):
        raise error


class Counting(FakeKernel):
    """Counts the frames for which no buffer was free."""

    lost = 0

    def expose(self, *data: object, **more: object) -> None:
        self.lost += not self.queued
        super().expose(*data, **more)


def test_frames_in_are_frames_out_and_counted_drops() -> None:
    """Of all that the camera exposed, every frame was given, skipped, damaged, or lost for want of a free buffer."""
    kernel, seen, total = Counting(), list[int](), 6000

    def feed() -> None:
        for number in range(total):
            kernel.expose(flags=abi.FLAG_ERROR if number % 7 == 3 else 0)
            time.sleep(0.01 if number % 500 == 0 else 0.0001)

    reader = Reader(NODE, kernel)
    feeding = threading.Thread(target=feed)
    feeding.start()
    with pytest.raises(SourceError, match=r"gives (no frame|only damaged frames)"):
        while (taken := reader.take(2.0)) is not None:
            seen.append(taken.seq)
            if len(seen) % 20 == 0:
                time.sleep(0.005)
    feeding.join()
    assert len(seen) + reader.skipped + reader.damaged + kernel.lost == total == kernel.sequence
    assert seen == sorted(set(seen)) and min(len(seen), reader.skipped, reader.damaged, kernel.lost) > 0
