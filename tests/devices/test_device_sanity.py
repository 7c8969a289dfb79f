from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip import images
from edgeunip.devices.sanity import is_swapped, warnings
from edgeunip.frame import Frame, State
from edgeunip.scenes import SENSORS, Scene, SensorModel
from edgeunip.thermal import Counts, Linear

CENTIKELVIN = Linear(0.01, -273.15)


RANGE = (-40.0, 380.0)


def _frame(
    counts: Counts,
    radiometry: Linear | None = CENTIKELVIN,
    state: State = State.LIVE,
    range_c: tuple[float, float] | None = None,
) -> Frame:
    return Frame(counts, 0, 0, state, radiometry, range_c)


def _scene(celsius: float = 22.0, spread: float = 100.0) -> Counts:
    rng = np.random.default_rng(3)
    ramp = np.linspace(0, 12 * spread, 160)[None, :] + np.linspace(0, 6 * spread, 120)[:, None]
    return np.asarray(CENTIKELVIN.counts(celsius) + ramp + rng.normal(0, 5, (120, 160))).astype(np.uint16)


def test_a_good_frame_warns_of_nothing() -> None:
    assert warnings(_frame(_scene(), range_c=RANGE), _frame(_scene(22.3))) == {}


@pytest.mark.parametrize(
    ("counts", "radiometry", "code", "told"),
    [
        (np.zeros((120, 160), np.uint16), None, "black", "Every pixel is 0"),
        (np.full((120, 160), 7, np.uint16), None, "flat", "Every pixel is 7"),
        (_scene().byteswap(), None, "byte-order", "swapped = true"),
        (np.where(np.eye(120, 160) > 0, 65535, _scene()).astype(np.uint16), CENTIKELVIN, "saturated", r"0\.6 % of"),
        (_scene(372, 50), CENTIKELVIN, "range", "reads 372 to .* -40 to 380 degC"),
        (_scene(-80), CENTIKELVIN, "range", "reads -80 to"),
        (_scene(), None, "uncalibrated", "No temperature: counts of"),
    ],
)
def test_each_defect_has_its_code(counts: Counts, radiometry: Linear | None, code: str, told: str) -> None:
    found = warnings(_frame(counts, radiometry, range_c=RANGE))
    assert code in found and re.search(told, found[code])


def test_a_change_of_gain_is_a_jump() -> None:
    before = _frame(_scene(22, 1))
    assert "jump" in warnings(_frame(_scene(90, 1)), before)
    assert "jump" not in warnings(_frame(_scene(23, 1)), before)
    assert "jump" not in warnings(_frame(_scene(90, 1)), _frame(_scene(22, 1), state=State.FFC))


def test_a_camera_that_stops_telling_degrees_is_told() -> None:
    assert "uncalibrated" in warnings(_frame(_scene(), None), _frame(_scene()))
    assert warnings(_frame(_scene(), None), _frame(_scene(), None)) == {}


def test_a_closed_shutter_is_no_defect() -> None:
    assert warnings(_frame(np.full((120, 160), 7, np.uint16), state=State.FFC)) == {}


def test_noise_and_shifted_bytes_are_not_taken_for_exchanged_ones() -> None:
    rng = np.random.default_rng(0)
    assert not is_swapped(rng.integers(0, 65536, (120, 160), np.uint16))
    assert not is_swapped((rng.integers(0, 256, (120, 160)) << 8).astype(np.uint16))
    assert not is_swapped(rng.integers(0, 256, (120, 160), np.uint8))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**16), st.sampled_from(("lepton", "tc001")))
def test_exchanged_bytes_of_any_synthetic_camera_are_seen(seed: int, name: str) -> None:
    sensor = SENSORS[name]
    celsius, _ = Scene(seed).render(0.0, sensor.height, sensor.width)
    counts, _ = SensorModel(sensor, seed).expose(celsius, 0.0)
    assert not is_swapped(counts) and is_swapped(np.asarray(counts.byteswap(), np.uint16))


def test_exchanged_bytes_of_every_real_frame_are_seen(raw16: Path) -> None:
    real = [
        image for name in ("lepton_a", "lepton_b") for image in np.load(raw16 / f"lepton/{name}.npz")["frames"][::9]
    ]
    real += [images.read_counts(path)[0] for path in sorted(raw16.glob("flir_jpeg/*.jpg"))]
    real += [images.read_counts(raw16 / "tau640" / "example_radiometric.tiff")[0]]
    assert len(real) == 12 + 12 + 11 + 1
    assert [is_swapped(counts) for counts in real] == [False] * len(real)
    assert [is_swapped(counts.byteswap()) for counts in real] == [True] * len(real)


def test_a_look_costs_little() -> None:
    counts = np.random.default_rng(0).integers(20_000, 30_000, (512, 640), np.uint16)
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        warnings(_frame(counts, range_c=RANGE), _frame(counts))
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.02
