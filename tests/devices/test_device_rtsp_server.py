"""RTSP against GstRtspServer, killed and stopped, and through a proxy that fails as networks do."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_process import Watch, guard
from fault_proxy import FaultProxy
from guard_checks import BUSY_S

from edgeunip.address import redact
from edgeunip.budget import BUDGET
from edgeunip.devices import rtsp
from edgeunip.devices.guard import Kind
from edgeunip.frame import State

pytestmark = pytest.mark.system

PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).parents[1] / "system" / "rtsp_server.py"
CANARY = "c4nary-Secret"
RATE = 30


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    try:
        done = subprocess.run([PYTHON, "-c", check], capture_output=True, timeout=30)
    except FileNotFoundError:
        pytest.skip(f"{PYTHON} is not there")
    if done.returncode:
        pytest.skip("GstRtspServer is not installed; see tests/system/install.sh")


class Server:
    def __init__(self, login: str = "") -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        self._command = [PYTHON, str(SCRIPT), str(self.port), *([login] if login else [])]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return as soon as it takes connections."""
        self.process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert time.monotonic() < deadline and self.process.poll() is None
            time.sleep(0.005)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def watch_rtsp(port: int, path: str = "thermal", *, login: str = f"operator:{CANARY}") -> Watch:
    url = f"rtsp://{login}@127.0.0.1:{port}/{path}"
    return guard(lambda: rtsp.open_rtsp(url), name=redact(url), kind=Kind())


def no_secret(seen: Watch) -> None:
    assert all(CANARY not in status.message for _, status in seen.statuses) and CANARY not in seen.camera.name


def restart(server: Server, seen: Watch) -> float:
    """Kill the server, start it again; return how long after it takes connections a frame is there."""
    seen.more(5)
    server.kill()
    seen.until(lambda: seen.status.state is State.OFFLINE)
    time.sleep(0.2)
    server.start()
    begin, count = time.monotonic(), len(seen.frames)
    seen.until(lambda: len(seen.frames) > count, 20)
    return time.monotonic() - begin


def test_the_picture_comes_and_a_password_is_asked_for() -> None:
    with Server(f"operator:{CANARY}") as server:
        with watch_rtsp(server.port) as seen:
            seen.more(20)
            assert seen.frames[-1].counts.shape == (240, 320) and seen.camera.rate_hz == pytest.approx(RATE)
            no_secret(seen)
        with watch_rtsp(server.port, login=f"operator:wrong{CANARY}") as seen:
            seen.until(lambda: seen.status.reason == "permission")
            assert "401 Unauthorized" in seen.status.message and "Check user name" in seen.status.message
            no_secret(seen)


def test_a_path_that_is_none() -> None:
    with Server() as server, watch_rtsp(server.port, "elsewhere") as seen:
        seen.until(lambda: seen.status.reason == "missing")
        assert "404 Not Found" in seen.status.message
        no_secret(seen)


@pytest.mark.parametrize("cycles", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_and_started_again_it_is_back_in_less_than_2_s(cycles: int) -> None:
    with Server() as server, watch_rtsp(server.port) as seen:
        waits = sorted(restart(server, seen) for _ in range(cycles))
        no_secret(seen)
    print(f"rtsp: {cycles} restarts, back after {waits[cycles // 2]:.2f} s (median), {waits[-1]:.2f} s (longest)")
    assert waits[-1] < 2.0
    assert seen.status.opened == cycles + 1
    assert {"refused"} <= set(seen.status.faults) <= {"end", "reset", "refused", "stall", "error"}


def test_a_server_that_hangs_is_told_at_once_and_comes_back() -> None:
    with Server() as server, watch_rtsp(server.port) as seen:
        seen.more(40)
        server.signal(signal.SIGSTOP)
        seen.until(lambda: seen.status.state is State.STALE)
        assert seen.statuses[-1][0] - seen.times[-1] < 3 / RATE + BUDGET.slack_s + BUSY_S
        assert seen.status.reason == "stall" and seen.status.message.startswith("No frame for 0.6")
        time.sleep(1.0)
        server.signal(signal.SIGCONT)
        count = len(seen.frames)
        assert seen.until(lambda: len(seen.frames) > count) < 2.0
        no_secret(seen)


@pytest.fixture
def network() -> Iterator[tuple[FaultProxy, Watch]]:
    with Server() as server, FaultProxy(server.port) as proxy, watch_rtsp(proxy.port) as seen:
        seen.more(20)
        yield proxy, seen
        count = len(seen.frames)
        assert seen.until(lambda: len(seen.frames) > count + 5) < 4.0
        no_secret(seen)


def test_a_connection_that_is_reset(network: tuple[FaultProxy, Watch]) -> None:
    proxy, seen = network
    proxy.reset()
    # FFmpeg tells a cut connection in mid-stream as its end; a busy machine may have stalled before.
    seen.until(lambda: {"reset", "end"} & set(seen.status.faults))
    assert set(seen.status.faults) <= {"reset", "end", "stall"}


def test_a_connection_that_is_half_closed(network: tuple[FaultProxy, Watch]) -> None:
    proxy, seen = network
    proxy.half_close()
    seen.until(lambda: "end" in seen.status.faults)
    assert set(seen.status.faults) <= {"end", "stall"}
    assert "The live source ended" in next(status for _, status in seen.statuses if status.reason == "end").message


def test_a_black_hole_is_a_stall_then_no_answer(
    network: tuple[FaultProxy, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, seen = network
    monkeypatch.setattr(rtsp, "LIMIT_S", 1.0)
    proxy.hole = True
    seen.until(lambda: seen.status.state is State.STALE, 2)
    assert seen.statuses[-1][0] - seen.times[-1] < 3 / RATE + BUDGET.slack_s + BUSY_S
    seen.until(lambda: seen.status.reason == "timeout")
    assert seen.status.state is State.OFFLINE and "no answer in time" in seen.status.message
    proxy.hole = False


def test_nothing_is_left_after_many_restarts() -> None:
    def resources() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = resources()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server())
        proxy = stack.enter_context(FaultProxy(server.port))
        seen = stack.enter_context(watch_rtsp(proxy.port))
        for _ in range(5):
            seen.more(5)
            proxy.reset()
            opened = seen.status.opened
            seen.until(lambda opened=opened: seen.status.opened > opened)  # type: ignore[misc]
    deadline = time.monotonic() + 8
    while resources() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert resources() == before
