"""RTSP against a small real server on 127.0.0.1: H.264 over interleaved RTP, passwords, and every way to fail."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import av
import numpy as np
import pytest
from device_video import image

from edgeunip.devices import rtsp
from edgeunip.devices.open import open_camera
from edgeunip.errors import SourceError

CANARY = "c4nary-Secret"
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=thermal\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=framerate:25\r\na=fmtp:96 packetization-mode=1\r\n"
    "a=control:track1\r\n"
)


class RtspServer:
    """Serves one client, or any number that get nothing: ``mode`` is what happens to it.

    ``play`` sends ``frames`` pictures and closes; ``hold`` falls silent instead; ``close`` closes at once; ``mute``
    never answers; ``reset`` cuts the connection; ``missing`` answers 404.
    """

    def __init__(self, mode: str = "play", *, frames: int = 40) -> None:
        self._mode, self._frames = mode, frames
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> RtspServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with socket.socket() as knock:
            knock.connect_ex(("127.0.0.1", self.port))
        self._thread.join(5)
        self._listener.close()

    def url(self, *, password: str = CANARY) -> str:
        return f"rtsp://operator:{password}@127.0.0.1:{self.port}/thermal?token={CANARY}"

    def _serve(self) -> None:
        self._serve_one()
        while self._mode in ("close", "reset") and not self._stop.is_set():
            self._serve_one()

    def _serve_one(self) -> None:
        client, _ = self._listener.accept()
        with client:
            client.settimeout(5)
            # An error here is the client going away.
            with contextlib.suppress(OSError):
                if self._mode == "mute":
                    self._stop.wait(8)
                elif self._mode == "close":
                    client.recv(4096)
                elif self._mode == "reset":
                    client.recv(1)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        buffer = b""
        while not self._stop.is_set():
            while b"\r\n\r\n" not in buffer:
                if not (data := client.recv(4096)):
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            method = lines[0].split()[0]
            fields = dict(line.split(": ", 1) for line in lines[1:])
            client.sendall(self._answer(method, fields))
            if method == "PLAY":
                self._play(client)
                return

    def _answer(self, method: str, fields: dict[str, str]) -> bytes:
        status, extra, body = "200 OK", "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif fields.get("Authorization") != f"Basic {base64.b64encode(f'operator:{CANARY}'.encode()).decode()}":
            status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n'
        elif self._mode == "missing":
            status = "404 Not Found"
        elif method == "DESCRIBE":
            body, extra = SDP, "Content-Type: application/sdp\r\n"
        elif method == "SETUP":
            extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        head = f"RTSP/1.0 {status}\r\nCSeq: {fields['CSeq']}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        return (head + body).encode()

    def _play(self, client: socket.socket) -> None:
        number = 0
        for index, units in enumerate(_pictures(self._frames)):
            for last, unit in ((unit is units[-1], unit) for unit in units):
                rtp = struct.pack(">BBHII", 0x80, 96 | (last << 7), number, index * 3600, 7) + unit
                client.sendall(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
                number += 1
            if self._stop.wait(0.02):
                return
        if self._mode == "hold":
            self._stop.wait(8)


def _pictures(count: int) -> Iterator[list[bytes]]:
    """Yield the H.264 units of ``count`` pictures: a horizontal ramp."""
    ramp = np.tile(np.arange(30, 222, 3, dtype=np.uint8), (48, 1))
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.framerate = 25
    encoder.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "5", "x264-params": "repeat-headers=1"}
    for _ in range(count):
        for packet in encoder.encode(image(ramp, "yuv420p")):
            units = bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
            yield [unit for unit in units if unit]


def assert_no_secret(error: BaseException) -> None:
    """The canary stands in no message on the way: not in the error's, nor in what it came from."""
    chain: BaseException | None = error
    while chain is not None:
        assert CANARY not in str(chain) and CANARY not in repr(chain)
        chain = chain.__cause__ or chain.__context__


def test_frames_come_and_the_end_of_the_stream_is_a_fault() -> None:
    seen = []
    with RtspServer() as server, open_camera(server.url()) as camera:
        assert camera.live and camera.name == f"rtsp://***@127.0.0.1:{server.port}/thermal?***"
        assert camera.rate_hz == pytest.approx(25)
        with pytest.raises(SourceError) as caught:
            for frame in camera:
                seen.append(frame.seq)
                assert frame.counts.dtype == np.uint8 and frame.counts.shape == (48, 64)
                assert np.abs(frame.counts[:, 3:-3] - np.arange(30, 222, 3.0)[3:-3]).mean() < 4
    assert str(caught.value) == f"The live source ended: {camera.name} (end of stream). Is the camera still on?"
    assert caught.value.reason == "end"
    assert_no_secret(caught.value)
    assert len(seen) > 5 and seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("mode", "password", "words", "reason"),
    [
        ("close", CANARY, r"The RTSP stream failed: rtsp://\*\*\*@127.*\(it hung up before an answer\)", "end"),
        ("reset", CANARY, r"\(Connection reset by peer\)\. Is the camera still on", "reset"),
        ("missing", CANARY, r"\(.*404 Not Found\)\. Check the path", "missing"),
        ("play", f"wrong{CANARY}", r"\(.*401 Unauthorized.*\)\. Check user name and password", "permission"),
        ("mute", CANARY, r"\(no answer in time\)\. Check the address", "timeout"),
    ],
)
def test_a_failure_says_why_in_time_and_tells_no_secret(
    mode: str, password: str, words: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtsp, "LIMIT_S", 1.5)
    begin = time.monotonic()
    with (
        RtspServer(mode) as server,
        pytest.raises(SourceError, match=words) as caught,
        open_camera(server.url(password=password)),
    ):
        pass
    assert time.monotonic() - begin < 5 and caught.value.reason == reason
    assert_no_secret(caught.value)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"rtsp://operator:{CANARY}@127.0.0.1:{port}/x?token={CANARY}"
    with pytest.raises(SourceError, match=r"Connection refused\)\. Check the port") as caught, open_camera(url):
        pass
    assert caught.value.reason == "refused"
    assert_no_secret(caught.value)


def test_closing_while_the_server_is_silent_ends_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtsp, "LIMIT_S", 1.5)
    with RtspServer("hold", frames=20) as server:
        with open_camera(server.url()) as camera:
            thread = threading.Thread(target=lambda: list(camera))
            thread.start()
            time.sleep(0.8)
            begin = time.monotonic()
        assert time.monotonic() - begin < 1.0, "a read that hangs is not waited for"
        thread.join(2.0)
        assert not thread.is_alive()
