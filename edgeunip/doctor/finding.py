"""What a look at the device finds, and where it looks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from edgeunip.machine import ROOT


class Level(str, Enum):
    """What a finding asks for: nothing, a look, or a repair before anything works."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing about this device.

    Attributes:
        level: ok, warn or bad.
        message: one line.
        remedy: what to do about it; empty where nothing is to be done.
        topic: the check it is from: ``cpu``, ``camera`` ...
    """

    level: Level
    message: str
    remedy: str = ""
    topic: str = ""


@dataclass(frozen=True)
class Place:
    """Where to look: the root of ``/proc``, ``/sys`` and ``/dev``, and the folder edgeunip works in."""

    root: Path = ROOT
    folder: Path = field(default_factory=Path)


Check = Callable[[Place], Iterator[Finding]]


def ok(message: str, remedy: str = "") -> Finding:
    """Return what is as it should be."""
    return Finding(Level.OK, message, remedy)


def warn(message: str, remedy: str) -> Finding:
    """Return what works, but not as well as it could."""
    return Finding(Level.WARN, message, remedy)


def bad(message: str, remedy: str) -> Finding:
    """Return what must be repaired first."""
    return Finding(Level.BAD, message, remedy)


def graded(value: float, limits: tuple[float, float], message: str, remedy: str) -> Finding:
    """Return a finding that is bad below the first limit, and asks for a look below the second."""
    if value < limits[0]:
        return bad(message, remedy)
    return warn(message, remedy) if value < limits[1] else ok(message)


def ask(words: list[str], *, limit_s: float) -> tuple[int | None, str, str]:
    """Run a program; returns (exit code, output, errors). The code is None where it took too long."""
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=limit_s, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout, done.stderr
