"""Whatever writes a bundle, killed at any file-system call, leaves the old one or the new one, whole, never half."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from test_bundle import FILES, PLAIN
from test_durable import needs_strace

from edgeunip import bundle, pack, signature, trust

ROOT = Path(bundle.__file__).parent.parent
PROGRAMS = {
    "save": "bundle.save(where / 'night.bundle', new.manifest, files)",
    "pack": "pack.pack(new.path, where / 'night.edgeunip')",
    "unpack": "pack.unpack(source / 'new.edgeunip', where / 'night.bundle')",
    "sign": "trust.sign(where / 'night.bundle', source / 'key')",
    "naive": "shutil.rmtree(where / 'night.bundle'); shutil.copytree(new.path, where / 'night.bundle')",
}
SETUP = """
from edgeunip import bundle, ed25519, pack, trust
new = bundle.load(source / 'new.bundle')
files = {name: (new.path / name).read_bytes() for name in new.manifest.files}
"""
# Imports once, then runs each program it is told in a child, which waits until strace holds it. A process may refuse
# to be traced by another than its parent; 0x59616d61 (PR_SET_PTRACER) lets any.
SERVER = f"""
import ctypes, os, shutil, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
source, where = Path(sys.argv[1]), Path(sys.argv[2])
SETUP
programs = PROGRAMS
while line := sys.stdin.readline():
    waiting, go = os.pipe()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)
        os.read(waiting, 1)
        exec(programs[line.strip()])
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()
    os.write(go, b"x")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os.close(waiting), os.close(go)
"""

NAMES = ("manifest.json", "signature.json", "golden.npz", "model.xml", "model.bin", "gone.txt")
CALLS = (
    *("openat", "read", "write", "sendfile", "copy_file_range", "lseek", "ftruncate", "fchmod", "fsync", "flock"),
    *("close", "mkdir", "rename", "renameat2", "unlink", "unlinkat", "rmdir", "newfstatat", "getdents64"),
)
# The calls at which something can be lost, for every run of the tests.
DECISIVE = {
    "save": [("write", 2), ("fsync", 3), ("renameat2", 1), ("unlinkat", 1)],
    "pack": [("write", 1), ("fsync", 1), ("rename", 1)],
    "unpack": [("write", 1), ("renameat2", 1)],
    "sign": [("sendfile", 1), ("renameat2", 1)],
}


@dataclass(frozen=True)
class Stage:
    """Where a program is killed: ``source`` has what it reads, ``where`` what it replaces."""

    source: Path
    where: Path
    server: subprocess.Popen[str]

    def reset(self) -> None:
        """Put the old state in place."""
        shutil.rmtree(self.where, ignore_errors=True)
        self.where.mkdir()
        shutil.copytree(self.source / "old.bundle", self.where / "night.bundle")
        shutil.copy(self.source / "old.edgeunip", self.where / "night.edgeunip")

    def seen(self) -> dict[str, str]:
        """Load what a reader finds; an unreadable bundle fails here."""
        loaded = bundle.load(self.where / "night.bundle")
        found = loaded.signature()
        packed = pack.read(self.where / "night.edgeunip")
        return {
            "bundle": loaded.digest,
            "signature": found.key_id if found else "none",
            "packed": bundle.Bundle(packed.path, packed.manifest).digest,
        }

    def leftovers(self) -> set[str]:
        return {entry.name for entry in self.where.iterdir()} - {"night.bundle", "night.edgeunip"}

    def run(self, name: str) -> int:
        """Run a program to its end; returns its exit code."""
        self._ask(name)
        return int(self._ask("go"))

    def kill(self, name: str, call: str, number: int) -> bool:
        """Run a program, killed at the number-th such call on what it replaces; tells whether there was one."""
        self.reset()
        folders = ("night.bundle", ".night.bundle.partial", ".night.bundle.old")
        files = ["", "night.edgeunip", ".night.edgeunip.partial", "night.export.json", ".night.export.json.partial"]
        files += folders
        files += [f"{folder}/{name}" for folder in folders for name in NAMES]
        paths = [part for file in files for part in ("-P", str(self.where / file))]
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        words = ["strace", "-o", str(self.source / "trace"), *paths, *inject, "-p", self._ask(name)]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as strace:
            assert strace.stderr is not None and "attached" in (said := strace.stderr.readline()), said
            code = int(self._ask("go"))
        assert code in (0, -signal.SIGKILL), f"{name} fails without a fault"
        return code != 0

    def _ask(self, line: str) -> str:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(f"{line}\n")
        self.server.stdin.flush()
        return self.server.stdout.readline().strip()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    source = tmp_path / "source"
    old = bundle.save(source / "old.bundle", PLAIN, {**FILES, "gone.txt": b"of the old one"})
    new = bundle.save(source / "new.bundle", replace(PLAIN, name="new"), {**FILES, "model.xml": b"new" * 500})
    pack.pack(old.path, source / "old.edgeunip")
    pack.pack(new.path, source / "new.edgeunip")
    signature.new_key(source / "key")
    yield from serve(source, tmp_path / "where", SETUP, PROGRAMS)


def serve(source: Path, where: Path, setup: str, programs: dict[str, str]) -> Iterator[Stage]:
    """Start the process whose children are killed, once it has run ``setup``."""
    code = SERVER.replace("SETUP", setup).replace("PROGRAMS", repr(programs))
    words = [sys.executable, "-I", "-c", code, str(source), str(where)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, env=environment, **pipes) as server:
        yield Stage(source, where, server)
        server.kill()


def outcomes(stage: Stage, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a reader finds before and after a program."""
    stage.reset()
    old = stage.seen()
    assert stage.run(name) == 0
    new = stage.seen()
    assert old != new and stage.leftovers() == set()
    return old, new


