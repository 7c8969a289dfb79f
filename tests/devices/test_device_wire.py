"""The wire format, cut and damaged in every way; and the camera that reads it from a real socket."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.budget import Budget
from edgeunip.devices.open import open_camera
from edgeunip.devices.profiles import find
from edgeunip.devices.wire import FFC, HEADER, MAGIC, RAW, SETTLING, Message, Parser, WireCamera, pack
from edgeunip.errors import SourceError
from edgeunip.frame import State
from edgeunip.thermal import Linear


def message(seq: int, *, size: tuple[int, int] = (3, 5), dtype: type = np.uint16, **fields: object) -> Message:
    random = np.random.default_rng(seq)
    return Message(random.integers(0, np.iinfo(dtype).max, size, dtype), seq, **fields)  # type: ignore[arg-type]


def parse(data: bytes, parser: Parser | None = None) -> list[Message]:
    return list((parser or Parser("x")).feed(data))


def alike(a: Message, b: Message) -> bool:
    same = (a.seq, a.t_ns, a.flags, a.scale, a.offset) == (b.seq, b.t_ns, b.flags, b.scale, b.offset)
    return same and a.counts.dtype == b.counts.dtype and np.array_equal(a.counts, b.counts)


def test_the_bytes_are_those_of_the_table() -> None:
    """Written out by hand, as a user's C program would."""
    counts = np.array([[1, 2], [3, 0x1234]], np.uint16)
    pixels = bytes.fromhex("0100 0200 0300 3412")
    head = b"TFRM" + struct.pack("<HHQQHHHHddII", 1, 1, 7, 99, 2, 2, 16, 0, 0.01, -273.15, 8, zlib.crc32(pixels))
    data = head + struct.pack("<I", zlib.crc32(head)) + pixels
    assert len(head) + 4 == HEADER == 60 and head.startswith(MAGIC)
    sent = Message(counts, 7, 99, FFC, 0.01, -273.15)
    assert pack(sent) == data
    assert alike(parse(data)[0], sent)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_a_frame_comes_as_it_went(seq: int, t_ns: int, height: int, width: int, wide: bool) -> None:
    sent = message(seq % 1000, size=(height, width), dtype=np.uint16 if wide else np.uint8)
    sent = Message(sent.counts, seq, t_ns, flags=5, scale=0.5, offset=-3.0)
    (got,) = parse(pack(sent))
    assert alike(got, sent) and not got.counts.flags.writeable


@given(st.lists(st.integers(1, 200), max_size=60))
def test_however_the_stream_is_cut_the_frames_are_the_same(cuts: list[int]) -> None:
    sent = [message(seq) for seq in range(6)]
    data, parser, got = b"".join(map(pack, sent)), Parser("x"), []
    for cut in [*cuts, len(data)]:
        got += parse(data[:cut], parser)
        data = data[cut:]
    assert len(got) == 6 and all(map(alike, got, sent)) and parser.damaged == 0


@given(st.data())
def test_damage_costs_frames_but_never_gives_a_wrong_one(data: st.DataObject) -> None:
    """Any byte changed, bytes cut out, bytes put in: what comes out is what was sent, and later frames all come."""
    sent = [message(seq) for seq in range(8)]
    before = b"".join(map(pack, sent[:4]))
    spoiled = bytearray(before)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoiled) - 1))
        how = data.draw(st.sampled_from(("change", "cut", "insert")))
        if how == "change":
            spoiled[at] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del spoiled[at : at + data.draw(st.integers(1, 100))]
        else:
            spoiled[at:at] = data.draw(st.binary(min_size=1, max_size=100))
        if not spoiled:
            break
    parser = Parser("x")
    got = parse(bytes(spoiled) + b"".join(map(pack, sent[4:])), parser)
    # Frames need bytes after them where a torn one before them still waits for its own.
    got += parse(bytes(HEADER + 30), parser)
    by_seq = {one.seq: one for one in sent}
    assert all(alike(one, by_seq[one.seq]) for one in got)
    assert [one.seq for one in got][-4:] == [4, 5, 6, 7]
    lost = 8 - len({one.seq for one in got})
    assert lost == 0 or parser.damaged >= 1


@given(st.binary(max_size=400))
def test_noise_is_no_frame_and_is_not_kept(noise: bytes) -> None:
    parser = Parser("x")
    assert parse(noise, parser) == [] and len(parser._buffer) <= HEADER
    assert parser.damaged <= 1


