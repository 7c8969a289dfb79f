"""Sinks under faults: a disk that is full, read-only, slow or failing, and pipes that nobody reads.

What must hold: the camera is never held up, what was acknowledged is on the disk, whole, and every result is counted.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from test_bundle_killed import Stage, serve
from test_durable import needs_strace
from tiny_runtime import CLASSES, MemorySink, frames, tiny_manifest

from edgeunip.budget import Budget
from edgeunip.devices.open import open_camera
from edgeunip.errors import SourceError
from edgeunip.frame import Frame
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.record import open_recorder
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.spec import parse
from edgeunip.runtimes.stream import stream

LIVE = Setting(CLASSES)
BUDGET = Budget(sink_retry_s=(0.05, 0.2), sink_slow_s=0.5)
HERE = Path(__file__).parent


class Punctual:
    """A live camera that gives frame n at n periods after the first, and never waits for anyone."""

    name, live, rate_hz = "punctual", True, 100.0

    def __init__(self, number, period_s=0.01):
        self._number, self._period_s = number, period_s
        self._frame = frames(1)[0]
        self.seq = 0

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return None

    def __iter__(self):
        begun = time.monotonic()
        for seq in range(self._number):
            self.seq = seq
            time.sleep(max(0.0, begun + seq * self._period_s - time.monotonic()))
            noise = np.random.default_rng(seq).integers(0, 500, self._frame.counts.shape, np.uint16)
            yield Frame(self._frame.counts + noise, seq, time.monotonic_ns())
        self.seconds = time.monotonic() - begun


def run(camera, runtime, sinks, recorders, at):
    """Stream, doing ``at[seq]()`` when the camera gets there; returns the totals and all that was told on the way."""
    told = []

    def report(totals):
        told.append((time.monotonic(), {sink.name: sink for sink in totals.sinks}))

    ended = threading.Event()

    def act():
        for seq, what in sorted(at.items()):
            while camera.seq < seq and not ended.wait(0.002):
                pass
            what()

    actor = threading.Thread(target=act)
    actor.start()
    try:
        options = {"recorders": recorders, "report": report, "budget": BUDGET}
        return stream(camera, runtime, tiny_manifest(), sinks, **options), told
    finally:
        ended.set()
        actor.join()


@contextlib.contextmanager
def mounted(path, size):
    """A small disk."""
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]).returncode:
        pytest.skip("a disk can only be mounted as root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def port(opener, text):
    return Port(text, partial(opener, text), opener(text))


def sink_port(text, setting=LIVE):
    return port(lambda text: open_sink(text, setting), text)


def recorder_port(text, setting=LIVE):
    return port(lambda text: open_recorder(parse(text), setting), text)


def closes(status, offered):
    return status.written + status.dropped == offered


def unharmed(totals, memory):
    """The other sink took what it could; on a busy machine it drops some, and counts them."""
    status = next(sink for sink in totals.sinks if sink.name == memory.name)
    return (
        status.running
        and status.written == len(memory.results) > 0.5 * totals.inferred
        and closes(status, totals.inferred)
    )


@pytest.mark.system
@pytest.mark.parametrize("kind", ["record", "jsonl"])
def test_a_full_disk_stops_the_sink_alone_and_it_resumes_when_there_is_room(tmp_path, runtime, kind):
    memory = MemorySink()
    with mounted(tmp_path, "20m") as disk:
        filler = disk / "filler"
        filler.write_bytes(bytes(10_000_000))
        size = "a.mkv" if kind == "record" else "a.jsonl"
        one = (recorder_port if kind == "record" else sink_port)(f"{kind}:{disk}/{size}?free=0")
        fill = threading.Event()

        def fill_up():
            with contextlib.suppress(OSError), (disk / "other").open("wb", buffering=0) as other:
                while not fill.wait(0.001):
                    other.write(bytes(1 << 18))

        camera = Punctual(400)
        acts = {100: fill_up, 250: lambda: (filler.unlink(), (disk / "other").unlink())}
        ports = [Port.of(memory)] + ([] if kind == "record" else [one])
        totals, told = run(camera, runtime, ports, [one] if kind == "record" else [], acts)
        status = next(sink for sink in totals.sinks if sink.name == one.name)
        off = [sinks[one.name].message for _, sinks in told if not sinks[one.name].running]
        files = [path for path in disk.iterdir() if path.stat().st_size]
        if kind == "record":
            back = [frame.seq for path in files for frame in replay(path)]
        else:
            back = [json.loads(line)["seq"] for path in files for line in path.read_text().splitlines()]
    assert camera.seconds == pytest.approx(4.0, rel=0.02) and totals.captured == 400
    assert "No space left on device" in off[0] and status.running and status.failures >= 1
    assert closes(status, 400 if kind == "record" else totals.inferred)
    assert status.dropped > 10 and 50 < status.written <= len(back) + 30 * status.failures
    assert len(set(back)) == len(back) and max(back) >= 390  # resumed, and nothing written twice
    assert unharmed(totals, memory)


@pytest.mark.system
def test_the_reserve_is_kept_by_removing_the_oldest_parts(tmp_path, runtime):
    with mounted(tmp_path, "2m") as disk:
        one = recorder_port(f"record:{disk}/a.mkv?mb=0.2&free=0.8")
        camera, least = Punctual(250), [2e6]

        def look():
            found = os.statvfs(disk)
            least.append(found.f_bavail * found.f_frsize)

        totals, _ = run(camera, runtime, [Port.of(MemorySink())], [one], dict.fromkeys(range(0, 250, 5), look))
        seqs = sorted(frame.seq for path in disk.iterdir() for frame in replay(path))
    assert totals.sinks[-1].running and totals.sinks[-1].failures == 0 and totals.sinks[-1].dropped == 0
    assert min(least) > 0.4e6  # 0.8 MB less what a second brings
    assert seqs == list(range(seqs[0], 250)) and seqs[0] > 50  # the newest, without a gap


@pytest.mark.system
def test_a_disk_that_nearly_fills_up_stops_the_sink_until_there_is_room(tmp_path, runtime):
    with mounted(tmp_path, "2m") as disk:
        filler = disk / "filler"
        one = sink_port(f"jsonl:{disk}/a.jsonl?free=1")
        acts = {50: lambda: filler.write_bytes(bytes(1_400_000)), 250: filler.unlink}
        totals, told = run(Punctual(350), runtime, [one], [], acts)
        seqs = [json.loads(line)["seq"] for path in disk.iterdir() for line in path.read_text().splitlines()]
    off = [sinks[one.name].message for _, sinks in told if not sinks[one.name].running]
    assert "The disk is nearly full" in off[0] and "1 shall be" in off[0]
    assert totals.sinks[0].running and seqs[-1] >= 345 and closes(totals.sinks[0], totals.inferred)


@pytest.mark.system
def test_a_read_only_disk(tmp_path, runtime):
    memory = MemorySink()
    with mounted(tmp_path, "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        text = f"jsonl:{disk}/a.jsonl?free=0"
        one = Port(text, lambda: open_sink(text, LIVE))
        acts = {150: lambda: subprocess.run(["mount", "-o", "remount,rw", disk], check=True)}
        totals, told = run(Punctual(250), runtime, [one, Port.of(memory)], [], acts)
        lines = sum(len(path.read_text().splitlines()) for path in disk.iterdir())
    messages = [sinks[text].message for _, sinks in told if not sinks[text].running]
    assert "Read-only file system" in messages[0]
    assert totals.sinks[0].running and lines == totals.sinks[0].written > 50
    assert unharmed(totals, memory) and closes(totals.sinks[0], totals.inferred)


def test_a_disk_that_hangs_holds_up_nobody(tmp_path, runtime):
    """A FIFO whose reader has stopped: a write that does not return."""
    os.mkfifo(tmp_path / "a.jsonl")
    reader = os.open(tmp_path / "a.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    memory, read = MemorySink(), bytearray()

    def drain():
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(reader, 1 << 16):
                read.extend(chunk)

    one = sink_port(f"jsonl:{tmp_path}/a.jsonl?free=0")
    camera = Punctual(250)
    acts = dict.fromkeys(range(190, 250), drain)
    totals, told = run(camera, runtime, [one, Port.of(memory)], [], acts)
    drain()
    os.close(reader)
    slow = [sinks[one.name].message for _, sinks in told if not sinks[one.name].running]
    assert camera.seconds == pytest.approx(2.5, rel=0.03)
    assert slow[0].startswith("Slow: it has taken nothing for ")
    status = totals.sinks[0]
    assert status.running and status.failures == 0 and status.dropped > 50 and closes(status, totals.inferred)
    assert len([json.loads(line) for line in read.splitlines()]) == status.written
    assert unharmed(totals, memory)


_SLOW_PIPE = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_runtime import *
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.stream import stream
import threading
camera = MemoryCamera(frames(300), live=True, period_s=0.005)
sinks = [Port.of(open_sink("jsonl:-", Setting(CLASSES))), Port.of(MemorySink())]
stop, runtime = threading.Event(), OpenVinoRuntime(tiny_model())
threading.Timer(1.5, stop.set).start()
totals = stream(camera, runtime, tiny_manifest(), sinks, stop=stop)
sys.stderr.write(f"{totals.captured} {totals.inferred} {totals.written} {totals.sinks[0].dropped}")
"""