def write(stage: Stage, name: str) -> None:
    """Do what a program does, in this process."""
    folder, new = stage.where / "night.bundle", stage.source / "new.bundle"
    if name == "save":
        loaded = bundle.load(new)
        bundle.save(folder, loaded.manifest, {name: (new / name).read_bytes() for name in loaded.manifest.files})
    elif name == "pack":
        pack.pack(new, stage.where / "night.edgeunip")
    elif name == "unpack":
        pack.unpack(stage.source / "new.edgeunip", folder)
    else:
        trust.sign(folder, stage.source / "key")


def check(stage: Stage, name: str, old: dict[str, str], new: dict[str, str], point: str) -> None:
    assert stage.seen() in (old, new), point
    assert stage.leftovers() <= {".night.bundle.partial", ".night.edgeunip.partial"}, point
    write(stage, name)
    assert stage.seen() == new and stage.leftovers() == set(), f"the next write after {point}"


def sweep(stage: Stage, name: str, calls: tuple[str, ...]) -> Iterator[str]:
    """Kill a program at every call of every kind, one a run; yields each point.

    One kind at a time: strace counts each kind of call on its own, so one sweep over all kinds would skip points.
    """
    for call in calls:
        number = 1
        while stage.kill(name, call, number):
            yield f"{call} {number}"
            number += 1


@needs_strace
@pytest.mark.parametrize("name", DECISIVE)
def test_killed_at_the_calls_that_matter(name: str, stage: Stage) -> None:
    old, new = outcomes(stage, name)
    for call, number in DECISIVE[name]:
        assert stage.kill(name, call, number), f"{name} makes no {call} {number}"
        check(stage, name, old, new, f"{call} {number}")


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("name", DECISIVE)
def test_killed_at_every_call(name: str, stage: Stage) -> None:
    old, new = outcomes(stage, name)
    points = []
    for point in sweep(stage, name, CALLS):
        points.append(point)
        check(stage, name, old, new, point)
    print(f"{name}: {len(points)} points")
    assert len(points) >= {"save": 60, "pack": 10, "unpack": 60, "sign": 60}[name], points


@needs_strace
def test_negative_control_the_sweep_finds_a_naive_writer(stage: Stage) -> None:
    assert stage.kill("naive", "unlinkat", 2)
    with pytest.raises(bundle.BundleError):
        stage.seen()
