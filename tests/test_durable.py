"""A reader sees the old content or the new one, whole: at every system call, killed or failing, and in concurrency."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeunip import durable
from edgeunip.errors import RunError, StorageError

ROOT = Path(durable.__file__).parent.parent
PYTHON = [str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")), "-I", "-S"]
PRELUDE = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
from edgeunip import durable
where = Path(sys.argv[1])
"""

WRITE_BYTES = "durable.write_bytes(where / 'file', b'new' * 1000)"
FOLDER = """
with durable.folder(where / 'box') as staging:
    (staging / 'a').write_bytes(b'new a')
    (staging / 'inner').mkdir()
    (staging / 'inner' / 'b').write_bytes(b'new b')
"""
LINK = "durable.link('new', where / 'latest')"
NAIVE_FILE = "(where / 'file').write_bytes(b'new' * 1000)"
NAIVE_FOLDER = """
import shutil
shutil.rmtree(where / 'box')
(where / 'box' / 'inner').mkdir(parents=True)
(where / 'box' / 'a').write_bytes(b'new a')
(where / 'box' / 'inner' / 'b').write_bytes(b'new b')
"""
NAIVE_LINK = """
(where / 'latest').unlink()
(where / 'latest').symlink_to('new')
"""

SYSCALLS = (
    *("openat", "write", "fsync", "rename", "renameat2", "mkdir", "symlink", "unlink", "unlinkat", "rmdir"),
    *("flock", "ftruncate", "close"),
)


def content(where: Path) -> dict[str, str]:
    """Everything a reader can see, with what the module documents as leftovers apart."""
    seen = {}
    for entry in sorted(where.rglob("*")):
        name = str(entry.relative_to(where))
        if entry.is_symlink():
            seen[name] = f"-> {entry.readlink()}"
        elif entry.is_file():
            seen[name] = entry.read_text()
    return {name: text for name, text in seen.items() if not name.startswith(".")}


def leftovers(where: Path) -> list[str]:
    return sorted(entry.name for entry in where.iterdir() if entry.name.startswith("."))


def old_state(where: Path) -> None:
    (where / "box" / "inner").mkdir(parents=True)
    (where / "file").write_text("old")
    (where / "box" / "a").write_text("old a")
    (where / "box" / "gone").write_text("old gone")
    (where / "box" / "inner" / "b").write_text("old b")
    (where / "latest").symlink_to("old")


OLD = {"file": "old", "box/a": "old a", "box/gone": "old gone", "box/inner/b": "old b", "latest": "-> old"}
NEW = {
    WRITE_BYTES: {**OLD, "file": "new" * 1000},
    FOLDER: {**{k: v for k, v in OLD.items() if k != "box/gone"}, "box/a": "new a", "box/inner/b": "new b"},
    LINK: {**OLD, "latest": "-> new"},
}


def strace_works() -> bool:
    command = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=rename:error=EIO", "true"]
    return shutil.which("strace") is not None and subprocess.run(command, capture_output=True).returncode == 0


needs_strace = pytest.mark.skipif(not strace_works(), reason="strace is absent or may not trace here")


def run_with_fault(program: str, where: Path, syscall: str, fault: str, number: int) -> tuple[int, bool]:
    """Run the program with a fault at the number-th such call on our paths; returns (exit code, whether it struck)."""
    trace = where.with_suffix(".trace")
    names = ["", "file", ".file.partial", "latest", ".latest.partial"]
    for box in ("box", ".box.partial", ".box.old"):
        names += [box, *(f"{box}/{name}" for name in ("a", "gone", "inner", "inner/b"))]
    paths = [part for name in names for part in ("-P", str(where / name))]
    inject = [f"trace={syscall}", "-e", f"inject={syscall}:{fault}:when={number}"]
    command = ["strace", "-qq", "-o", trace, *paths, "-e", *inject, *PYTHON, "-c", PRELUDE + program, where]
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=60)
    text = trace.read_text()
    return done.returncode, "INJECTED" in text or "killed by SIGKILL" in text


