"""Live cameras against real sockets: a server of ours sends FFV1 in NUT, and fails in every way a camera does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import av
import numpy as np
import pytest
from av.container import InputContainer
from device_video import image

from edgeunip.devices.live import LiveCamera
from edgeunip.devices.profiles import Profile, find
from edgeunip.errors import SourceError

PERIOD_S = 0.02


class Server:
    """Sends one client ``count`` 16-bit frames whose pixels all hold its number and 20 degC, then closes or holds."""

    def __init__(self, *, count: int, hold: bool = False) -> None:
        self._count, self._hold = count, hold
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._socket.getsockname()[1]}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with socket.socket() as knock:  # ends an accept() that nobody answered
            knock.connect_ex(self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        # An error here is the client going away.
        with client, contextlib.suppress(OSError, av.FFmpegError), client.makefile("wb", buffering=0) as wire:
            self._send(wire)

    def _send(self, wire: object) -> None:
        with av.open(wire, "w", format="nut", options={"flush_packets": "1"}) as container:
            stream = container.add_stream("rawvideo", rate=round(1 / PERIOD_S))
            stream.width, stream.height, stream.pix_fmt = 160, 120, "gray16le"
            for number in range(self._count):
                container.mux(stream.encode(image(np.full((120, 160), 29315 + number, np.uint16), "gray16le")))
                if self._stop.wait(PERIOD_S):
                    return
            if self._hold:
                self._stop.wait()


def open_live(url: str, *, limit_s: float = 5.0, profile: Profile | None = None) -> LiveCamera:
    def explain(error: av.FFmpegError) -> SourceError:
        return SourceError("Lost", where="CAM", why=error.strerror)

    def connect() -> InputContainer:
        return av.open(url, format="nut", options={"fpsprobesize": "0"}, timeout=limit_s)

    return LiveCamera("CAM", connect, explain=explain, profile=profile)


def test_every_frame_for_a_quick_consumer_then_the_end_is_a_fault() -> None:
    seen = []
    with Server(count=30) as server, open_live(server.url, profile=find("lepton")) as camera:
        assert camera.live and camera.name == "CAM"
        with pytest.raises(SourceError, match=r"The live source ended: CAM \(end of stream\)"):
            for frame in camera:
                seen.append(frame.seq)
                assert frame.counts.shape == (120, 160) and (frame.counts == 29315 + frame.seq).all()
                assert 0 <= time.monotonic_ns() - frame.t_ns < 1e9 and frame.radiometry is not None
    assert seen[-1] == 29 and seen == sorted(set(seen)) and len(seen) >= 15


def test_a_silent_camera_is_lost_after_its_time() -> None:
    with Server(count=20, hold=True) as server, open_live(server.url, limit_s=0.4) as camera:
        with pytest.raises(SourceError, match=r"Lost: CAM \(Immediate exit requested\)"):
            for _ in camera:
                last = time.monotonic()
        assert 0.35 < time.monotonic() - last < 1.5


@pytest.mark.parametrize("hold", [False, True])
def test_closing_from_another_thread_ends_the_iteration(hold: bool) -> None:
    """At once while frames come. A read that hangs is not waited for; the iteration ends when its time is over."""
    with Server(count=10 if hold else 500, hold=hold) as server:
        with open_live(server.url, limit_s=1.5) as camera:
            thread = threading.Thread(target=lambda: list(camera))
            thread.start()
            time.sleep(0.5)
            begin = time.monotonic()
        assert time.monotonic() - begin < 1.0 and camera._container is None
        thread.join(2.0 if hold else 0.5)
        assert not thread.is_alive()


def test_it_may_be_opened_again_while_the_read_before_still_hangs() -> None:
    with Server(count=10, hold=True) as first, Server(count=10) as second:
        servers = [first, second]
        camera = open_live(first.url)
        camera._connect = lambda: open_live(servers.pop(0).url)._connect()
        with camera:
            thread = threading.Thread(target=lambda: list(camera))
            thread.start()
            time.sleep(0.5)
        with camera:
            assert next(iter(camera)).seq == 0
    thread.join(2.0)
    assert not thread.is_alive()


def test_a_source_that_never_was() -> None:
    with pytest.raises(SourceError, match=r"Lost: CAM \(Connection refused\)"), open_live("tcp://127.0.0.1:1"):
        pass


def test_a_source_that_ends_before_its_first_frame() -> None:
    begin = time.monotonic()
    with pytest.raises(SourceError, match="CAM"), Server(count=0) as server, open_live(server.url) as camera:
        list(camera)
    assert time.monotonic() - begin < 5


def test_the_threads_are_gone_afterwards() -> None:
    before = threading.active_count()
    for _ in range(3):
        with Server(count=200) as server, open_live(server.url) as camera:
            next(iter(camera))
    assert threading.active_count() == before


def test_a_fault_of_ours_is_not_swallowed() -> None:
    """What no camera explains, such as a bug, reaches the consumer unchanged."""

    def connect() -> InputContainer:
        raise ZeroDivisionError("bug")

    camera = LiveCamera("CAM", connect, explain=lambda error: SourceError("no"))
    with pytest.raises(ZeroDivisionError, match="bug"), camera:
        pass
