"""The picture pushed to a real RTSP server, which writes it to a file that is read back."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from live_results import CLASSES, made, noisy
from services import Service, answers, free_port, needs, wait_for

from edgeunip.errors import SinkError
from edgeunip.runtimes.outlet import Outlet, Port
from edgeunip.runtimes.overlay import Overlay
from edgeunip.runtimes.sinks import Setting, open_sink

pytestmark = pytest.mark.system
CANARY = "c4n@ry/%41?"
PYTHON = "/usr/bin/python3"


def recorder(folder, paths="thermal", login=None):
    """GstRtspServer that writes what comes; ``server.port`` is where."""
    needs(PYTHON)
    port = free_port()
    command = [PYTHON, str(Path(__file__).with_name("rtsp_record.py")), str(port), str(folder), paths]
    service = Service([*command, *([login] if login else [])], ready=lambda: answers(port))
    service.port = port
    return service


@pytest.fixture
def server(tmp_path):
    with recorder(tmp_path) as server:
        yield server


def push(sink, results, *, rate_hz=50.0):
    for result in results:
        sink.write(replace(result, frame=replace(result.frame, t_ns=time.monotonic_ns())))
        time.sleep(1 / rate_hz)


def push_until_it_fails(sink, results, seconds=20):
    """Return the fault, after how long, and the longest write."""
    began, longest = time.monotonic(), 0.0
    while time.monotonic() - began < seconds:
        for result in results:
            before = time.monotonic()
            try:
                sink.write(replace(result, frame=replace(result.frame, t_ns=time.monotonic_ns())))
            except SinkError as error:
                return error, time.monotonic() - began, longest
            longest = max(longest, time.monotonic() - before)
            time.sleep(0.02)
    raise AssertionError(f"no fault within {seconds} s")


def pictures(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]


def test_what_is_pushed_is_what_arrives(server, tmp_path):
    sink = open_sink(f"rtsp://127.0.0.1:{server.port}/thermal", Setting(CLASSES))
    results = [made(seq) for seq in range(0, 120, 2)]
    push(sink, results, rate_hz=25)
    sink.close()
    sink.close()
    time.sleep(0.5)
    shown = pictures(tmp_path / "thermal.ts")
    assert 50 <= len(shown) <= 60  # the newest replaces one that still waits
    drawn = Overlay(CLASSES).draw(results[-1])
    assert shown[-1].shape == drawn.shape
    assert np.abs(shown[-1].astype(int) - drawn).mean() < 8


def test_every_camera_has_its_path(tmp_path):
    with recorder(tmp_path, "cam/a,cam/b") as server:
        sinks = [open_sink(f"rtsp://127.0.0.1:{server.port}/cam/{name}", Setting(CLASSES, (name,))) for name in "ab"]
        for seq in range(30):
            for sink, name in zip(sinks, "ab", strict=True):
                push(sink, [replace(made(seq), camera=name)])
        for sink in sinks:
            sink.close()
        time.sleep(0.5)
    for name in "ab":
        assert len(pictures(tmp_path / f"cam_{name}.ts")) >= 20


def test_a_password(tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with recorder(tmp_path, login=f"operator:{CANARY}") as server:
        address = f"rtsp://127.0.0.1:{server.port}/thermal"
        monkeypatch.setenv("EDGEUNIP_RTSP_OUT_PASSWORD", CANARY)
        sink = open_sink(f"{address}?user=operator", Setting(CLASSES))
        push(sink, [made(seq) for seq in range(30)])
        sink.close()
        monkeypatch.setenv("EDGEUNIP_RTSP_OUT_PASSWORD", CANARY + "-wrong")
        sink = open_sink(f"{address}?user=operator", Setting(CLASSES))
        error, _, _ = push_until_it_fails(sink, [made(0)])
        sink.close()
        time.sleep(0.5)
    assert str(error) == (
        f"The RTSP server cannot be pushed to: {address} (Server returned 401 Unauthorized (authorization failed)). "
        "Check user= and password_file=, or EDGEUNIP_RTSP_OUT_PASSWORD."
    )
    assert len(pictures(tmp_path / "thermal.ts")) >= 20
    written = capfd.readouterr()
    assert not any("c4n" in text for text in (caplog.text, written.out, written.err, sink.name))


def test_a_path_that_is_not_there(server):
    sink = open_sink(f"rtsp://127.0.0.1:{server.port}/other", Setting(CLASSES))
    error, _, _ = push_until_it_fails(sink, [made(0)])
    assert "404 Not Found" in str(error)
    sink.close()


def test_a_killed_server_is_told_at_once(server):
    sink = open_sink(f"rtsp://127.0.0.1:{server.port}/thermal", Setting(CLASSES))
    push(sink, [made(seq) for seq in range(20)])
    server.kill()
    error, after_s, longest_s = push_until_it_fails(sink, [made(0), made(1)])
    assert str(error).startswith(f"The RTSP server cannot be pushed to: rtsp://127.0.0.1:{server.port}/thermal (")
    assert after_s < 2
    assert longest_s < 0.5
    sink.close()


def test_a_stopped_server_holds_nobody_up(server):
    sink = open_sink(f"rtsp://127.0.0.1:{server.port}/thermal", Setting(CLASSES))
    results = [noisy(seq) for seq in range(3)]  # fills what the kernel holds for the server
    push(sink, results)
    server.stop()
    error, after_s, longest_s = push_until_it_fails(sink, results)
    assert str(error) == f"The RTSP server takes nothing: rtsp://127.0.0.1:{server.port}/thermal"
    assert after_s < 15
    assert longest_s < 0.5
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 1.5
    again = open_sink(f"rtsp://127.0.0.1:{server.port}/thermal", Setting(CLASSES))
    error, after_s, longest_s = push_until_it_fails(again, results)
    assert after_s < 5
    again.close()
    server.resume()
    wait_for(lambda: not any(thread.name.startswith("push") for thread in threading.enumerate()), 20)


def test_the_outlet_brings_it_back(server, tmp_path):
    setting, address = Setting(CLASSES), f"rtsp://127.0.0.1:{server.port}/thermal"
    ended = threading.Event()
    port = Port(address, lambda: open_sink(address, setting))
    outlet = Outlet(port, live=True, on_end=lambda _: ended.set())
    results = [made(seq) for seq in range(10)]

    def offer(seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for result in results:
                outlet.queue.put((replace(result, frame=replace(result.frame, t_ns=time.monotonic_ns())), lambda: None))
                time.sleep(0.02)

    offer(1)
    assert outlet.status.running
    server.kill()
    offer(1.5)
    assert not outlet.status.running
    (tmp_path / "thermal.ts").unlink()
    server.start()
    offer(8)
    assert outlet.status.running
    outlet.queue.close()
    assert ended.wait(5)
    time.sleep(0.3)
    assert len(pictures(tmp_path / "thermal.ts")) > 50


def test_many_pushes_leave_nothing_behind(server):
    import psutil

    sink = None
    for _ in range(12):
        sink = open_sink(f"rtsp://127.0.0.1:{server.port}/thermal", Setting(CLASSES))
        push(sink, [made(seq) for seq in range(3)])
        sink.close()
        if _ == 1:
            before = psutil.Process().num_fds(), threading.active_count()
    assert (psutil.Process().num_fds(), threading.active_count()) == before
