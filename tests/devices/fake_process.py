"""The fake camera as a process of its own, and a guarded camera whose frames and states are written down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeunip.budget import BUDGET, Budget
from edgeunip.devices.guard import Guarded, Kind
from edgeunip.devices.opening import Source
from edgeunip.devices.wire import WireCamera
from edgeunip.frame import Frame, State
from edgeunip.health import CameraStatus

# Ten times as fast as the real one where it may be: what is scaled is the shutter, not the slack for a busy machine.
QUICK = Budget(shutter_s=0.6, settle_s=0.2, slack_s=0.3, retry_s=(0.02, 0.2), open_s=3.0)


class FakeProcess:
    """``with FakeProcess(tmp_path) as fake``: a fake camera that serves ``fake.path``."""

    def __init__(self, folder: Path, *options: str, rate: float = 50, size: tuple[int, int] = (32, 24)) -> None:
        self.path = folder / "cam.sock"
        width, height = size
        self._command = [sys.executable, "-m", "edgeunip.devices.fakecam", str(self.path)]
        self._command += ["--rate", str(rate), "--size", str(width), str(height), *options]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> FakeProcess:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Return once it listens."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert "listening" in json.loads(self._process.stdout.readline())

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._process = None

    def stop(self) -> int:
        """End it in order, and return how many frames it made."""
        out, _ = self.process.communicate("stop\n", timeout=20)
        self._process = None
        return int(json.loads(out)["made"])


class Watch:
    """Iterates a guarded camera in a thread of its own, and keeps what it gave."""

    def __init__(self, camera: Guarded) -> None:
        self.camera = camera
        self.frames: list[Frame] = []
        self.times: list[float] = []
        self.statuses: list[tuple[float, CameraStatus]] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self.camera.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.camera.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    @property
    def status(self) -> CameraStatus:
        return self.camera.status

    def note(self, status: CameraStatus) -> None:
        self.statuses.append((time.monotonic(), status))

    def states(self) -> list[State]:
        """Return the states that were told, each once."""
        told = [status.state for _, status in self.statuses]
        return [state for index, state in enumerate(told) if index == 0 or state is not told[index - 1]]

    def until(self, condition: Callable[[], Any], limit_s: float = 10.0) -> float:
        """Wait until ``condition()``; return how long that took, in seconds."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < limit_s, (self.status, len(self.frames), self.error)
            time.sleep(0.005)
        return time.monotonic() - begin

    def more(self, count: int = 5, limit_s: float = 10.0) -> None:
        """Wait for so many more frames."""
        target = len(self.frames) + count
        self.until(lambda: len(self.frames) >= target, limit_s)

    def _run(self) -> None:
        try:
            for frame in self.camera:
                self.times.append(time.monotonic())
                self.frames.append(frame)
        except Exception as error:
            self.error = error


def guard(open_camera: Callable[[], Source], *, name: str = "cam", **options: Any) -> Watch:
    """Return a watch over a guarded camera."""
    noted: list[Watch] = []
    camera = Guarded(open_camera, name=name, on_status=lambda status: noted[0].note(status), **options)
    noted.append(Watch(camera))
    return noted[0]


def watch(path: Path, *, budget: Budget = BUDGET, silent_shutter: bool = False) -> Watch:
    """Return a watch over the camera at a UNIX socket."""
    kind = Kind(goes_on=True, silent_shutter=silent_shutter)
    return guard(lambda: WireCamera(str(path), budget=budget), kind=kind, budget=budget)
