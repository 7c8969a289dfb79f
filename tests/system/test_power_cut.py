"""What was saved is there after a power cut, and of what grows no more than the stated seconds is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import threading
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from live_results import made
from power import KINDS, Disk
from test_bundle import FILES, PLAIN

from edgeunip import bundle, durable, pack, signature, trust
from edgeunip.devices import corrected, profile_files
from edgeunip.devices.correct import Correction
from edgeunip.devices.open import open_camera
from edgeunip.devices.profile import Profile
from edgeunip.errors import EdgeunipError
from edgeunip.frame import State
from edgeunip.runtimes.jsonl import JsonlSink
from edgeunip.runtimes.record import FrameRecorder
from edgeunip.runtimes.spool import Spool

pytestmark = pytest.mark.system


@pytest.fixture(params=KINDS)
def disk(request, tmp_path):
    with Disk(tmp_path, request.param) as disk:
        yield disk


# --- what is saved: the old or the new, whole, and the new once it is said to be saved ---


@pytest.fixture(scope="module")
def made_before(tmp_path_factory):
    """What the writers copy: packed bundles by version, made as they are needed; and a key."""
    folder = tmp_path_factory.mktemp("made")
    signature.new_key(folder / "key")
    return folder


def manifest(version):
    return replace(PLAIN, name=f"night-{version}")


def files(version):
    return {**FILES, "model.xml": b"%d" % version * 3000}


def version_of(manifest):
    return int(manifest.name.removeprefix("night-"))


def packed(folder, version):
    """Return a packed bundle of this version, and its folder."""
    path = folder / f"{version}.bundle"
    if not path.exists():
        pack.pack(bundle.save(path, manifest(version), files(version)).path, folder / f"{version}.edgeunip")
    return folder / f"{version}.edgeunip", path


class Writers:
    """Pairs ``NAME(where, version)`` and ``read_NAME(where)``: one saves a version, one returns which is there."""

    def __init__(self, folder, monkeypatch):
        self._folder, self._monkeypatch = folder, monkeypatch

    def write_bytes(self, where, version):
        durable.write_bytes(where / "file", b"%d\n" % version * 5000)

    def read_write_bytes(self, where):
        (version,) = set((where / "file").read_bytes().splitlines())
        return int(version) if (where / "file").stat().st_size == len(b"%d\n" % int(version)) * 5000 else "half"

    def plain(self, where, version):
        (where / "file").write_bytes(b"%d\n" % version * 5000)

    def renamed(self, where, version):
        (where / "new").write_bytes(b"%d\n" % version * 5000)
        (where / "new").replace(where / "file")

    read_plain = read_renamed = read_write_bytes

    def folder(self, where, version):
        with durable.folder(where / "box") as staging:
            (staging / "inner").mkdir()
            (staging / "inner" / "a").write_text(str(version) * 5000)
            (staging / f"b{version}").write_text(str(version))

    def read_folder(self, where):
        (other,) = (where / "box").glob("b*")
        version = int(other.read_text())
        whole = (where / "box" / "inner" / "a").read_text() == str(version) * 5000 and other.name == f"b{version}"
        return version if whole else "half"

    def link(self, where, version):
        durable.link(f"run-{version}", where / "latest")

    def read_link(self, where):
        return int(str((where / "latest").readlink()).removeprefix("run-"))

    def save(self, where, version):
        bundle.save(where / "night.bundle", manifest(version), files(version))

    def read_save(self, where):
        return version_of(bundle.load(where / "night.bundle").manifest)

    def pack(self, where, version):
        pack.pack(packed(self._folder, version)[1], where / "night.edgeunip")

    def read_pack(self, where):
        return version_of(pack.read(where / "night.edgeunip").manifest)

    def unpack(self, where, version):
        pack.unpack(packed(self._folder, version)[0], where / "night.bundle")

    read_unpack = read_save

    def sign(self, where, version):
        bundle.save(where / "night.bundle", manifest(version), files(version))
        trust.sign(where / "night.bundle", self._folder / "key")

    def read_sign(self, where):
        loaded = bundle.load(where / "night.bundle")
        return version_of(loaded.manifest) if loaded.signature() else "unsigned"

    def correction(self, where, version):
        bad, flat = np.zeros((60, 80), np.bool_), np.full((60, 80), version, np.int16)
        corrected.save(Correction(bad, flat), where / "camera-80x60.png")

    def read_correction(self, where):
        (version,) = set(corrected.load(where / "camera-80x60.png", (60, 80)).flat.ravel())
        return int(version)

    def profile(self, where, version):
        self._monkeypatch.setenv("EDGEUNIP_CAMERAS", str(where / "cameras"))
        profile_files.save(Profile("bench", str(version), usb=("1234:5678",)))

    def read_profile(self, where):
        return int(profile_files.read_all()[0].about)


LASTING = ("write_bytes", "folder", "link", "save", "pack", "unpack", "sign", "correction", "profile")
CONTROLS = ("plain", "renamed")


@pytest.fixture
def writers(made_before, monkeypatch):
    return Writers(made_before, monkeypatch)


def cut_when_saved(disk, write, read, cuts):
    """Save the next version and cut, ``cuts`` times; returns how many saved versions were lost."""
    write(disk.where, 1000)
    disk.restart()
    lost = 0
    for version in range(1001, 1001 + cuts):
        write(disk.where, version)
        disk.cut()
        disk.restart()
        lost += found(read, disk.where) != version
    return lost


def found(read, where):
    """Return what is there: a version, or what keeps it from being read."""
    try:
        return read(where)
    except (OSError, ValueError, EdgeunipError) as error:
        return repr(error)


@pytest.mark.parametrize("name", LASTING)
@pytest.mark.parametrize("cuts", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_what_was_saved_is_there(disk, writers, name, cuts):
    assert cut_when_saved(disk, getattr(writers, name), getattr(writers, f"read_{name}"), cuts) == 0


@pytest.mark.parametrize("name", CONTROLS)
def test_negative_control_without_fsync_it_is_lost(disk, writers, name):
    assert cut_when_saved(disk, getattr(writers, name), getattr(writers, f"read_{name}"), 5) == 5


@pytest.mark.parametrize("name", [name for name in LASTING if name != "sign"])  # which saves twice
@pytest.mark.parametrize("cuts", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_cut_at_any_moment_it_is_the_old_or_the_new(disk, writers, name, cuts):
    write, read = getattr(writers, name), getattr(writers, f"read_{name}")
    versions = itertools.count(1000)
    for seed in range(cuts):
        saved, begun = save_until_cut(disk, write, versions, random.Random(seed).uniform(0.0, 0.05))
        assert found(read, disk.where) in range(saved, begun + 1)
        assert {entry.name for entry in disk.where.rglob(".*")} <= leftovers(disk.where)


def leftovers(where):
    """The names a writer that did not end may leave; the next write to the same name takes them over."""
    return {f".{entry.name}.partial" for entry in where.rglob("*") if not entry.name.startswith(".")}


def save_until_cut(disk, write, versions, seconds):
    """Save version after version, cut after ``seconds``; returns the last that was saved before, and the last begun.

    What is said to be saved after the cut does not count: nobody would hear it, and the kernel may take the fsync of a
    folder for done when there is no disk any more.
    """
    begun = saved = next(versions)
    write(disk.where, saved)
    cut = threading.Event()

    def work():
        nonlocal begun, saved
        with failing(cut):
            for begun in versions:
                write(disk.where, begun)
                saved = begun

    worker = threading.Thread(target=work)
    worker.start()
    time.sleep(seconds)
    cut.set()
    before = saved
    disk.cut()
    worker.join(10)
    disk.restart()
    return before, begun


@contextlib.contextmanager
def failing(cut):
    """Let the block end with an error, once the power is ``cut``."""
    try:
        yield
    except EdgeunipError:
        if not cut.is_set():
            raise


# --- what grows: the last second is lost, or the last two of a recording ---

SYNC_S = 1.0  # of durable.Stream
CLUSTER_S = 0.8  # of a recording, which ends in whole ones
SLACK_S = 0.3  # a period of 20 ms, an fsync, and the machine's other work
RATE_HZ = 50


@dataclass
class Growing:
    """Something that grows in a thread, item by item, until its disk is cut.

    Attributes:
        put: writes an item; close: closes it; read: returns the numbers of the items that a folder holds.
        most_s: how much may be lost.
        times: when each item was written, by ``time.monotonic``.
    """

    put: object
    close: object
    read: object
    most_s: float

    def __post_init__(self):
        self.times = []

    def run(self, cut, items):
        """Write ``items`` of them, or until the power is cut."""
        with failing(cut):
            while len(self.times) < items and not cut.is_set():
                self.put(len(self.times))
                self.times.append(time.monotonic())
                time.sleep(1 / RATE_HZ)

    def lost_s(self, where, cut_s):
        """Return the seconds before the cut of which nothing is there; the items before are all there."""
        numbers = self.read(where)
        assert numbers == list(range(len(numbers))), "whole, in order, without a gap"
        return cut_s - self.times[len(numbers)] if len(numbers) < len(self.times) else 0.0


def item(number):
    one = made(0, height=60, width=80)
    return replace(one, frame=replace(one.frame, seq=number, t_ns=time.monotonic_ns(), state=State.LIVE))


def growing_jsonl(where):
    sink = JsonlSink(where / "out.jsonl", live=True)
    return Growing(lambda number: sink.write(item(number)), sink.close, read_jsonl, SYNC_S)


def read_jsonl(where):
    """Go on with the file as the next run does; then every line of it must be whole."""
    JsonlSink(where / "out.jsonl", live=True).close()
    return [json.loads(line)["seq"] for line in (where / "out.jsonl").read_bytes().splitlines()]


def growing_record(where):
    recorder = FrameRecorder(where / "raw.mkv", live=True)
    return Growing(lambda number: recorder.write(item(number).frame), recorder.close, read_record, SYNC_S + CLUSTER_S)


def read_record(where, name="raw.mkv"):
    with open_camera(str(where / name)) as camera:
        return [frame.seq for frame in camera]


def growing_spool(where):
    spool = Spool(where / "spool")
    return Growing(lambda number: spool.put("alarm", str(number)), spool.close, read_spool, SYNC_S)


def read_spool(where):
    spool = Spool(where / "spool")
    found = [int(message.payload) for message in iter(spool.take, None)]
    spool.close()
    return found


def growing_unsynced(where):
    """The negative control: written straight to the system, never forced onto the disk."""
    stream = durable.Stream(where / "naive", sync_every_s=3600)
    read = lambda where: [int(line) for line in (where / "naive").read_bytes().splitlines()]  # noqa: E731
    return Growing(lambda number: stream.write(b"%d\n" % number), stream.close, read, SYNC_S)


GROWING = {
    "jsonl": growing_jsonl,
    "record": growing_record,
    "spool": growing_spool,
    "unsynced": growing_unsynced,
}


def grow_and_cut(disk, where, seconds, *, items=10**9):
    """Let everything grow, up to some ``items``, and cut after ``seconds``; returns it, and when the cut was."""
    growing = {name: begin(where) for name, begin in GROWING.items()}
    cut = threading.Event()
    threads = [threading.Thread(target=one.run, args=(cut, items)) for one in growing.values()]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    cut_s = time.monotonic()
    cut.set()
    disk.cut()
    for thread in threads:
        thread.join(10)
    for one in growing.values():
        with contextlib.suppress(EdgeunipError):
            one.close()
    disk.restart()
    return growing, cut_s


@pytest.mark.parametrize("cuts", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_of_what_grows_the_last_second_is_lost(disk, cuts, capfd):
    for seed in range(cuts):
        where = disk.where / str(seed)
        growing, cut_s = grow_and_cut(disk, where, random.Random(seed).uniform(2.2, 4.2))
        lost = {name: one.lost_s(where, cut_s) for name, one in growing.items()}
        with capfd.disabled():
            print(disk.kind, seed, {name: round(seconds, 2) for name, seconds in lost.items()})
        assert lost.pop("unsynced") > 2.0
        assert all(seconds <= growing[name].most_s + SLACK_S for name, seconds in lost.items()), lost
    assert "Traceback" not in capfd.readouterr().err


def test_what_was_written_last_gets_there_too(disk):
    """The camera goes away, or the alarms end: nothing more is written that could take the last second along."""
    growing, _ = grow_and_cut(disk, disk.where, 4.0, items=RATE_HZ)
    lost = {name: len(one.times) - len(one.read(disk.where)) for name, one in growing.items()}
    assert (lost["jsonl"], lost["spool"], lost["unsynced"]) == (0, 0, RATE_HZ)
    assert lost["record"] <= CLUSTER_S * RATE_HZ + 1


def test_a_tail_of_zeros_ends_in_whole_lines_and_frames(tmp_path):
    """A file system may know how long a file was, and not what was in it."""
    growing = {name: GROWING[name](tmp_path) for name in ("jsonl", "record", "spool")}
    for one in growing.values():
        one.run(threading.Event(), 100)
    paths = (tmp_path / "out.jsonl", tmp_path / "raw.mkv", *(tmp_path / "spool").glob("*.jsonl"))
    files = {path.relative_to(tmp_path): path.read_bytes() for path in paths}
    for one in growing.values():
        one.close()
    for zeros in (0, 1, 5000, 1_000_000):
        for path, whole in files.items():
            torn = tmp_path / str(zeros) / path
            torn.parent.mkdir(parents=True, exist_ok=True)
            torn.write_bytes(whole[: 3 * len(whole) // 4] + bytes(zeros))
        for name, one in growing.items():
            numbers = one.read(tmp_path / str(zeros))
            assert numbers == list(range(len(numbers))) and 50 < len(numbers) < 80, name
