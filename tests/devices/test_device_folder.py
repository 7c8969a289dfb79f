from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeunip.devices.open import open_camera
from edgeunip.errors import DataError, SourceError
from edgeunip.frame import State
from edgeunip.thermal import Planck

RNG = np.random.default_rng(7)


def save(path: Path, dtype: type[np.generic], *, size: tuple[int, int] = (6, 8)) -> NDArray[np.generic]:
    counts = RNG.integers(0, np.iinfo(dtype).max, size).astype(dtype)
    cv2.imwrite(str(path), counts)
    return counts


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tiff", "PNG"])
def test_every_image_in_the_order_of_names_bit_exact(tmp_path: Path, dtype: type[np.generic], suffix: str) -> None:
    written = {name: save(tmp_path / f"{name}.{suffix}", dtype) for name in ("b", "c", "a")}
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not an image")
    before = time.monotonic_ns()
    with open_camera(str(tmp_path)) as camera:
        frames = list(camera)
    assert (camera.live, camera.rate_hz, camera.name) == (False, None, str(tmp_path))
    assert [frame.seq for frame in frames] == [0, 1, 2]
    assert before <= frames[0].t_ns <= frames[1].t_ns <= frames[2].t_ns <= time.monotonic_ns()
    for frame, name in zip(frames, "abc", strict=True):
        assert frame.counts.dtype == dtype and np.array_equal(frame.counts, written[name])
        assert frame.state is State.LIVE and frame.radiometry is None


def test_a_camera_opens_twice(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.uint16)
    camera = open_camera(str(tmp_path))
    for _ in range(2):
        with camera:
            assert len(list(camera)) == 1


def test_a_single_image_is_a_camera(tmp_path: Path) -> None:
    counts = save(tmp_path / "a.png", np.uint16)
    with open_camera(str(tmp_path / "a.png"), profile="lepton") as camera:
        (frame,) = camera
    assert np.array_equal(frame.counts, counts) and frame.radiometry is not None


@pytest.mark.parametrize(
    ("dtype", "size", "words"), [(np.uint8, (6, 8), "8x6 with 8 bits"), (np.uint16, (6, 9), "9x6 with 16 bits")]
)
def test_images_that_differ_are_refused_by_name(
    tmp_path: Path, dtype: type[np.generic], size: tuple[int, int], words: str
) -> None:
    save(tmp_path / "a.png", np.uint16)
    save(tmp_path / "b.png", dtype, size=size)
    with open_camera(str(tmp_path)) as camera, pytest.raises(DataError) as caught:
        list(camera)
    assert f"The image is {words}, and the first one, a.png, is 8x6 with 16 bits: {tmp_path}/b.png" in str(caught.value)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.uint16)
    save(tmp_path / "b.png", np.uint16)
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with open_camera(str(tmp_path)) as camera:
        frames = iter(camera)
        next(frames)
        with pytest.raises(DataError, match=r"truncated: .*/b\.png"):
            next(frames)


def test_a_folder_without_images_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(SourceError, match=r"holds no images: .*Did you mean .*/images\?"), open_camera(str(tmp_path)):
        pass


def test_closing_from_another_thread_ends_the_iteration(tmp_path: Path) -> None:
    for index in range(200):
        save(tmp_path / f"{index:03}.png", np.uint16)
    camera, seen = open_camera(str(tmp_path)), []

    def consume() -> None:
        for frame in camera:
            seen.append(frame.seq)
            time.sleep(0.01)

    with camera:
        thread = threading.Thread(target=consume)
        thread.start()
        time.sleep(0.1)
    thread.join(1.0)
    assert not thread.is_alive() and 0 < len(seen) < 200


def test_real_lepton_frames_come_as_recorded(raw16: Path) -> None:
    recorded = np.load(raw16 / "lepton" / "lepton_a.npz")["frames"]
    with open_camera(str(raw16 / "lepton" / "lepton_a_png16")) as camera:
        frames = list(camera)
    assert len(frames) == 10
    for index, frame in enumerate(frames):
        assert frame.counts.dtype == np.uint16 and np.array_equal(frame.counts, recorded[10 * index])


def test_real_radiometric_jpegs_bring_their_temperatures(raw16: Path, tmp_path: Path) -> None:
    raw = cv2.imread(str(raw16 / "flir_jpeg" / "flir_15_raw16.png"), cv2.IMREAD_UNCHANGED)
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(raw16 / "flir_jpeg" / "flir_15.jpg", tmp_path / name)
    with open_camera(str(tmp_path)) as camera:
        frames = list(camera)
    assert len(frames) == 2
    for frame in frames:
        assert np.array_equal(frame.counts, raw) and isinstance(frame.radiometry, Planck)
        celsius = frame.radiometry.celsius(frame.counts)
        assert np.isfinite(celsius).all() and -40 < celsius.min() < celsius.max() < 200
    with open_camera(str(tmp_path), profile="raw") as camera:
        assert all(frame.radiometry is None for frame in camera)


def test_the_mixed_folder_of_real_jpegs_is_refused_by_name(raw16: Path) -> None:
    with open_camera(str(raw16 / "flir_jpeg")) as camera, pytest.raises(DataError, match=r"flir_\d\d.*jpg"):
        list(camera)