def sweep(program: str, tmp_path: Path, fault: str, syscalls: tuple[str, ...]) -> Iterator[tuple[Path, str, int]]:
    """Strike every call of every kind once, one a run; yields (folder, point, exit code) of each run.

    One kind at a time: strace counts each kind of call on its own, so one sweep over all kinds would skip points.
    """
    for syscall in syscalls:
        for number in range(1, 100):
            where = tmp_path / f"{syscall}{number}"
            old_state(where)
            code, struck = run_with_fault(program, where, syscall, fault, number)
            if not struck:
                assert code == 0, f"{syscall} fails without a fault"
                break
            yield where, f"{fault} at {syscall} {number}", code


def broken_points(
    program: str, tmp_path: Path, fault: str, syscalls: tuple[str, ...], new: dict[str, str]
) -> list[str]:
    return [point for where, point, _ in sweep(program, tmp_path, fault, syscalls) if content(where) not in (OLD, new)]


SHORT = ("openat", "write", "fsync", "rename", "renameat2", "symlink")


@needs_strace
@pytest.mark.parametrize("program", [WRITE_BYTES, LINK, FOLDER], ids=["write_bytes", "link", "folder"])
def test_killed_at_the_calls_that_matter_old_or_new(program: str, tmp_path: Path) -> None:
    points = []
    for where, point, code in sweep(program, tmp_path, "signal=KILL", ("write", "fsync", "rename", "renameat2")):
        points.append(point)
        assert code == -signal.SIGKILL, point
        assert content(where) in (OLD, NEW[program]), point
        assert set(leftovers(where)) <= {".file.partial", ".box.partial", ".latest.partial"}, point
    assert len(points) >= {WRITE_BYTES: 4, LINK: 2, FOLDER: 8}[program], points


@needs_strace
def test_no_space_at_any_write_keeps_the_old_and_leaves_nothing(tmp_path: Path) -> None:
    for program in (WRITE_BYTES, FOLDER):
        for where, point, code in sweep(program, tmp_path / str(len(program)), "error=ENOSPC", ("write",)):
            assert code == 1 and content(where) == OLD and leftovers(where) == [], point


@needs_strace
@pytest.mark.parametrize(("program", "good"), [(NAIVE_FILE, WRITE_BYTES), (NAIVE_FOLDER, FOLDER), (NAIVE_LINK, LINK)])
def test_negative_control_the_sweep_finds_naive_writers(program: str, good: str, tmp_path: Path) -> None:
    calls = ("write", "symlink", "unlinkat", "mkdir")
    assert broken_points(program, tmp_path, "signal=KILL", calls, NEW[good])


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO", "error=ENOSPC"])
@pytest.mark.parametrize("program", [WRITE_BYTES, LINK, FOLDER], ids=["write_bytes", "link", "folder"])
def test_every_call_old_or_new(program: str, fault: str, tmp_path: Path) -> None:
    points = 0
    for where, point, code in sweep(program, tmp_path, fault, SYSCALLS):
        points += 1
        seen = content(where)
        assert seen in (OLD, NEW[program]), point
        assert set(leftovers(where)) <= {".file.partial", ".box.partial", ".latest.partial"}, point
        if code == 0:
            assert seen == NEW[program], f"{point}: success was told, but the old content is there"
        if fault != "signal=KILL" and any(name in point for name in ("write", "fsync", "rename", "mkdir", "symlink")):
            assert code == 1 and (seen == NEW[program] or leftovers(where) == []), point
        done = subprocess.run([*PYTHON, "-c", PRELUDE + program, where], capture_output=True, text=True)
        assert done.returncode == 0, f"after {point}: {done.stderr}"
        assert content(where) == NEW[program] and leftovers(where) == [], f"a next write after {point}"
    assert points >= {WRITE_BYTES: 8, LINK: 5, FOLDER: 30}[program]


