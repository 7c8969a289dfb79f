"""What runs here tells nobody that it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

QUIET = "import edgeunip.runtimes.openvino_cpu"
LOOK = "; import sys, threading; print(sorted(t.name for t in threading.enumerate()), 'multiprocessing' in sys.modules)"


@pytest.fixture(autouse=True)
def _openvino() -> None:
    pytest.importorskip("openvino")


def quiet_home(folder: Path) -> dict[str, str]:
    """An environment in which OpenVINO reports by default: a home it may write to, no variable of a CI service."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder)}


def seen(code: str, folder: Path) -> str:
    """Threads of a program after `code`, and whether it loaded what OpenVINO's reporter starts its children with."""
    program = [sys.executable, "-c", code + LOOK]
    environment = quiet_home(folder)
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=True, env=environment).stdout


def test_openvino_starts_no_thread_and_no_child(tmp_path: Path) -> None:
    assert seen(QUIET, tmp_path) == "['MainThread'] False\n"


def test_negative_control_a_thread_is_seen(tmp_path: Path) -> None:
    start = "threading.Thread(target=time.sleep, args=(1,), name='reporter').start()"
    assert seen(f"import multiprocessing, threading, time; {start}", tmp_path) == "['MainThread', 'reporter'] True\n"


def internet_sockets(code: str, folder: Path) -> str:
    """The Internet sockets that a program and its children open, as strace tells them."""
    trace = ["strace", "-f", "-qq", "-e", "trace=socket", "-o", str(folder / "trace")]
    code += "; import time; time.sleep(1)"
    subprocess.run(
        [*trace, sys.executable, "-c", code], capture_output=True, timeout=120, check=True, env=quiet_home(folder)
    )
    return "\n".join(line for line in (folder / "trace").read_text().splitlines() if "AF_INET" in line)


@pytest.mark.system
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_openvino_opens_no_connection(tmp_path: Path) -> None:
    assert internet_sockets(QUIET, tmp_path) == ""


# OpenVINO's own reporter is no control: whether it opens one is its makers' choice, and it does not where CI is set.
CONNECTS = "import socket; socket.socket()"
REPORTER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CONNECTS!r}], check=True)"


@pytest.mark.system
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_negative_control_a_child_that_connects_is_seen(tmp_path: Path) -> None:
    assert "AF_INET" in internet_sockets(REPORTER, tmp_path)
