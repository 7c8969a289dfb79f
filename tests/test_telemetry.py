"""What runs here tells nobody that it does."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

QUIET = "import edgeunip.runtimes.openvino_cpu"
LOUD = "import openvino"
LOOK = "; import sys, threading; print(sorted(t.name for t in threading.enumerate()), 'multiprocessing' in sys.modules)"


@pytest.fixture(autouse=True)
def _openvino() -> None:
    pytest.importorskip("openvino")


def test_openvino_starts_no_thread_and_no_child() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET + LOOK], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['MainThread'] False\n"


def calls(code: str, folder: Path) -> str:
    """The Internet sockets that a program opens, as strace tells them."""
    trace = ["strace", "-f", "-qq", "-e", "trace=socket", "-o", str(folder / "trace")]
    code += "; import time; time.sleep(1)"
    subprocess.run([*trace, sys.executable, "-c", code], capture_output=True, timeout=120, check=True)
    return "\n".join(line for line in (folder / "trace").read_text().splitlines() if "AF_INET" in line)


@pytest.mark.system
def test_openvino_opens_no_connection(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert calls(QUIET, tmp_path) == ""


@pytest.mark.system
def test_negative_control_openvino_alone_does(tmp_path: Path) -> None:
    if shutil.which("strace") is None or not list(importlib.metadata.distributions(name="openvino-telemetry")):
        pytest.skip("strace or openvino-telemetry is not installed")
    assert "AF_INET" in calls(LOUD, tmp_path)