@needs_strace
def test_where_folders_cannot_be_swapped_two_renames_do_and_a_killed_one_is_put_back(tmp_path: Path) -> None:
    inject = ["-e", "inject=renameat2:error=EINVAL"]
    for number, expected in [(1, OLD), (2, None), (3, NEW[FOLDER])]:
        where = tmp_path / str(number)
        old_state(where)
        # -P ours only, so that no rename of the interpreter's own counts.
        trace = ["strace", "-qq", "-o", "/dev/null", "-P", f"{where}/.box.partial", "-P", f"{where}/box"]
        kill = ["-e", f"inject=rename:signal=KILL:when={number}"]
        command = [*trace, "-e", "trace=rename,renameat2", *inject, *kill, *PYTHON, "-c", PRELUDE + FOLDER, where]
        code = subprocess.run(command, capture_output=True).returncode
        assert code == (0 if number == 3 else -signal.SIGKILL)
        if expected is not None:
            assert content(where) == expected
            continue
        assert not (where / "box").exists() and (where / ".box.old" / "a").read_text() == "old a"
        with pytest.raises(RuntimeError), durable.folder(where / "box"):
            assert (where / "box" / "a").read_text() == "old a"  # put back before anything else
            raise RuntimeError
        assert content(where) == OLD and leftovers(where) == []


# --- in process ---


def test_write_creates_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    durable.write_json(path, {"x": [1, 2.5], "ü": None})
    assert path.read_text() == '{\n "x": [\n  1,\n  2.5\n ],\n "\\u00fc": null\n}\n'
    durable.write_text(path, "Wärme")
    assert path.read_bytes() == "Wärme".encode() and list(path.parent.iterdir()) == [path]
    durable.write_bytes(path, b"")
    assert path.read_bytes() == b""


def test_json_refuses_nan_and_keeps_the_old(tmp_path: Path) -> None:
    durable.write_text(tmp_path / "f", "old")
    with pytest.raises(ValueError, match="Out of range float"):
        durable.write_json(tmp_path / "f", {"x": float("nan")})
    assert (tmp_path / "f").read_text() == "old" and leftovers(tmp_path) == []


def test_a_longer_partial_of_a_killed_writer_leaves_no_tail(tmp_path: Path) -> None:
    (tmp_path / ".f.partial").write_bytes(b"x" * 10_000)
    durable.write_bytes(tmp_path / "f", b"short")
    assert (tmp_path / "f").read_bytes() == b"short" and leftovers(tmp_path) == []


def test_a_link_in_place_of_the_partial_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".f.partial").symlink_to("victim")
    with pytest.raises(StorageError, match=r"^Cannot write: .*f \("):
        durable.write_bytes(tmp_path / "f", b"x")
    assert (tmp_path / "victim").read_text() == "precious"


def test_errors_say_what_and_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^Cannot write: .*/file/below/x \((File exists|Not a directory)\)"):
        durable.write_bytes(tmp_path / "file" / "below" / "x", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=r"^Cannot write: .*/folder \(Is a directory\)"):
        durable.write_bytes(tmp_path / "folder", b"")
    with pytest.raises(StorageError, match=r"/folder \(Is a directory\)"):
        durable.link("file", tmp_path / "folder")
    with pytest.raises(StorageError, match=r"\(File name too long\)"):
        durable.write_bytes(tmp_path / ("n" * 250), b"")
    assert leftovers(tmp_path) == []


def test_link_replaces_a_link_and_makes_its_folder(tmp_path: Path) -> None:
    durable.link("one", tmp_path / "runs" / "latest")
    durable.link("two", tmp_path / "runs" / "latest")
    assert (tmp_path / "runs" / "latest").readlink() == Path("two")
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["latest"]


def test_two_writers_of_one_file_the_second_refuses(tmp_path: Path) -> None:
    with (tmp_path / ".f.partial").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StorageError, match=r"^Another process is writing the same file: .*\. Wait for it"):
            durable.write_bytes(tmp_path / "f", b"second")
    durable.write_bytes(tmp_path / "f", b"second")
    assert (tmp_path / "f").read_bytes() == b"second"


