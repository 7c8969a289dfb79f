"""The status line: how each camera does, in one line that fits the terminal."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeunip import console
from edgeunip.frame import State
from edgeunip.health import CameraStatus, Health, Totals

TOTALS = Totals(captured=30, written=25, inferred=25, seconds=10.0, skipped=5, latency_ms=(20.0, 31.0))
LIVE = Health("yard", CameraStatus(State.LIVE, "frame"), TOTALS)


def offline() -> Health:
    return Health("door", CameraStatus(State.OFFLINE, "missing", "", time.monotonic_ns() - 12_400_000_000), TOTALS)


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *healths: Health) -> str:
    """Return what stands on a terminal of 60 columns."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    console.Status().show(healths)
    return capsys.readouterr().err


def test_a_live_camera_is_told_by_its_sums() -> None:
    assert console.describe(TOTALS).startswith("25 frames in 10.0 s (2.5 a second), age 20 ms (p99 31), 5 skipped")


def test_what_ails_a_camera_comes_first_and_the_line_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(monkeypatch, capsys, LIVE).startswith("\r\x1b[K25 frames in 10.0 s")
    line = shown(monkeypatch, capsys, offline())
    assert line.startswith("\r\x1b[Koffline for 12 s (missing), 25 frames in 10.0 s")
    assert len(line) == len("\r\x1b[K") + 59 and "\n" not in line
    assert (
        shown(monkeypatch, capsys, LIVE, offline())
        == "\r\x1b[Kyard 2.5 fps, door offline for 12 s (missing); 50 frames"
    )


def test_elsewhere_it_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("edgeunip.console.time.monotonic", lambda: now[0])
    status = console.Status()
    for _ in range(25):
        now[0] += 1
        status.show([LIVE])
    assert len(re.findall("25 frames", capsys.readouterr().err)) == 2


CLOSED = """
import os
for number in range(3):
    os.close(number)
from edgeunip.cli import _hold_standard_streams
_hold_standard_streams()
_hold_standard_streams()
opened = os.open(__FILE__, os.O_RDWR | os.O_CREAT)
os.write(2, b"a library prints")
os.write(opened, str(opened).encode())
"""


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    file = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", CLOSED.replace("__FILE__", repr(str(file)))], timeout=60)
    assert done.returncode == 0 and int(file.read_text()) > 2
