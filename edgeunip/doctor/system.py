"""What the system grants: disk, clock, limits, display."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgeunip.budget import BUDGET
from edgeunip.doctor.finding import Finding, Place, bad, graded, ok, warn

_FREE_MIB = (64, 1024)
_INODES = (100, 10_000)
_FILES = 1024
_CLOCK_FLOOR = 2024  # a year before this software: the clock was never set


def disk(place: Place) -> Iterator[Finding]:
    """Look at the room where results, runs and bundles go, and at whether they can go there."""
    folders = (place.folder, place.folder / "runs", place.folder / "bundles", place.folder / "recordings")
    for folder in sorted({folder.resolve() for folder in folders if folder.is_dir()}):
        yield from _disk_at(folder)
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"edgeunip")
    except OSError as error:
        yield warn(f"no temporary file can be made ({error.strerror})", "Name a folder to write to in TMPDIR.")


def clock(place: Place) -> Iterator[Finding]:
    """Look at whether the dates in files can be right; nothing else depends on them."""
    now = time.gmtime()
    day = time.strftime("%Y-%m-%d %H:%M", now)
    if now.tm_year < _CLOCK_FLOOR:
        remedy = "Set it: sudo timedatectl set-ntp true. Only the dates in files and messages suffer."
        yield warn(f"it was never set and says {day}", remedy)
    elif not any((place.root / "sys/class/rtc").glob("rtc*")):
        yield ok(f"{day} UTC; no battery clock: wrong after a start until the network sets it")
    else:
        yield ok(f"{day} UTC")


def limits(place: Place) -> Iterator[Finding]:
    """Look at what the process may hold, and at the supervisor's patience."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield graded(files, (64, _FILES), f"{files} open files", f"Allow more: ulimit -n {_FILES}")
    text = os.environ.get("WATCHDOG_USEC", "")
    waits_s = int(text) / 1e6 if text.isdecimal() else BUDGET.watchdog_s
    message = f"time-outs add up to {BUDGET.total_s:.1f} s; the supervisor waits {waits_s:.0f} s"
    remedy = f"Set WatchdogSec to {2 * BUDGET.total_s + 1:.0f} or more in the unit."
    yield ok(message) if 2 * BUDGET.total_s < waits_s else bad(message, remedy)


def display(place: Place) -> Iterator[Finding]:
    """Look for a screen."""
    name = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    yield ok(f"windows open on {name}" if name else "none; the web page shows the stream")


def _disk_at(folder: Path) -> Iterator[Finding]:
    free, room = shutil.disk_usage(folder).free / 2**20, os.statvfs(folder)
    if room.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
        yield warn(f"{folder} cannot be written", "Work in a folder you may write to, or change its permissions.")
    remedy = "Free some space: a full disk stops recordings."
    yield graded(free, _FREE_MIB, f"{free:.0f} MiB free in {folder}", remedy)
    if room.f_files and room.f_favail < _INODES[1]:
        yield graded(room.f_favail, _INODES, f"{folder} takes {room.f_favail} more files", "Remove small files.")