def test_a_partial_put_in_place_between_open_and_lock_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slow writer opened the fast one's temporary file, which has become the lasting file when the lock is free."""
    (tmp_path / ".f.partial").write_bytes(b"of the fast writer")
    flock = fcntl.flock

    def fast_writer_finishes_first(descriptor: int, operation: int) -> None:
        if (tmp_path / ".f.partial").exists():
            (tmp_path / ".f.partial").rename(tmp_path / "f")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", fast_writer_finishes_first)
    with pytest.raises(StorageError, match="Another process is writing"):
        durable.write_bytes(tmp_path / "f", b"of the slow writer")
    assert (tmp_path / "f").read_bytes() == b"of the fast writer"


HAMMER = """
from edgeunip.errors import StorageError
import os
for turn in range(40):
    try:
        if sys.argv[2] == 'file':
            durable.write_bytes(where / 'f', (b'%08d' % os.getpid()) * 2000)
        else:
            with durable.folder(where / 'f') as staging:
                for name in 'abc':
                    (staging / name).write_text(str(os.getpid()))
    except StorageError as error:
        assert 'Another process' in str(error), error
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_writers_at_the_same_time_never_mix(kind: str, tmp_path: Path) -> None:
    command = [*PYTHON, "-c", PRELUDE + HAMMER, str(tmp_path), kind]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    looks = 0
    while any(writer.poll() is None for writer in writers):
        if not (tmp_path / "f").exists():
            continue
        if kind == "file":
            data = (tmp_path / "f").read_bytes()
            assert len(data) == 16000 and data == data[:8] * 2000
            looks += 1
        else:
            handle = os.open(tmp_path / "f", os.O_RDONLY)
            with contextlib.suppress(FileNotFoundError):  # the old folder, swapped out while we look, loses its files
                seen = {name: _read_at(handle, name) for name in "abc"}
                assert len(set(seen.values())) == 1
                looks += 1
            os.close(handle)
    for writer in writers:
        assert writer.wait() == 0, writer.communicate()[1]
        assert writer.stderr is not None
        writer.stderr.close()
    assert looks > 0 and leftovers(tmp_path) == []


def _read_at(folder: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY, dir_fd=folder)
    with os.fdopen(file, "rb") as opened:
        return opened.read()


def test_folder_is_all_or_nothing(tmp_path: Path) -> None:
    box = tmp_path / "deep" / "box"
    with durable.folder(box) as staging:
        assert not box.exists() and list(staging.iterdir()) == []
        (staging / "a").write_text("1")
        (staging / "dangling").symlink_to("nowhere")
    assert (box / "a").read_text() == "1" and (box / "dangling").is_symlink()
    with pytest.raises(KeyboardInterrupt), durable.folder(box) as staging:
        (staging / "a").write_text("2")
        raise KeyboardInterrupt
    assert (box / "a").read_text() == "1" and leftovers(box.parent) == []
    with pytest.raises(StorageError, match=r"^Cannot write: .*box \(No such file"), durable.folder(box) as staging:
        (staging / "no" / "such").write_text("")
    assert leftovers(box.parent) == []


@pytest.mark.parametrize("there", ["file", "link", "dangling"])
def test_folder_replaces_whatever_has_the_name(there: str, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").write_text("kept")
    if there == "file":
        (tmp_path / "box").write_text("")
    else:
        (tmp_path / "box").symlink_to("target" if there == "link" else "nowhere")
    with durable.folder(tmp_path / "box") as staging:
        (staging / "a").write_text("new")
    assert not (tmp_path / "box").is_symlink() and (tmp_path / "box" / "a").read_text() == "new"
    assert (tmp_path / "target" / "kept").read_text() == "kept" and leftovers(tmp_path) == []


def test_folder_takes_over_what_a_killed_writer_left(tmp_path: Path) -> None:
    (tmp_path / ".box.partial" / "inner").mkdir(parents=True)
    (tmp_path / ".box.partial" / "inner" / "old").write_text("")
    with durable.folder(tmp_path / "box") as staging:
        assert list(staging.iterdir()) == []
    assert list(tmp_path.rglob("*")) == [tmp_path / "box"]


def test_two_writers_of_one_folder_the_second_refuses(tmp_path: Path) -> None:
    with durable.folder(tmp_path / "box") as staging:
        (staging / "a").write_text("first")
        with pytest.raises(StorageError, match="Another process"), durable.folder(tmp_path / "box"):
            pytest.fail("two writers at a time")
        assert (staging / "a").read_text() == "first"
    assert (tmp_path / "box" / "a").read_text() == "first" and leftovers(tmp_path) == []


def test_nested_writers_work_inside_a_folder(tmp_path: Path) -> None:
    with durable.folder(tmp_path / "box") as staging:
        durable.write_text(staging / "a", "1")
        durable.link("a", staging / "b")
        with durable.folder(staging / "c") as inner:
            durable.write_text(inner / "d", "2")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "box",
        "box/a",
        "box/b",
        "box/c",
        "box/c/d",
    ]


# --- a full disk, for real ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """Runs a program with a 256 KiB tmpfs mounted at its folder, in a mount name space of its own."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this user may not unshare a mount name space")

    def run(program: str) -> subprocess.CompletedProcess[str]:
        mount = f'mount -t tmpfs -o size=256k tmpfs {tmp_path} && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", mount, "sh", *PYTHON, "-c", PRELUDE + program, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    probe = run("pass")
    if probe.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {probe.stderr.strip()}")
    yield run