def test_a_stopped_reader_of_standard_output_lets_the_process_end():
    command = [sys.executable, "-c", _SLOW_PIPE, str(HERE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        error = process.stderr.read().decode()
        assert process.wait(20) == 0, error
        *whole, last = process.stdout.read().split(b"\n")
    captured, inferred, written, dropped = (int(word) for word in error.split())
    assert captured > 50 and written == inferred and dropped > 10
    seqs = [json.loads(line)["seq"] for line in whole]
    assert seqs == sorted(set(seqs)) and len(seqs) > 10
    assert last == b"" or last.startswith(b"{")  # at most one line that the reader did not take


def replay(path):
    """The frames of a recording or video; what was opened and not written holds none."""
    try:
        with open_camera(str(path)) as camera:
            return list(camera)
    except SourceError as error:
        if "holds no frame" in str(error) or "cannot be read" in str(error):
            return []
        raise


# Every call of a sink fails once, one a run. The clock stands, so that the names of the parts are known.
SETUP = f"""
sys.path.insert(0, {str(HERE)!r})
import json, logging, threading, time
from dataclasses import replace
from datetime import datetime
from functools import partial
from edgeunip.budget import Budget
from edgeunip.runtimes import rotate
from edgeunip.runtimes.outlet import Outlet, Port
from edgeunip.runtimes.record import open_recorder
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.spec import parse
from live_results import CLASSES, made
import cv2
cv2.setNumThreads(1)
logging.disable()

class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 21, 12)

rotate.datetime = Clock
one = made(0, height=32, width=40)
budget = Budget(sink_retry_s=(0.001, 0.002))

def item(kind, seq):
    frame = replace(one.frame, seq=seq, t_ns=10**12 + seq * 100_000_000)
    return frame if kind == "record" else replace(one, frame=frame)

def deliver(kind, text, number=48):
    setting = Setting(CLASSES)
    opener = partial(open_recorder, parse(text), setting) if kind == "record" else partial(open_sink, text, setting)
    taken, ended = [], threading.Event()
    outlet = Outlet(Port(text, opener), live=True, on_end=lambda outlet: ended.set(), budget=budget)
    for seq in range(number):
        outlet.queue.put((item(kind, seq), partial(taken.append, seq)))
        while outlet.queue.offered > outlet.status.written + outlet.status.dropped:
            time.sleep(0.0002)
    outlet.queue.close()
    if not ended.wait(20):
        os._exit(3)
    status = outlet.status
    told = dict(taken=taken, offered=outlet.queue.offered, dropped=status.dropped, failures=status.failures)
    (source / "told").write_text(json.dumps(told | dict(written=status.written)))

class Naive:
    name = "naive"
    def __init__(self):
        self.file = open(where / "a.jsonl", "w", 1)
    def write(self, result):
        self.file.write(json.dumps(dict(seq=result.frame.seq)) + "\\n")
    def close(self):
        pass

def deliver_naively():
    global open_sink
    open_sink = lambda text, setting: Naive()
    deliver("jsonl", "naive")
"""
TEXTS = {
    "record": "record:{where}/a.mkv?minutes=0.03&free=0",
    "video": "video:{where}/a.mkv?minutes=0.03&free=0",
    "fragments": "video:{where}/a.mp4?minutes=0.03&free=0",
    "jsonl": "jsonl:{where}/a.jsonl?mb=0.008&free=0",
    "plain": "jsonl:{where}/a.jsonl?free=0",
}
PROGRAMS = {
    name: f"deliver({text.partition(':')[0]!r}, {text!r}.replace('{{where}}', str(where)))"
    for name, text in TEXTS.items()
} | {"naive": "deliver_naively()"}
CALLS = ("openat", "write", "fsync", "ftruncate", "close", "lseek", "newfstatat", "unlink")


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "source").mkdir()
    yield from serve(tmp_path / "source", tmp_path / "where", SETUP, PROGRAMS)


def strike(stage: Stage, name, call, fault, number):
    """Run a program with a fault at the number-th such call on its files; tell whether there was one."""
    for path in stage.where.glob("*"):
        path.unlink()
    stage.where.mkdir(exist_ok=True)
    suffix = {"record": "mkv", "video": "mkv", "fragments": "mp4"}.get(name, "jsonl")
    parts = ["", f"a.{suffix}", f"a-20261121-120000.{suffix}"]
    parts += [f"a-20261121-120000-{index}.{suffix}" for index in range(1, 12)]
    paths = [word for part in parts for word in ("-P", f"{stage.where}/{part}" if part else str(stage.where))]
    trace = stage.source / "trace"
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}"]
    words = ["strace", "-f", "-o", str(trace), *paths, *inject, "-p", stage._ask(name)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as strace:
        assert "attached" in (said := strace.stderr.readline()), said
        code = int(stage._ask("go"))
    assert code == 0, f"{name} ends with {code} after {fault} at {call} {number}"
    return "(INJECTED)" in trace.read_text()


def check(stage: Stage, name):
    """Everything that was acknowledged is there, whole; returns what was told."""
    told = json.loads((stage.source / "told").read_text())
    assert told["offered"] == told["written"] + told["dropped"] and told["written"] == len(told["taken"])
    paths = sorted(stage.where.iterdir())
    if name in ("jsonl", "plain", "naive"):
        texts = [path.read_text() for path in paths]
        assert all(text == "" or text.endswith("\n") for text in texts)
        seqs = [json.loads(line)["seq"] for text in texts for line in text.splitlines()]
        assert set(told["taken"]) <= set(seqs) and len(seqs) == len(set(seqs))
    elif name == "record":
        seqs = [frame.seq for path in paths for frame in replay(path)]
        assert len(seqs) == len(set(seqs))
        assert len(set(told["taken"]) - set(seqs)) <= 10 * told["failures"]  # a second at 10 frames a second
    else:
        assert sum(len(replay(path)) for path in paths) >= told["written"] - 10 * told["failures"]
    return told


def points(stage, name, calls, fault, most=1000):
    for call in calls:
        for number in range(1, most):
            if not strike(stage, name, call, fault, number):
                break
            told = check(stage, name)
            assert told["dropped"] <= 2 and told["failures"] <= 2, (call, number, told)
            yield call, number


@needs_strace
@pytest.mark.parametrize("name", ["record", "jsonl", "fragments"])
def test_a_call_that_fails_once_costs_one_result(stage, name):
    found = list(points(stage, name, ("write", "fsync"), "error=ENOSPC", most=5))
    assert len(found) >= 6


@needs_strace
def test_a_disk_that_stays_broken_is_counted_to_the_end(stage):
    for name in ("record", "jsonl"):
        assert strike(stage, name, "write", "error=EIO", "6+")
        told = check(stage, name)
        assert 3 <= told["written"] < 48 and told["dropped"] > 10 and told["failures"] > 5


@needs_strace
def test_negative_control_a_naive_writer_loses_what_it_acknowledged(stage):
    assert strike(stage, "naive", "write", "error=ENOSPC", 9)
    with pytest.raises(AssertionError):
        check(stage, "naive")


@needs_strace
@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_call_that_fails_once_costs_one_result(stage, name, fault):
    found = list(points(stage, name, CALLS, fault))
    print(f"{name} {fault}: {len(found)} points")
    assert len(found) >= 40
