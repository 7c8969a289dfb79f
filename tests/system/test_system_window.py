"""The window on a real X server without a screen: keys are pressed, and what it shows is looked at."""

import itertools
import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from live_results import CLASSES, made
from services import display, needs, wait_for

from edgeunip.errors import SinkClosedError, SinkError
from edgeunip.runtimes.outlet import Outlet, Port
from edgeunip.runtimes.sinks import Setting, open_sink

pytestmark = pytest.mark.system


@pytest.fixture
def screen(tmp_path, monkeypatch):
    needs("xdotool", "ffmpeg")
    pytest.importorskip("tkinter", reason="this Python comes without tkinter")
    number = next(number for number in itertools.count(90) if not Path(f"/tmp/.X11-unix/X{number}").exists())
    monkeypatch.setenv("DISPLAY", f":{number}")
    with display(tmp_path, number) as screen:
        yield screen


def show(sink, number=20, cameras=("",)):
    for seq in range(number):
        for camera in cameras:
            sink.write(replace(made(seq), camera=camera))
        time.sleep(0.02)


def looked_at():
    """The whole screen, (800, 1280, 3)."""
    command = ["ffmpeg", "-loglevel", "error", "-f", "x11grab", "-draw_mouse", "0", "-video_size", "1280x800"]
    command += ["-i", os.environ["DISPLAY"], "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8).reshape(
        800, 1280, 3
    )


def share(image, colour):
    """Share of the picture that looks like an overlaid class's colour."""
    return (np.abs(image.astype(int) - colour).sum(axis=2) < 160).mean()


def press(key):
    found = subprocess.run(["xdotool", "search", "--name", "edgeunip"], check=True, capture_output=True, text=True)
    window = found.stdout.split()[-1]
    subprocess.run(["xdotool", "windowfocus", window, "key", key], check=False, capture_output=True)


def test_it_shows_the_overlay(screen):
    sink = open_sink("window:on", Setting(CLASSES))
    show(sink)
    image = looked_at()
    person, machine = (185, 115, 85), (150, 230, 225)
    assert 0.01 < share(image[:480, :640], person) < 0.1
    assert 0.01 < share(image[:480, :640], machine) < 0.1
    assert share(image[480:], person) == 0
    sink.close()
    sink.close()


def test_keys_choose_the_camera_and_close(screen):
    cameras = ("one", "two")
    sink = open_sink("window:on", Setting(CLASSES, cameras))
    show(sink, cameras=cameras)
    machine = (150, 230, 225)
    both = looked_at()
    assert share(both[:480, :640], machine) > 0.005 and share(both[:480, 640:], machine) > 0.005
    press("2")
    show(sink, cameras=cameras)
    single = looked_at()
    assert share(single[:480, 320:960], machine) > 0.01
    assert share(single[:480, :300], machine) == 0
    press("a")
    show(sink, cameras=cameras)
    assert share(looked_at()[:480, :640], machine) > 0.005
    press("q")
    with pytest.raises(SinkClosedError, match=r"^The window was closed: window$"):
        show(sink, 200)
    sink.close()


def test_a_closed_window_is_not_opened_again(screen):
    setting, ended = Setting(CLASSES), threading.Event()
    port = Port("window", lambda: open_sink("window:on", setting))
    outlet = Outlet(port, live=True, on_end=lambda _: ended.set())
    wait_for(lambda: outlet.queue.put((made(0), lambda: None)) or outlet.status.written > 10, 10)
    press("Escape")
    wait_for(lambda: outlet.queue.put((made(0), lambda: None)) or ended.is_set(), 10)
    assert isinstance(outlet.error, SinkClosedError)
    time.sleep(1)
    assert not [child for child in psutil.Process().children() if "window_child" in " ".join(child.cmdline())]


def test_the_display_goes(screen):
    sink = open_sink("window:on", Setting(CLASSES))
    show(sink, 5)
    screen.kill()
    with pytest.raises(SinkError, match=r"^The window has gone: window \(its display or its process ended\)$") as told:
        show(sink, 200)
    assert not isinstance(told.value, SinkClosedError)
    sink.close()
    with pytest.raises(SinkError, match=r"There is no window: window \(couldn't connect to display"):
        open_sink("window:on", Setting(CLASSES))


def test_a_window_that_hangs_holds_nobody_up(screen):
    sink = open_sink("window:on", Setting(CLASSES))
    show(sink, 5)
    child = sink._process.pid
    os.kill(child, signal.SIGSTOP)
    began = time.monotonic()
    try:
        for seq in range(10):
            sink.write(made(seq))
    except SinkError as error:
        assert str(error) == "The window does not answer: window"
    assert time.monotonic() - began < 3
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 1.5
    assert not psutil.pid_exists(child)


def test_opening_and_closing_leaves_nothing_behind(screen):
    open_sink("window:on", Setting(CLASSES)).close()
    before = psutil.Process().num_fds()
    for _ in range(5):
        open_sink("window:on", Setting(CLASSES)).close()
    assert psutil.Process().num_fds() == before