FULL = """
from edgeunip.errors import StorageError
durable.write_bytes(where / 'f', b'old' * 100)
with durable.folder(where / 'box') as staging:
    (staging / 'a').write_text('old')
for attempt in range(3):
    try:
        durable.write_bytes(where / 'f', bytes(1 << 20))
        raise SystemExit('written?')
    except StorageError as error:
        print(error)
    try:
        with durable.folder(where / 'box') as staging:
            (staging / 'a').write_bytes(bytes(1 << 20))
        raise SystemExit('written?')
    except StorageError as error:
        print(error)
    stream = durable.Stream(where / 'log', append=True)
    try:
        for turn in range(100):
            stream.write(bytes(1 << 16))
        raise SystemExit('written?')
    except StorageError as error:
        print(error)
    stream.close()
    (where / 'log').unlink()
assert (where / 'f').read_bytes() == b'old' * 100
assert (where / 'box' / 'a').read_text() == 'old'
assert sorted(p.name for p in where.iterdir()) == ['box', 'f'], list(where.iterdir())
"""


def test_full_disk_keeps_the_old_and_says_so(small_disk: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    done = small_disk(FULL)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 9
    for line in lines:
        assert "(No space left on device). Free some space" in line and line.startswith("Cannot write: ")


# --- Stream ---


def test_stream_writes_seeks_and_cuts(tmp_path: Path) -> None:
    with durable.Stream(tmp_path / "new" / "s") as stream:
        assert stream.write(b"hello") == 5 and stream.tell() == 5
        assert stream.write(np.arange(3, dtype="<u2")) == 6
        assert stream.seekable() and stream.writable() and not stream.readable()
        assert stream.seek(0) == 0 and stream.write(memoryview(b"J")) == 1
        assert stream.seek(0, os.SEEK_END) == 11
        assert stream.truncate(5) == 5
        assert (tmp_path / "new" / "s").read_bytes() == b"Jello"  # there before any close
    stream.close()
    with pytest.raises(ValueError, match="is closed"):
        stream.write(b"x")
    with durable.Stream(tmp_path / "new" / "s", append=True) as stream:
        stream.write(b"!")
    assert (tmp_path / "new" / "s").read_bytes() == b"Jello!"


def test_stream_syncs_at_its_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with durable.Stream(tmp_path / "s", sync_every_s=3600) as stream:
        synced.clear()
        stream.write(b"x")
        assert synced == []
    assert len(synced) == 1
    with durable.Stream(tmp_path / "s", sync_every_s=0) as stream:
        synced.clear()
        stream.write(b"x")
        stream.write(b"x")
        assert len(synced) == 2


def test_stream_syncs_what_no_later_write_takes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[float] = []
    threads = threading.active_count()
    with durable.Stream(tmp_path / "s", sync_every_s=0.2) as stream:
        monkeypatch.setattr(os, "fsync", lambda _: synced.append(time.monotonic()))
        begin = time.monotonic()
        stream.write(b"x")
        stream.write(b"x")
        while not synced and time.monotonic() - begin < 5:
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(synced) == 1 and synced[0] - begin >= 0.2
        stream.write(b"x")  # its time is over
        assert len(synced) == 2
        stream.write(b"x")
    assert len(synced) == 3 and threading.active_count() == threads


@pytest.mark.parametrize("call", ["write", "close"])
def test_a_late_sync_that_fails_is_told_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    stream = durable.Stream(tmp_path / "s", sync_every_s=0.05)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        stream.write(b"x")
        deadline = time.monotonic() + 5
        while stream._trouble is None and time.monotonic() < deadline:
            time.sleep(0.01)
    with pytest.raises(StorageError, match=r"s \(Input/output error\)"):
        stream.write(b"x") if call == "write" else stream.close()
    stream.close()
    assert stream.closed and (tmp_path / "s").read_bytes() == b"x"


def test_stream_that_cannot_open_says_so_and_is_closed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=r"^Cannot write: .*folder \(Is a directory\)"):
        durable.Stream(tmp_path / "folder")
    stream = durable.Stream.__new__(durable.Stream)
    with pytest.raises(StorageError):
        stream.__init__(tmp_path / "folder")
    stream.close()
    assert stream.closed


