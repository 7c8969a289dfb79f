"""What is checked in the virtual machine, at the nodes of the kernel's test driver ``vivid``. Run by run.py."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgeunip.devices.guard import Guarded, Kind
from edgeunip.devices.profile import Profile
from edgeunip.devices.recognise import opener
from edgeunip.devices.v4l2 import V4l2Camera, list_nodes, open_v4l2
from edgeunip.devices.v4l2.identity import Place
from edgeunip.errors import SourceError
from edgeunip.frame import Frame, State
from edgeunip.health import CameraStatus
from edgeunip.thermal import Counts

NODE = "/dev/video0"
LINK = Path("/dev/v4l/by-id/vivid-video-index0")
DRIVER = Path("/sys/bus/platform/drivers/vivid")
SIZE = (180, 320)
# An emulated processor is slow: bounds on times are three times those for a real one.
SLOW = 3
failures = 0


def say(*words: object) -> None:
    print("VIVID", *words, flush=True)


def check(right: bool, *words: object) -> None:
    global failures
    failures += not right
    say("ok    " if right else "FAILED", *words)


def profile(code: str) -> Profile:
    return Profile("vivid", "a test", formats=(code,), sizes=(SIZE,))


def control(name: str, value: int = 1) -> None:
    subprocess.run(["v4l2-ctl", "-d", NODE, "-c", f"{name}={value}"], check=True, stdout=subprocess.DEVNULL)


def take(camera: V4l2Camera, count: int) -> list[Frame]:
    frames = []
    for frame in camera:
        frames.append(frame)
        if len(frames) == count:
            break
    return frames


def lost(frames: list[Frame]) -> int:
    return frames[-1].seq - frames[0].seq + 1 - len(frames)


@contextlib.contextmanager
def fault(reason: str, words: str, about: str) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        check(error.reason == reason and words in str(error), about, "->", error.reason, "|", error)
    else:
        check(False, about, "-> no error")


def nodes() -> None:
    for node in list_nodes():
        codes = " ".join(offer.code.strip() for offer in node.offers)
        sizes = " ".join(f"{size.width}x{size.height}" for size in node.offers[0].sizes)
        say("node  ", node.path, node.card, node.bus, node.identity, codes, sizes, node.offers[0].sizes[0].rates_hz)
        check({"Y16 ", "Y16-BE", "Y12 ", "Y10 ", "GREY", "YUYV"} <= {offer.code for offer in node.offers}, "formats")


def formats() -> None:
    """Every format that is read: its size, its numbers, its times, and the same picture in all of them."""
    control("osd_text_mode", 2)
    pictures: dict[str, Counts] = {}
    for code in ("Y16 ", "Y16-BE", "Y12 ", "Y10 ", "GREY", "YUYV", "UYVY", "NV12", "YU12"):
        with open_v4l2(NODE, profile=profile(code)) as camera:
            frames = take(camera, 20)
            ages = [time.monotonic_ns() - frames[-1].t_ns, *np.diff([frame.t_ns for frame in frames])]
            counts = pictures[code] = frames[-1].counts
            depth = np.uint16 if code.startswith("Y1") else np.uint8
            right = counts.shape == SIZE and counts.dtype == depth and camera.damaged == 0 and min(ages) > 0
            size = sum(frame.counts.nbytes for frame in frames)
            say(f"       {code} {camera.rate_hz} Hz, {size} bytes, {counts.min()}..{counts.max()}", end_age(ages))
            check(right, f"{code}: 20 frames, {lost(frames)} lost, {camera.skipped} skipped")
    check(np.array_equal(pictures["Y16 "], pictures["Y16-BE"]), "Y16 and Y16-BE are equal")
    check(np.array_equal(pictures["Y16 "] >> 8, pictures["GREY"]), "GREY is the high byte of Y16")
    check(np.array_equal(pictures["YUYV"], pictures["UYVY"]), "YUYV and UYVY are equal")
    check(np.array_equal(pictures["NV12"], pictures["YU12"]), "NV12 and YU12 are equal")


def end_age(ages: list[int]) -> str:
    return f"age {ages[0] / 1e6:.1f} ms, periods {min(ages[1:]) / 1e6:.1f}..{max(ages[1:]) / 1e6:.1f} ms"


def gaps() -> None:
    """Half of the buffers are dropped: the numbers say so."""
    control("percentage_of_dropped_buffers", 50)
    with open_v4l2(NODE, profile=profile("Y16 ")) as camera:
        frames = take(camera, 120)
        share = lost(frames) / (lost(frames) + len(frames))
        check(0.35 < share < 0.65, f"of half the buffers dropped, {share:.0%} are missing in the numbers")
    control("percentage_of_dropped_buffers", 0)


def damage() -> None:
    with open_v4l2(NODE, profile=profile("Y16 ")) as camera:
        take(camera, 3)
        control("inject_v4l2_buf_flag_error")
        take(camera, 10)
        check(camera.damaged == 1, f"a damaged buffer is counted: {camera.damaged}")


def injected() -> None:
    for name in ("inject_vidioc_reqbufs_error", "inject_vidioc_qbuf_error", "inject_vidioc_streamon_error"):
        control(name)
        with fault("error", "The camera failed", name), open_v4l2(NODE, profile=profile("Y16 ")):
            pass
    with open_v4l2(NODE, profile=profile("Y16 ")) as camera:
        take(camera, 3)
        begin = time.monotonic()
        with fault("error", "The camera failed", "inject_fatal_streaming_error"):
            control("inject_fatal_streaming_error")
            begin = time.monotonic()
            take(camera, 1000)
        check(time.monotonic() - begin < SLOW, f"told after {time.monotonic() - begin:.2f} s")
    with open_v4l2(NODE, profile=profile("Y16 ")) as camera:
        check(len(take(camera, 5)) == 5, "reopened")


def busy() -> None:
    with open_v4l2(NODE, profile=profile("Y16 ")) as camera:
        with fault("busy", "Another program uses the camera", "a second opening"), open_v4l2(NODE):
            pass
        check(len(take(camera, 5)) == 5, "the first one goes on")


def disconnect() -> None:
    """The driver's own unplug: the node stays, every call fails."""
    with open_v4l2(NODE, profile=profile("Y16 ")) as camera:
        take(camera, 3)
        control("disconnect")
        begin = time.monotonic()
        with fault("missing", "The camera is gone", "disconnect"):
            take(camera, 1000)
        check(time.monotonic() - begin < SLOW, f"told after {time.monotonic() - begin:.2f} s")
    wait_for(lambda: Path(NODE).exists())
    with open_v4l2(NODE, profile=profile("Y16 ")) as camera:
        check(len(take(camera, 5)) == 5, "reopened")


