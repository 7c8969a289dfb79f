from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip.devices import corrected
from edgeunip.devices.bad_pixels import find_bad_pixels
from edgeunip.devices.correct import Correction, flat_field
from edgeunip.devices.open import open_camera
from edgeunip.errors import DataError
from edgeunip.sensors import SENSORS, SensorModel
from edgeunip.thermal import Counts


def _by_definition(counts: Counts, bad: NDArray[np.bool_]) -> Counts:
    mended, (height, width) = counts.copy(), counts.shape
    for y, x in np.argwhere(bad):
        for reach in range(1, max(height, width)):
            near = [
                int(counts[v, u])
                for v in range(max(0, y - reach), min(height, y + reach + 1))
                for u in range(max(0, x - reach), min(width, x + reach + 1))
                if not bad[v, u]
            ]
            if len(near) >= 3:
                mended[y, x] = int(statistics.median(near))
                break
    return mended


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(6, 24), st.integers(6, 24), st.booleans())
def test_each_bad_pixel_becomes_the_median_of_its_good_neighbours(
    seed: int, rows: int, columns: int, wide: bool
) -> None:
    rng = np.random.default_rng(seed)
    kind = np.uint16 if wide else np.uint8
    counts = rng.integers(0, np.iinfo(kind).max, (rows, columns), kind, endpoint=True)
    bad = np.zeros((rows, columns), np.bool_)
    # Clusters: the neighbours of bad pixels are often bad themselves.
    y, x = int(rng.integers(rows)), int(rng.integers(columns))
    for _ in range(max(1, int(0.05 * rows * columns)) if rows * columns >= 20 else 0):
        bad[y, x] = bad.sum() < int(0.05 * bad.size) or bad[y, x]
        y, x = (y + int(rng.integers(-1, 2))) % rows, (x + int(rng.integers(-1, 2))) % columns
    before = counts.copy()
    assert np.array_equal(Correction(bad).apply(counts), _by_definition(counts, bad))
    assert np.array_equal(counts, before)


def test_a_cluster_in_a_corner() -> None:
    counts = np.arange(400, dtype=np.uint16).reshape(20, 20)
    bad = np.zeros((20, 20), np.bool_)
    bad[:4, :4] = True
    assert np.array_equal(Correction(bad).apply(counts), _by_definition(counts, bad))


def test_a_hundred_pixels_of_a_large_frame_take_little_time() -> None:
    rng = np.random.default_rng(0)
    bad = np.zeros((512, 640), np.bool_)
    bad.reshape(-1)[rng.choice(bad.size, 100, replace=False)] = True
    counts = rng.integers(0, 65536, bad.shape, np.uint16)
    correction = Correction(bad)
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        correction.apply(counts)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.5e-3


def test_too_many_bad_pixels_are_no_map() -> None:
    bad = np.zeros((20, 20), np.bool_)
    bad[:2] = True
    with pytest.raises(DataError, match=r"holds 10\.0 % of them .*cameras badpixels"):
        Correction(bad)


def test_the_flat_field_is_subtracted_without_wrapping() -> None:
    flat = np.array([[5, -5], [300, -300]], np.int16)
    for kind, values, want in (
        (np.uint16, [[2, 65533], [1000, 1000]], [[0, 65535], [700, 1300]]),
        (np.uint8, [[2, 253], [100, 100]], [[0, 255], [0, 255]]),
    ):
        counts = np.array(values, kind)
        got = Correction(np.zeros((2, 2), np.bool_), flat).apply(counts)
        assert got.dtype == kind and got.tolist() == want


def test_a_flat_field_levels_the_fixed_pattern_and_keeps_the_mean() -> None:
    frames = _exposures("tc001", 3, 32)
    bad = find_bad_pixels(frames).bad
    flat = flat_field(frames, bad)
    assert abs(float(flat.mean())) < 0.5
    fresh = _exposures("tc001", 3, 34)[-1]
    before, after = Correction(bad).apply(fresh), Correction(bad, flat).apply(fresh)
    assert abs(float(after.mean()) - float(before.mean())) < 0.6
    # What is left is the noise from frame to frame: 0.06 K at 64 counts a kelvin.
    assert float(after.std()) < 1.25 * 0.06 * 64 < 0.9 * float(before.std())


def _exposures(name: str, seed: int, count: int) -> NDArray[np.uint16]:
    sensor = SENSORS[name]
    model = SensorModel(sensor, seed)
    wall = np.full((sensor.height, sensor.width), 23.0, np.float32)
    return np.stack([model.expose(wall, number / sensor.rate_hz)[0] for number in range(count)]).astype(np.uint16)


@pytest.mark.parametrize("name", ["lepton", "tc001", "boson"])
def test_stuck_pixels_of_a_synthetic_sensor_are_found_and_no_other(name: str) -> None:
    frames = _exposures(name, 7, 24)
    planted = SensorModel(SENSORS[name], 7).bad_pixels
    assert planted.size >= 2
    found = find_bad_pixels(frames)
    assert np.array_equal(np.flatnonzero(found.bad), planted)
    assert np.array_equal(np.flatnonzero(found.stuck), planted)