def test_stream_to_a_pipe_needs_no_fsync(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with durable.Stream(tmp_path / "pipe", append=True, sync_every_s=0) as stream:
        stream.write(b"line\n")
    assert os.read(reader, 10) == b"line\n"
    os.close(reader)


def test_fsync_that_fails_is_told_and_the_file_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = durable.Stream(tmp_path / "s")
    handle = stream._open.fileno()

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StorageError, match=r"\(Input/output error\)"):
            stream.close()
    assert stream.closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_bytes_are_there_after_sigkill(tmp_path: Path) -> None:
    program = """
with durable.Stream(where / 's', sync_every_s=3600) as stream:
    for number in range(10**9):
        stream.write(b'%09d\\n' % number)
        print(number, flush=True)
"""
    with subprocess.Popen([*PYTHON, "-c", PRELUDE + program, str(tmp_path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(200)][-1]
        writer.kill()
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
    lines = (tmp_path / "s").read_bytes().splitlines(keepends=True)
    assert acknowledged >= 199 and [int(line) for line in lines] == list(range(len(lines)))
    assert all(len(line) == 10 for line in lines) and len(lines) - 1 in (acknowledged, acknowledged + 1)


# --- exclusive ---


def test_exclusive_across_processes(tmp_path: Path) -> None:
    lock = tmp_path / "run" / "lock"
    program = """
with durable.exclusive(where / 'run' / 'lock', lambda: RuntimeError('busy')):
    print('held', flush=True)
    __import__('time').sleep(60)
"""

    def busy() -> Exception:
        return RunError("The run is being trained by another process", where=lock.parent)

    with subprocess.Popen([*PYTHON, "-c", PRELUDE + program, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(RunError, match="by another process"), durable.exclusive(lock, busy):
            pytest.fail("two holders")
        holder.kill()
    # A killed holder holds nothing; and one process excludes itself.
    with durable.exclusive(lock, busy), pytest.raises(RunError), durable.exclusive(lock, busy):
        pytest.fail("two holders in one process")
    with pytest.raises(ZeroDivisionError), durable.exclusive(lock, busy):
        raise ZeroDivisionError
    with durable.exclusive(lock, busy):
        pass


def test_exclusive_leaks_no_descriptor_and_tells_storage_errors(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (tmp_path / "folder").mkdir()
    for _ in range(20):
        with pytest.raises(StorageError, match="Is a directory"), durable.exclusive(tmp_path / "folder", RuntimeError):
            pass
        with durable.exclusive(tmp_path / "lock", RuntimeError):
            pass
        durable.write_bytes(tmp_path / "f", b"")
        with durable.folder(tmp_path / "box"):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_new_parent_folders_are_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    durable.write_bytes(tmp_path / "a" / "b" / "f", b"")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b" / ".f.partial", tmp_path / "a" / "b"]