def unplug(times: int) -> None:
    """The driver is taken away while it streams, and comes back; once under another number."""
    LINK.parent.mkdir(parents=True)
    LINK.symlink_to("../../video0")
    place = Place(NODE)
    told_s, back_s, numbers = [], [], []
    for turn in range(times):
        with V4l2Camera(place, profile=profile("Y16 ")) as camera:
            take(camera, 3)
            # An open descriptor keeps the number from being given again.
            kept = os.open(LINK, os.O_RDWR) if turn == 1 else None
            begin = time.monotonic()
            (DRIVER / "unbind").write_text("vivid.0")
            with contextlib.suppress(SourceError) if turn else fault("missing", "The camera is gone", "unbind"):
                take(camera, 1000)
                failures_of_silence()
            told_s.append(time.monotonic() - begin)
        plug()
        begin = time.monotonic()
        with V4l2Camera(place, profile=profile("Y16 ")) as camera:
            take(camera, 1)
        back_s.append(time.monotonic() - begin)
        numbers.append(found()[0])
        if kept is not None:
            os.close(kept)
    check(max(told_s) < SLOW * 1, f"loss told after at most {max(told_s):.2f} s, of {times}")
    check(max(back_s) < SLOW * 2, f"first frame after the node is back: at most {max(back_s):.2f} s")
    check(len(set(numbers)) > 1, f"found again under {sorted(set(numbers))}")


def plug() -> float:
    """Bring the driver back, and the link as udev would set it; return when the node was there."""
    (DRIVER / "bind").write_text("vivid.0")
    wait_for(lambda: bool(found()))
    there_s = time.monotonic()
    LINK.unlink()
    LINK.symlink_to(f"../../{found()[0]}")
    return there_s


def guarded(times: int) -> None:
    """The same under a guard, which opens the camera anew by itself."""
    told: list[tuple[float, CameraStatus]] = []
    told_s, back_s, plugged_s, last = [], [], [], -1
    camera = Guarded(
        opener(f"/dev/{found()[0]}", profile=profile("Y16 ")),
        name="vivid",
        kind=Kind(silent_shutter=True),
        on_status=lambda status: told.append((time.monotonic(), status)),
    )
    with camera:
        frames = iter(camera)
        for _ in range(times):
            for _ in range(3):
                frame = next(frames)
                if frame.seq <= last:
                    check(False, f"number {frame.seq} after {last}")
                last = frame.seq
            unplugged, at = time.monotonic(), len(told)
            (DRIVER / "unbind").write_text("vivid.0")
            later = threading.Timer(0.5, lambda: plugged_s.append(plug()))
            later.start()
            last = next(frame.seq for frame in frames if frame.t_ns > (unplugged + 0.5) * 1e9)
            later.join()
            told_s.append(next(at_s for at_s, status in told[at:] if status.state is State.OFFLINE) - unplugged)
            back_s.append(time.monotonic() - plugged_s[-1])
    reasons = {status.reason for _, status in told}
    check(max(told_s) < SLOW * 1, f"guarded: offline told after at most {max(told_s):.2f} s, of {times}; {reasons}")
    check(max(back_s) < SLOW * 2, f"guarded: live again at most {max(back_s):.2f} s after the node is back")
    check(camera.status.faults.get("missing", 0) >= times, f"guarded: {camera.status}")


def failures_of_silence() -> None:
    check(False, "a camera that is gone still gave frames")


def found() -> list[str]:
    return sorted(
        path.name for path in Path("/sys/class/video4linux").glob("video*") if Path("/dev", path.name).exists()
    )


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not ready() and time.monotonic() < end:
        time.sleep(0.02)


def leaks(times: int) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count("video")

    node = f"/dev/{found()[0]}"
    before = held()
    for _ in range(times):
        with open_v4l2(node, profile=profile("Y16 ")) as camera:
            take(camera, 1)
    check(held() == before, f"descriptors and mappings after {times} openings: {held()}, before: {before}")


def main() -> int:
    begin = time.monotonic()
    say("kernel", os.uname().release, "python", sys.version.split()[0])
    for step in (
        nodes,
        formats,
        gaps,
        damage,
        injected,
        busy,
        disconnect,
        lambda: unplug(10),
        lambda: guarded(10),
        lambda: leaks(40),
    ):
        step()
    say(f"{'failed' if failures else 'passed'} in {time.monotonic() - begin:.0f} s, failures: {failures}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
