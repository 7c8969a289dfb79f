"""From a real camera's frame to the degC a user reads: the whole way, checked against what the data set derives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.devices import profiles
from edgeunip.devices.open import open_camera
from edgeunip.frame import Frame
from edgeunip.runtimes.analyse import measure
from edgeunip.thermal import Linear, Planck

# 0.01 degC is what the data set's table is rounded to; float32 holds 100 degC to 1e-5.
ROUNDED_C = 0.006
CLASSES = Classes(("background", "warm", "rest"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))


def _read(path: Path, profile: str | None = None) -> list[Frame]:
    with open_camera(str(path), profile=profile) as camera:
        return list(camera)


def _jpegs(raw16: Path) -> Iterator[tuple[Frame, dict[str, Any]]]:
    for key, entry in json.loads((raw16 / "frames.json").read_text()).items():
        if key.startswith("flir_jpeg/"):
            yield _read(raw16 / f"{key}.jpg")[0], entry


def test_degrees_of_the_flir_jpegs_are_those_of_the_table(raw16: Path) -> None:
    kinds = []
    for frame, entry in _jpegs(raw16):
        assert (int(frame.counts.min()), int(frame.counts.max())) == (entry["min"], entry["max"])
        assert frame.counts.shape == tuple(reversed(entry["size"])) and frame.counts.dtype == np.uint16
        radiometry = frame.radiometry
        assert isinstance(radiometry, Planck)
        constants = entry["planck"]
        found = (radiometry.r1, radiometry.r2, radiometry.b, radiometry.f, radiometry.o)
        assert found == pytest.approx([constants[key] for key in ("R1", "R2", "B", "F", "planckO")], rel=1e-6)
        assert radiometry.emissivity == pytest.approx(entry["emissivity"], abs=1e-6)
        apparent = replace(radiometry, emissivity=1.0, distance_m=0.0).celsius(frame.counts)
        assert float(apparent.min()) == pytest.approx(entry["apparent_c"][0], abs=ROUNDED_C)
        assert float(apparent.max()) == pytest.approx(entry["apparent_c"][1], abs=ROUNDED_C)
        kinds.append(entry["embedded"])
    assert len(kinds) == 11 and len(set(kinds)) == 2  # a plain array, and a PNG with exchanged bytes


def test_the_embedded_plane_is_the_one_beside_it(raw16: Path) -> None:
    for path in sorted((raw16 / "flir_jpeg").glob("*.jpg")):
        plane = _read(path.with_name(f"{path.stem}_raw16.png"))[0]
        assert np.array_equal(_read(path)[0].counts, plane.counts) and plane.radiometry is None


def _labels(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    blocks = np.random.default_rng(seed).integers(0, 3, (6, 8), np.uint8)
    return np.asarray(blocks[np.ix_(np.arange(shape[0]) * 6 // shape[0], np.arange(shape[1]) * 8 // shape[1])])


def _hotspots_are_true(frame: Frame, labels: NDArray[np.uint8], spots: dict[str, tuple[int, int] | None]) -> bool:
    """Tell whether each class's hot-spot is of that class, and no pixel of the class is hotter: by brute force."""
    for number, name in enumerate(CLASSES.names):
        inside = labels == number
        if not inside.any():
            continue
        spot = spots[name]
        if spot is None or labels[spot[1], spot[0]] != number:
            return False
        if int(frame.counts[spot[1], spot[0]]) != int(frame.counts[inside].max()):
            return False
    return True


def _real_frames(raw16: Path) -> list[Frame]:
    """Every real frame; the Lepton's bare counts get a scale, so that there is a hot-spot to tell."""
    frames = [frame for frame, _ in _jpegs(raw16)]
    for name in ("lepton_a", "lepton_b"):
        clip = np.load(raw16 / "lepton" / f"{name}.npz")["frames"]
        frames += [Frame(counts, seq, 0, radiometry=Linear(0.1, -273.15)) for seq, counts in enumerate(clip)]
    return frames


def test_the_hottest_spot_is_the_true_maximum_pixel(raw16: Path) -> None:
    frames = _real_frames(raw16)
    assert len(frames) == 11 + 100 + 102
    for seed, frame in enumerate(frames):
        assert frame.radiometry is not None
        celsius = frame.radiometry.celsius(frame.counts)
        for labels in (_labels(frame.counts.shape, seed), np.zeros(frame.counts.shape, np.uint8)):
            found = measure(frame, labels, CLASSES).classes
            assert _hotspots_are_true(frame, labels, {name: one.hotspot for name, one in found.items()})
            for number, name in enumerate(CLASSES.names):
                inside = celsius[labels == number].astype(np.float64)
                if inside.size:
                    told = (found[name].min_c, found[name].mean_c, found[name].max_c)
                    assert told == pytest.approx((inside.min(), inside.mean(), inside.max()), abs=1e-3)


def test_a_hotspot_by_the_high_byte_alone_fails_the_check(raw16: Path) -> None:
    """The control: a viewer for these cameras finds its hottest pixel so."""
    frames = _real_frames(raw16)
    failed = 0
    for frame in frames:
        labels = np.zeros(frame.counts.shape, np.uint8)
        y, x = np.unravel_index(int((frame.counts >> 8).argmax()), frame.counts.shape)
        failed += not _hotspots_are_true(frame, labels, {"background": (int(x), int(y))})
    assert failed > 0.9 * len(frames)


def test_a_split_frame_tells_its_hottest_pixel_by_all_16_bits() -> None:
    lower = np.full((192, 256), round((23.54 + 273.15) * 64), np.uint16)
    lower[100, 120] = round((26.69 + 273.15) * 64)
    wire = np.vstack([np.full((192, 256), 0xFFFF, np.uint16), lower])
    frame = profiles.frame(profiles.PROFILES["tc001"], wire, seq=0, t_ns=0, where="CAM")
    found = measure(frame, np.zeros((192, 256), np.uint8), CLASSES).classes["background"]
    assert found.hotspot == (120, 100) and found.max_c == pytest.approx(26.69, abs=1 / 64)


def test_a_reader_that_always_cuts_two_rows_fails_the_check(raw16: Path) -> None:
    """The control: a reader of these cameras takes two rows off every frame, and calls them telemetry."""
    for frame in _read(raw16 / "lepton" / "lepton_a_png16", "lepton"):
        assert frame.counts.shape == (120, 160)
        assert frame.counts[:-2].shape != (120, 160)


def test_a_reader_that_takes_telemetry_for_pixels_fails_the_check(raw16: Path) -> None:
    """The control of the telemetry's tests: rows left on show as the hottest spot of every frame."""
    from_camera = np.load(raw16 / "lepton" / "lepton_a.npz")["frames"]
    last = np.zeros((2, 160), np.uint16)
    last.reshape(-1)[:32:3] = 58_744
    for counts in from_camera[::10]:
        wire = np.vstack([counts, last])
        cut = profiles.frame(profiles.PROFILES["lepton"], wire, seq=0, t_ns=0, where="CAM")
        kept = profiles.frame(profiles.PROFILES["raw"], wire, seq=0, t_ns=0, where="CAM")
        assert int(cut.counts.max()) == int(counts.max()) and int(kept.counts.max()) == 58_744
