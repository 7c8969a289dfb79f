"""Sensor models: noise, fixed pattern, drift, bad pixels, and the shutter."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip.errors import UsageError
from edgeunip.frame import State
from edgeunip.scenes import Scene
from edgeunip.sensors import SENSORS, SETTLING_S, Sensor, SensorModel
from edgeunip.thermal import Linear

FINE = replace(SENSORS["tc001"], response=Linear(0.002, -50.0), radiometry=Linear(0.002, -50.0))
"""A camera whose steps are too small to matter, to measure its noise with."""


def flat(sensor: Sensor, celsius: float = 20.0) -> NDArray[np.float32]:
    return np.full((sensor.height, sensor.width), celsius, np.float32)


def seen(model: SensorModel, t_s: float, celsius: float = 20.0) -> NDArray[np.float32]:
    counts, _ = model.expose(flat(model.sensor, celsius), t_s)
    return model.sensor.response.celsius(counts)


def good(model: SensorModel) -> NDArray[np.bool_]:
    mask = np.ones(model.sensor.height * model.sensor.width, bool)
    mask[model.bad_pixels] = False
    return mask.reshape(model.sensor.height, model.sensor.width)


def test_the_three_cameras_are_what_they_are_called() -> None:
    shapes = {name: (s.width, s.height, s.bits, s.radiometry) for name, s in SENSORS.items()}
    assert shapes == {
        "lepton": (160, 120, 16, Linear(0.01, -273.15)),
        "boson": (640, 512, 16, None),
        "tc001": (256, 192, 16, Linear(1 / 64, -273.15)),
    }
    assert all(sensor.name == name for name, sensor in SENSORS.items())


@pytest.mark.parametrize("name", SENSORS)
def test_counts_are_read_only_of_the_right_type_and_far_from_the_ends(name: str) -> None:
    sensor = SENSORS[name]
    for celsius in (-40.0, 150.0):
        counts, state = SensorModel(sensor, 0).expose(flat(sensor, celsius), 0.0)
        assert counts.dtype == np.uint16
        assert (counts.shape, state) == ((sensor.height, sensor.width), State.LIVE)
        assert counts.min() > 0 and counts.max() < 65535
        with pytest.raises(ValueError, match="read-only"):
            counts[0, 0] = 1


def test_the_same_seed_gives_the_same_camera_and_another_seed_another() -> None:
    def shots(seed: int) -> list[bytes]:
        model = SensorModel(SENSORS["lepton"], seed)
        return [model.expose(flat(model.sensor), t_s)[0].tobytes() for t_s in (0.0, 1.0, 181.0, 190.0)]

    assert shots(5) == shots(5)
    assert shots(5) != shots(6)


@pytest.mark.parametrize("netd", [0.03, 0.1])
def test_temporal_noise_is_the_netd(netd: float) -> None:
    model = SensorModel(replace(FINE, netd_k=netd, drift_k=0.0), 1)
    stack = np.stack([seen(model, 0.1 * i) for i in range(60)])
    assert stack.std(axis=0, ddof=1)[good(model)].mean() == pytest.approx(netd, rel=0.03)
    steps = np.diff(stack, axis=0)[:, good(model)]
    assert np.corrcoef(steps[:-1].ravel(), steps[1:].ravel())[0, 1] == pytest.approx(-0.5, abs=0.02)


@pytest.mark.parametrize("pattern", [0.0, 0.2])
def test_the_fixed_pattern_stays_and_has_its_strength(pattern: float) -> None:
    model = SensorModel(replace(FINE, fixed_pattern_k=pattern, netd_k=0.0, drift_k=0.0), 2)
    first, second = seen(model, 0.0), seen(model, 50.0, 35.0)
    assert first[good(model)].std() == pytest.approx(pattern, rel=0.02, abs=0.01)
    assert second[good(model)] - 15 == pytest.approx(first[good(model)], abs=0.005)


def test_drift_grows_with_the_root_of_time_and_a_shutter_resets_it() -> None:
    model = SensorModel(replace(FINE, drift_k=0.05, netd_k=0.0, fixed_pattern_k=0.0), 3)
    live = good(model)
    after_opening = FINE.ffc_every_s + FINE.ffc_s + SETTLING_S + 4.0
    spread = [float(seen(model, t_s)[live].std()) for t_s in (0.0, 16.0, 64.0, after_opening)]
    assert spread[0] == pytest.approx(0.0, abs=0.002)
    assert spread[1] == pytest.approx(0.2, rel=0.02)
    assert spread[2] == pytest.approx(0.4, rel=0.02)
    assert spread[3] == pytest.approx(0.05 * (SETTLING_S + 4.0) ** 0.5, rel=0.02)


def test_each_shutter_brings_another_drift() -> None:
    model = SensorModel(replace(FINE, drift_k=0.05, netd_k=0.0, fixed_pattern_k=0.0), 3)
    one, two = seen(model, 80.0)[good(model)], seen(model, FINE.ffc_every_s + 80.0)[good(model)]
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.5


def test_the_shutter_freezes_frames_at_its_times() -> None:
    sensor = SENSORS["lepton"]
    model = SensorModel(sensor, 4)
    states, frames = [], []
    times = np.arange(178.0, 187.0, 1 / sensor.rate_hz)
    for t_s in times:
        counts, state = model.expose(flat(sensor), float(t_s))
        states.append(state)
        frames.append(counts)
    expected = [
        State.LIVE
        if t < 180.0
        else State.FFC
        if t < 181.5
        else State.SETTLING
        if t < 181.5 + SETTLING_S
        else State.LIVE
        for t in times
    ]
    assert states == expected
    last = states.index(State.FFC) - 1
    closed = [i for i, state in enumerate(states) if state is State.FFC]
    assert len(closed) in (13, 14)
    assert all(np.array_equal(frames[i], frames[last]) for i in closed)
    open_pairs = [i for i in range(1, len(frames)) if State.FFC not in (states[i - 1], states[i])]
    assert not any(np.array_equal(frames[i], frames[i - 1]) for i in open_pairs)


def test_temperatures_creep_while_settling() -> None:
    model = SensorModel(replace(FINE, drift_k=0.0), 5)
    opened = FINE.ffc_every_s + FINE.ffc_s
    offsets = [float(seen(model, opened + s)[good(model)].mean()) - 20.0 for s in (0.0, 0.6, SETTLING_S)]
    assert offsets == pytest.approx([0.4, 0.4 / np.e, 0.4 * np.exp(-SETTLING_S / 0.6)], abs=0.01)


def test_a_camera_first_asked_while_the_shutter_is_closed_still_gives_a_frame() -> None:
    model = SensorModel(SENSORS["lepton"], 6)
    first, state = model.expose(flat(model.sensor), 180.5)
    again, _ = model.expose(flat(model.sensor, 60.0), 180.6)
    assert state is State.FFC
    assert np.array_equal(first, again)
    assert np.median(SENSORS["lepton"].response.celsius(first)) == pytest.approx(20.4, abs=0.1)


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01])
def test_bad_pixels_are_as_many_as_promised_and_stuck(share: float) -> None:
    sensor = replace(SENSORS["tc001"], bad_pixels=share)
    model = SensorModel(sensor, 7)
    assert model.bad_pixels.size == len(set(model.bad_pixels.tolist())) == round(share * 256 * 192)
    cold, _ = model.expose(flat(sensor, -20.0), 0.0)
    warm, _ = model.expose(flat(sensor, 80.0), 40.0)
    stuck = np.flatnonzero(cold == warm)
    assert np.array_equal(stuck, model.bad_pixels)


@pytest.mark.parametrize("name", ["lepton", "tc001"])
def test_radiometry_gives_the_scene_back_within_the_noise(name: str) -> None:
    sensor = SENSORS[name]
    model, radiometry = SensorModel(sensor, 8), sensor.radiometry
    assert radiometry is not None
    celsius, _ = Scene(9).render(0.0, sensor.height, sensor.width)
    counts, _ = model.expose(celsius, 0.0)
    through_the_lens = cv2.GaussianBlur(celsius, (5, 5), sensor.blur_px)
    error = (radiometry.celsius(counts) - through_the_lens)[good(model)]
    noise = np.sqrt(sensor.netd_k**2 + sensor.fixed_pattern_k**2 + radiometry.scale**2 / 12)
    assert abs(error.mean()) < 0.005
    assert error.std() == pytest.approx(noise, rel=0.03)
    assert np.median(np.abs(radiometry.celsius(counts) - celsius)) < 2 * noise


def test_an_8_bit_camera_saturates_at_its_ends() -> None:
    sensor = replace(SENSORS["lepton"], bits=8, response=Linear(0.25, -10.0), radiometry=None, bad_pixels=0.0)
    model = SensorModel(sensor, 9)
    for celsius, count in ((-30.0, 0), (20.0, 120), (90.0, 255)):
        counts, _ = model.expose(flat(sensor, celsius), 0.0)
        assert counts.dtype == np.uint8
        assert np.median(counts) == count


def test_a_scene_of_another_size_is_refused() -> None:
    with pytest.raises(UsageError, match=r"The sensor takes \(120, 160\): \(160, 120\)"):
        SensorModel(SENSORS["lepton"], 0).expose(np.zeros((160, 120), np.float32), 0.0)
    with pytest.raises(UsageError, match="The seed must not be negative"):
        SensorModel(SENSORS["lepton"], -1)


@settings(max_examples=30, deadline=None)
@given(
    times=st.lists(st.floats(0, 1e6), min_size=1, max_size=5),
    seed=st.integers(0, 2**63),
    width=st.integers(4, 40),
    height=st.integers(4, 30),
)
def test_any_times_in_any_order_give_frames(times: list[float], seed: int, width: int, height: int) -> None:
    sensor = replace(SENSORS["lepton"], width=width, height=height, bad_pixels=0.05)
    model = SensorModel(sensor, seed)
    for t_s in times:
        counts, state = model.expose(flat(sensor), t_s)
        assert counts.shape == (height, width)
        assert state in (State.LIVE, State.FFC, State.SETTLING)
        inside = t_s >= 180 and t_s % 180 < 1.5
        assert (state is State.FFC) == inside or abs(t_s % 180 - 1.5) < 1e-6 or min(t_s % 180, 180 - t_s % 180) < 1e-6
