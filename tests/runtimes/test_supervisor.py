"""What systemd is told, over a real datagram socket; and that a sign of life means that every loop turns."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from edgeunip.budget import BUDGET
from edgeunip.errors import MemoryLimitError
from edgeunip.frame import State
from edgeunip.health import Board, CameraStatus, SinkStatus, Totals
from edgeunip.runtimes import memory
from edgeunip.runtimes.supervisor import Watchdog, notify, patience_s, status

UNIT = Path(__file__).parents[2] / "docs" / "edgeunip@.service"


class Supervisor:
    """systemd's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(5)

    def read(self) -> list[str]:
        return self.socket.recv(65536).decode().split("\n")

    def waiting(self) -> list[str]:
        """Everything sent so far."""
        self.socket.setblocking(False)
        lines = []
        try:
            while True:
                lines += self.read()
        except BlockingIOError:
            return lines


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@edgeunip-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    one = Supervisor(address)
    yield one
    one.socket.close()


def test_what_is_told(supervisor: Supervisor) -> None:
    assert notify("READY=1", "STATUS=fine")
    assert supervisor.read() == ["READY=1", "STATUS=fine"]


def test_no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with Watchdog(Board(), cameras=["yard"]) as watchdog:
        assert watchdog.hanging() == [] and not watchdog._thread.is_alive()


def test_a_supervisor_that_has_gone_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    assert not notify("READY=1")
    assert "No such file" in caplog.text


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("60000000", None, 60.0), ("", None, None), ("0", None, None), ("many", None, None), ("60000000", "1", None)],
)
def test_patience(usec: str, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert patience_s() == expected
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert patience_s() == (float(usec) / 1e6 if usec == "60000000" else None)


def test_signs_of_life_while_the_loop_turns_also_without_a_camera(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "800000")
    board = Board()
    away = CameraStatus(State.OFFLINE, "missing", "The camera is not there")
    with Watchdog(board, cameras=["yard"]):
        for number in range(15):
            board.put("yard", status=away, totals=Totals(written=number))
            time.sleep(0.1)
    lines = supervisor.waiting()
    assert lines[:2] == ["READY=1", "STATUS=starting"]
    assert lines[-2:] == ["STOPPING=1", "STATUS=ending"]
    assert lines.count("WATCHDOG=1") >= 3
    assert any(line.startswith("STATUS=yard offline, The camera is not there, ") for line in lines)


def test_one_of_two_loops_that_hangs_ends_the_signs(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    board = Board()
    with Watchdog(board, cameras=["yard", "gate"]) as watchdog:
        for _ in range(10):
            board.put("yard", totals=Totals())
            board.put("gate", status=CameraStatus())  # known, but its loop does not turn
            time.sleep(0.1)
        assert watchdog.hanging() == ["gate"]
        supervisor.waiting()
        time.sleep(0.3)
        late = supervisor.waiting()
        assert late and "WATCHDOG=1" not in late
        board.put("yard", totals=Totals())
        board.put("gate", totals=Totals())
        time.sleep(0.15)
        board.put("yard", totals=Totals())
        board.put("gate", totals=Totals())
        time.sleep(0.1)
        assert "WATCHDOG=1" in supervisor.waiting(), "it turns again"
    assert caplog.text.count("The loop of gate does not turn") == 1


def test_without_a_deadline_only_the_status_is_told(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeunip.runtimes.supervisor._STATUS_S", 0.05)
    with Watchdog(Board(), cameras=["yard"]):
        time.sleep(0.3)
    lines = supervisor.waiting()
    assert "STATUS=no camera yet" in lines and "WATCHDOG=1" not in lines


def test_the_status_is_one_line_without_credentials() -> None:
    board = Board()
    sinks = (SinkStatus("jsonl:x", running=False, message="disk full"),)
    board.put("yard", status=CameraStatus(State.LIVE), totals=Totals(written=7, lost=1, sinks=sinks))
    board.put("gate", status=CameraStatus(State.OFFLINE, "error", "rtsp://a:hunter22@h\nfailed"))
    told = status(board.read())
    assert told.startswith("yard live, 7 written, 0 skipped, 1 lost, jsonl:x off; gate offline, ")
    assert "hunter22" not in told and "\n" not in told


def test_all_time_outs_together_take_less_than_half_of_the_watchdogs() -> None:
    """Else a stream that only waits for its time-outs would be killed as hung (irlume#336: 95 s against 90 s)."""
    limits = [getattr(BUDGET, one.name) for one in fields(BUDGET) if one.name != "watchdog_s"]
    assert len(limits) >= 7 and BUDGET.total_s >= sum(max(one) if isinstance(one, tuple) else one for one in limits)
    assert 2 * BUDGET.total_s < BUDGET.watchdog_s
    longer = replace(BUDGET, open_s=40.0)
    assert not 2 * longer.total_s < longer.watchdog_s, "negative control"
    unit = UNIT.read_text()
    assert re.search(r"^WatchdogSec=(\d+)$", unit, re.MULTILINE).group(1) == f"{BUDGET.watchdog_s:.0f}"  # type: ignore[union-attr]
    assert float(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE).group(1)) > BUDGET.stop_s  # type: ignore[union-attr]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    text = UNIT.read_text().replace("/opt/edgeunip/bin/edgeunip", "/bin/true")
    (tmp_path / UNIT.name).write_text(text)
    verify = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT.name)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and UNIT.name.split("@")[0] not in done.stderr, done.stderr
    (tmp_path / UNIT.name).write_text(text.replace(f"WatchdogSec={BUDGET.watchdog_s:.0f}", "WatchdogSec=soon"))
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60)
    assert "Failed to parse sec value" in done.stderr, "negative control: a wrong value is found"


def test_memory() -> None:
    held = memory.rss_mib()
    more = np.ones(64 << 20, np.uint8)
    assert 60 < memory.rss_mib() - held < 80
    del more
    memory.check(None)
    memory.check(1e6)
    with pytest.raises(MemoryLimitError, match=r"holds \d+ MiB, more than the 1 it may") as caught:
        memory.check(1)
    assert caught.value.exit_code == 75