def test_planted_pixels_are_found_by_their_kind() -> None:
    rng = np.random.default_rng(5)
    frames = rng.normal(30_000, 5, (32, 120, 160))
    frames[:, 10, 10] += 400  # far off, but alive
    frames[:, 20, 20] = 30_000  # right, but dead
    frames[:, 30, 30] += np.tile([90, -90], 16)
    frames[:, 40, 40] = 0
    found = find_bad_pixels(frames.round().astype(np.uint16))
    assert np.argwhere(found.off).tolist() == [[10, 10], [40, 40]]
    assert np.argwhere(found.stuck).tolist() == [[20, 20], [40, 40]]
    assert [30, 30] in np.argwhere(found.noisy).tolist() and found.bad.sum() == 4
    assert found.noise == pytest.approx(5, rel=0.1)


def test_a_good_sensor_has_no_bad_pixel() -> None:
    frames = np.random.default_rng(6).normal(30_000, 5, (64, 240, 320)).round().astype(np.uint16)
    assert not find_bad_pixels(frames).bad.any()


def test_repeated_frames_do_not_count() -> None:
    frames = np.repeat(np.random.default_rng(6).integers(0, 60_000, (5, 20, 20)).astype(np.uint16), 10, axis=0)
    with pytest.raises(DataError, match="needs 16 different frames, and these are 5"):
        find_bad_pixels(frames)


def test_a_real_scene_is_not_taken_for_a_uniform_one(raw16: Path) -> None:
    frames = np.load(raw16 / "lepton" / "lepton_a.npz")["frames"]
    with pytest.raises(DataError, match=r"look bad .*not uniform"):
        find_bad_pixels(frames)


def test_pixels_planted_in_a_real_low_contrast_clip_are_found(raw16: Path) -> None:
    frames = np.load(raw16 / "lepton" / "lepton_b.npz")["frames"][:48].copy()
    clean = find_bad_pixels(frames).bad
    frames[:, 60, 80], frames[:, 5, 150] = 3_500, 2_000
    found = find_bad_pixels(frames)
    assert found.off[60, 80] and found.stuck[60, 80] and found.off[5, 150]
    assert clean.sum() < 0.005 * clean.size
    assert set(np.flatnonzero(found.bad)) - set(np.flatnonzero(clean)) <= {60 * 160 + 80, 5 * 160 + 150}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEUNIP_CAMERAS", str(tmp_path / "cameras"))
    return tmp_path / "cameras"


def test_a_correction_comes_back_as_it_was_kept(store: Path) -> None:
    bad = np.zeros((60, 80), np.bool_)
    bad[3, 4] = True
    flat = np.random.default_rng(0).integers(-300, 300, (60, 80)).astype(np.int16)
    path = corrected.store("/dev/v4l/by-id/usb-GroupGets_PureThermal-video-index0", (60, 80))
    assert path == store / "usb-GroupGets_PureThermal-video-index0-80x60.png"
    assert corrected.load(path, (60, 80)) is None
    corrected.save(Correction(bad, flat), path)
    kept = corrected.load(path, (60, 80))
    assert kept is not None and np.array_equal(kept.bad, bad) and np.array_equal(kept.flat, flat)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"correction is damaged: .* the frames are \(120, 160\)"):
        corrected.load(path, (120, 160))


def test_no_password_gets_into_a_files_name(store: Path) -> None:
    assert "hunter2" not in str(corrected.store("rtsp://admin:hunter2@cam/stream?token=hunter2", (60, 80)))


def test_a_damaged_file_is_told_in_one_line(store: Path) -> None:
    path = corrected.store("cam", (60, 80))
    corrected.save(Correction(np.zeros((60, 80), np.bool_), np.ones((60, 80), np.int16)), path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            corrected.load(path, (60, 80))
        except DataError as error:
            assert "camera correction is damaged" in str(error) and "\n" not in str(error)
    for size in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="damaged"):
            corrected.load(path, (60, 80))


def test_a_camera_is_corrected_by_what_is_kept_for_it(store: Path) -> None:
    source = "synthetic://lepton?seed=4&seconds=1"
    with open_camera(source) as camera:
        plain = next(iter(camera))
    bad = np.zeros((120, 160), np.bool_)
    bad[50, 60] = True
    corrected.save(Correction(bad), corrected.store(source, (120, 160)))
    with open_camera(source) as camera:
        mended = next(iter(camera))
        assert camera.rate_hz == 9.0 and camera.live
    assert np.array_equal(mended.counts, _by_definition(plain.counts, bad))
    with open_camera("synthetic://lepton?seed=5&seconds=1") as camera:
        assert next(iter(camera)).counts.shape == (120, 160)