@pytest.mark.parametrize("count", [1, 2, 5])
def test_damaged_frames_are_counted_one_by_one(count: int) -> None:
    parser = Parser("x")
    torn = [pack(message(seq))[:-9] for seq in range(count)]
    corrupt = [pack(message(seq))[:-1] + b"\0" for seq in range(10, 10 + count)]
    good = pack(message(99))
    data = b"".join((good, *torn, good, *corrupt, good))
    assert [one.seq for one in parse(data, parser)] == [99, 99, 99] and parser.damaged == 2 * count


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 2}, "The sender speaks version 2, not 1: unix:x"),
        ({"width": 0}, r"The sender's frames make no sense: unix:x \(0x3 with 16 bits in 30 bytes\)"),
        ({"bits": 32}, "with 32 bits"),
        ({"size": 1 << 31}, "in 2147483648 bytes"),
        ({"width": 65535, "height": 65535, "size": 2 * 65535 * 65535 % (1 << 32)}, "make no sense"),
        ({"scale": float("nan")}, "The sender's temperatures make no sense"),
        ({"scale": -1.0}, "The sender's temperatures make no sense"),
    ],
)
def test_a_sound_header_that_makes_no_sense_is_an_error(fields: dict[str, float], words: str) -> None:
    values = {"version": 1, "width": 5, "height": 3, "bits": 16, "scale": 0.0, "size": 30, **fields}
    head = b"TFRM" + struct.pack(
        "<HHQQHHHHddII",
        *(int(values["version"]), 0, 0, 0, int(values["width"]), int(values["height"]), int(values["bits"]), 0),
        *(values["scale"], 0.0, int(values["size"]), 0),
    )
    with pytest.raises(SourceError, match=words) as caught:
        parse(head + struct.pack("<I", zlib.crc32(head)), Parser("unix:x"))
    assert caught.value.reason == "format"


class Server:
    """A camera program of the test: whoever connects gets ``data``, then silence until the end."""

    def __init__(self, path: Path, data: bytes, *, hang_up: bool = False) -> None:
        self.path = path
        self._data, self._hang_up = data, hang_up
        self._stop = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        with socket.socket(socket.AF_UNIX) as knock:
            knock.connect_ex(str(self.path))
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(self._data)
            if not self._hang_up:
                self._stop.wait()


def quick() -> Budget:
    return Budget(open_s=0.4)


def test_frames_with_their_states_temperatures_and_times(tmp_path: Path) -> None:
    now = time.monotonic_ns()
    sent = [
        message(3, t_ns=now, scale=0.01, offset=-273.15),
        message(5, flags=FFC),
        message(6, flags=SETTLING | RAW, t_ns=now + 10**12),
    ]
    path = tmp_path / "cam.sock"
    with Server(path, b"".join(map(pack, sent)), hang_up=True), open_camera(f"unix:{path}") as camera:
        assert camera.live and camera.name == f"unix:{path}"
        frames = []
        with pytest.raises(SourceError, match="The camera's program ended the connection: unix:") as caught:
            for frame in camera:
                frames.append(frame)
    assert caught.value.reason == "end"
    assert [(one.seq, one.state) for one in frames] == [(3, State.LIVE), (5, State.FFC), (6, State.SETTLING)]
    assert frames[0].radiometry == Linear(0.01, -273.15) and frames[1].radiometry is None
    assert frames[0].t_ns == now and all(0 <= time.monotonic_ns() - one.t_ns < 5e9 for one in frames)
    assert isinstance(camera, WireCamera) and camera.raw


def test_a_profile_says_what_the_counts_mean(tmp_path: Path) -> None:
    path = tmp_path / "cam.sock"
    sent = message(0, size=(120, 160))
    with Server(path, pack(sent)), WireCamera(str(path), profile=find("lepton")) as camera:
        frame = next(iter(camera))
    assert frame.radiometry == find("lepton").radiometry


def test_a_change_of_size_ends_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "cam.sock"
    data = pack(message(0)) + pack(message(1, size=(4, 4)))
    with Server(path, data), WireCamera(str(path)) as camera, pytest.raises(SourceError) as caught:
        list(camera)
    assert str(caught.value) == f"The frames change from uint16 5x3 to uint16 4x4: unix:{path} (at frame 1)"
    assert caught.value.reason == "format"


def test_a_silent_program_is_told_in_time(tmp_path: Path) -> None:
    path = tmp_path / "cam.sock"
    with Server(path, b""), WireCamera(str(path), budget=quick()) as camera:
        begin = time.monotonic()
        with pytest.raises(SourceError, match=r"The camera's program is silent: .* \(0.4 s\)") as caught:
            list(camera)
    assert 0.35 < time.monotonic() - begin < 2 and caught.value.reason == "silence"


def test_closing_ends_a_read_that_waits(tmp_path: Path) -> None:
    path = tmp_path / "cam.sock"
    with Server(path, pack(message(0))):
        with WireCamera(str(path)) as camera:
            seen: list[int] = []
            thread = threading.Thread(target=lambda: seen.extend(frame.seq for frame in camera))
            thread.start()
            time.sleep(0.2)
            begin = time.monotonic()
        thread.join(1)
    assert time.monotonic() - begin < 0.3 and not thread.is_alive() and seen == [0]


def test_why_there_is_no_camera(tmp_path: Path) -> None:
    path = tmp_path / "cam.sock"

    def reason() -> tuple[str, str]:
        with pytest.raises(SourceError) as caught, WireCamera(str(path)):
            pass
        return caught.value.reason, str(caught.value)

    assert reason() == (
        "missing",
        f"The camera's socket is not there: unix:{path} (No such file or directory). Start the program that serves it.",
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    assert path.is_socket() and reason()[0] == "refused"
    long = WireCamera(f"/{'x' * 200}")
    with pytest.raises(SourceError, match="too long") as caught, long:
        pass
    assert caught.value.reason == "error"


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for index in range(20):
        path = tmp_path / f"{index}.sock"
        with Server(path, pack(message(0))), WireCamera(str(path)) as camera:
            next(iter(camera))
    with pytest.raises(SourceError), WireCamera(str(tmp_path / "none")):
        pass
    assert descriptors() == before


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before
