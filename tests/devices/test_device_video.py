from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip.devices.open import open_camera
from edgeunip.errors import SourceError

WriteVideo = Callable[..., Path]
HEIGHT, WIDTH = 18, 22


def noise(bits: int, count: int = 5, *, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> list[NDArray[np.generic]]:
    dtype = np.uint8 if bits <= 8 else np.uint16
    return [np.random.default_rng(seed).integers(0, 1 << bits, shape).astype(dtype) for seed in range(count)]


@pytest.mark.parametrize("container", ["mkv", "avi", "nut", "mp4"])
def test_16_bits_come_back_bit_exact(write_video: WriteVideo, container: str) -> None:
    written = noise(16)
    path = write_video(f"a.{container}", written, "gray16le")
    with open_camera(str(path)) as camera:
        frames = list(camera)
    assert (camera.live, camera.rate_hz, camera.name) == (False, 25.0, str(path))
    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]
    for frame, counts in zip(frames, written, strict=True):
        assert frame.counts.dtype == np.uint16 and np.array_equal(frame.counts, counts)
        assert frame.radiometry is None


@pytest.mark.parametrize(
    ("pixel_format", "bits", "codec"),
    [
        ("gray", 8, "ffv1"),
        ("gray10le", 10, "ffv1"),
        ("gray12le", 12, "ffv1"),
        ("gray16be", 16, "rawvideo"),
        ("yuv420p", 8, "ffv1"),
        ("yuv444p16le", 16, "ffv1"),
        ("nv12", 8, "rawvideo"),
    ],
)
def test_every_gray_and_luma_keeps_its_values(
    write_video: WriteVideo, pixel_format: str, bits: int, codec: str
) -> None:
    written = noise(bits)
    on_disk = [counts.astype(">u2") for counts in written] if pixel_format.endswith("be") else written
    with open_camera(str(write_video("a.nut", on_disk, pixel_format, codec=codec))) as camera:
        read = [frame.counts for frame in camera]
    for counts, expected in zip(read, written, strict=True):
        assert counts.dtype == (np.uint8 if bits == 8 else np.uint16)
        assert np.array_equal(counts, expected)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_the_luma_of_a_lossy_video(write_video: WriteVideo, codec: str) -> None:
    ramp = np.tile(np.arange(30, 222, 3, dtype=np.uint8), (48, 1))
    path = write_video("a.mp4", [ramp] * 6, "yuv420p", codec=codec)
    with open_camera(str(path)) as camera:
        frames = list(camera)
    assert len(frames) == 6
    for frame in frames:
        assert frame.counts.dtype == np.uint8 and frame.counts.shape == (48, 64)
        assert np.abs(frame.counts.astype(int) - ramp).mean() < 3


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_split_frame_gives_the_counts_of_its_lower_half(write_video: WriteVideo, seed: int) -> None:
    wire = [np.random.default_rng(seed + index).integers(0, 256, (384, 512), np.uint8) for index in range(2)]
    path = write_video("a.nut", wire, "yuyv422", codec="rawvideo")
    with open_camera(str(path), profile="tc001") as camera:
        frames = list(camera)
    for frame, sent in zip(frames, wire, strict=True):
        assert frame.counts.shape == (192, 256)
        assert frame.counts.astype("<u2").tobytes() == sent[192:].tobytes()
    with open_camera(str(path)) as camera:
        assert np.array_equal(next(iter(camera)).counts, wire[0][:, ::2])


def test_a_split_video_that_was_transcoded_is_refused(write_video: WriteVideo) -> None:
    path = write_video("a.mp4", noise(8, shape=(384, 256)), "yuv420p", codec="libx264")
    with (
        open_camera(str(path), profile="tc001") as camera,
        pytest.raises(SourceError, match=r"needs 16-bit counts.*lossy codec"),
    ):
        list(camera)


def test_colours_without_luma_are_refused(write_video: WriteVideo) -> None:
    path = write_video("a.nut", noise(8), "bgr0")
    with open_camera(str(path)) as camera, pytest.raises(SourceError, match=r"pixel format bgr0.*: .*a\.nut"):
        list(camera)


@pytest.mark.parametrize("container", ["mkv", "avi", "nut", "mp4"])
def test_a_video_cut_off_is_an_error_after_its_whole_frames(write_video: WriteVideo, container: str) -> None:
    written = noise(16, 50)
    path = write_video(f"a.{container}", written, "gray16le")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    seen = []
    with pytest.raises(SourceError) as caught, open_camera(str(path)) as camera:
        for frame in camera:
            assert np.array_equal(frame.counts, written[frame.seq])
            seen.append(frame.seq)
    assert str(path) in str(caught.value)
    # An mp4 keeps its index at the end: nothing can be read of it.
    assert len(seen) == 0 if container == "mp4" else 25 <= len(seen) <= 31


def test_a_whole_video_is_not_taken_for_a_cut_one(write_video: WriteVideo) -> None:
    for container in ("mkv", "mp4"):
        for codec, pixel_format in (("ffv1", "gray"), ("libx264", "yuv420p")):
            path = write_video(f"a.{container}", noise(8, 60), pixel_format, codec=codec, rate=9)
            with open_camera(str(path)) as camera:
                assert len(list(camera)) == 60


@pytest.mark.parametrize("name", ["a.txt", "a.cptv", "a.npz", "a.y16", "a.mkv", "empty.mkv", "list.m3u8"])
def test_what_is_no_video_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = {"a.txt": b"hello\n" * 50, "empty.mkv": b"", "list.m3u8": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"}
    path.write_bytes(content.get(name, bytes(range(256)) * 20))
    with pytest.raises(SourceError, match=name), open_camera(str(path)) as camera:
        list(camera)


def test_closing_from_another_thread_ends_the_iteration(write_video: WriteVideo) -> None:
    camera = open_camera(str(write_video("a.mkv", noise(16, 200), "gray16le")))
    for pause_s in (0.0, 0.002):
        seen = _consume_until_closed(camera, pause_s)
        assert seen == list(range(len(seen)))


def _consume_until_closed(camera: object, pause_s: float) -> list[int]:
    seen: list[int] = []

    def consume() -> None:
        for frame in camera:
            seen.append(frame.seq)
            time.sleep(pause_s)

    with camera:
        thread = threading.Thread(target=consume)
        thread.start()
        time.sleep(0.02)
    thread.join(2.0)
    assert not thread.is_alive()
    return seen


def test_a_camera_opens_twice(write_video: WriteVideo) -> None:
    camera = open_camera(str(write_video("a.mkv", noise(16), "gray16le")))
    for _ in range(2):
        with camera:
            assert len(list(camera)) == 5
