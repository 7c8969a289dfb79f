"""What needs no display."""

import subprocess
import sys

import numpy as np
import pytest
from live_results import CLASSES

from edgeunip.errors import SinkError, UsageError
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.window import _fitted


@pytest.fixture(autouse=True)
def no_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)


def test_grammar():
    with pytest.raises(UsageError, match=r"written window:on: window:off"):
        open_sink("window:off", Setting(CLASSES))
    with pytest.raises(UsageError, match="no option size"):
        open_sink("window:on?size=3", Setting(CLASSES))
    with pytest.raises(UsageError, match="at most 16 cameras: 17"):
        open_sink("window:on", Setting(CLASSES, tuple(f"cam{number}" for number in range(17))))


def test_no_display_is_one_line():
    pytest.importorskip("tkinter", reason="this Python comes without tkinter")
    with pytest.raises(SinkError, match=r"^There is no display for a window: window \(DISPLAY is not set\)\. Set"):
        open_sink("window:on", Setting(CLASSES))


def test_a_display_nobody_serves_is_one_line(monkeypatch):
    pytest.importorskip("tkinter", reason="this Python comes without tkinter")
    monkeypatch.setenv("DISPLAY", ":4242")
    with pytest.raises(SinkError, match=r"^There is no window: window \(.*:4242.*\)\. Leave window:on out\.$"):
        open_sink("window:on", Setting(CLASSES))


def test_no_tkinter_is_one_line():
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == '_tkinter' else find(name, *a)\n"
        "from edgeunip.classes import Classes; from edgeunip.runtimes.sinks import *\n"
        "try: open_sink('window:on', Setting(Classes(('a',), ((0, 0, 0),))))\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("A window needs tkinter, which this Python comes without: window. Install")


@pytest.mark.parametrize(
    ("size", "shape"),
    [((640, 480), (480, 640, 3)), ((300, 480), (225, 300, 3)), ((64, 9000), (48, 64, 3)), ((1, 1), (1, 1, 3))],
)
def test_proportions_are_kept(size, shape):
    assert _fitted(np.zeros((120, 160, 3), np.uint8), *size).shape == shape
