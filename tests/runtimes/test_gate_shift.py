import numpy as np
import pytest

from edgeunip.errors import UsageError
from edgeunip.frame import Frame
from edgeunip.runtimes.gate import Gate
from edgeunip.runtimes.shift import Shift

RANDOM = np.random.default_rng(0)


def picture(height=240, width=320, noise=4.0):
    ramp = np.linspace(40, 200, width)[None, :].repeat(height, 0)
    return np.clip(ramp + RANDOM.normal(0, noise, (height, width)), 0, 255).astype(np.uint8)


def scene(t_s, *, noise=3.0, shape=(240, 320), drift=0):
    """A ramp of 300 counts with a sensor's noise, all of it ``drift`` warmer."""
    ramp = 30_000 + drift + np.linspace(0, 300, shape[1])[None, :].repeat(shape[0], 0)
    return Frame((ramp + RANDOM.normal(0, noise, shape)).astype(np.uint16), 0, round(t_s * 1e9))


def test_noise_is_no_movement_and_a_map_does_not_grow_old():
    gate = Gate(1.0)
    stills = [gate.is_still(scene(t)) for t in np.arange(0, 2.05, 0.1)]
    assert stills.count(False) == 3 and [stills[0], stills[10], stills[20]] == [False] * 3


def test_a_small_warm_thing_is_movement():
    gate = Gate(10.0)
    assert not gate.is_still(scene(0))
    assert gate.is_still(scene(0.1))
    moved = scene(0.2)
    moved.counts[100:112, 160:166] += 200  # a person far away: 12 by 6 pixels
    assert not gate.is_still(moved)


def test_a_drift_of_the_whole_picture_is_no_movement():
    gate = Gate(10.0)
    assert [gate.is_still(scene(t, drift=int(100 * t))) for t in np.arange(0, 3, 0.5)] == [False] + [True] * 5


def test_what_creeps_is_movement_in_the_end():
    gate, stills = Gate(100.0), []
    for step in range(40):
        warm = scene(step / 10, noise=0)
        warm.counts[:60, :80] += np.uint16(5 * step)
        stills.append(gate.is_still(warm))
    assert 4 <= stills.count(False) <= 6  # of 200 counts in all, about every 45


def test_eight_bits_too():
    gate, gray = Gate(10.0), np.full((120, 160), 100, np.uint8)
    gray[:, 80:] = 200
    assert not gate.is_still(Frame(gray, 0, 0)) and gate.is_still(
        Frame(gray + RANDOM.integers(0, 3, gray.shape, np.uint8), 1, 1)
    )
    moved = gray.copy()
    moved[20:30, 20:30] = 220
    assert not gate.is_still(Frame(moved, 2, 2))


@pytest.mark.parametrize("second", [scene(0.1, shape=(120, 160)), scene(-0.1)])
def test_another_size_or_a_time_that_runs_backwards_is_inferred(second):
    gate = Gate(10.0)
    gate.is_still(scene(0))
    assert not gate.is_still(second)


@pytest.mark.parametrize("age", [0.0, -1.0, float("nan")])
def test_a_gate_needs_a_time(age):
    with pytest.raises(UsageError, match="above 0 s"):
        Gate(age)


REFERENCE = (np.bincount(picture().ravel() >> 4, minlength=16) / (240 * 320)).tolist()


def test_the_scene_of_the_calibration_gives_no_warning():
    shift = Shift(REFERENCE)
    warnings = [shift.see(picture(), round(t * 1e9)) for t in np.arange(0, 30, 0.5)]
    assert set(warnings) == {None} and shift.distance < 0.05


def test_another_scene_warns_after_ten_seconds_and_stops_when_it_is_over():
    shift = Shift(REFERENCE)
    dark = np.full((240, 320), 250, np.uint8)
    seen = {t: shift.see(dark, round(t * 1e9)) for t in np.arange(0, 12, 0.5)}
    assert seen[9.5] is None and "grays differ" in seen[10.0] and "%" in seen[11.5]
    assert shift.distance > 0.9
    after = [shift.see(picture(), round(t * 1e9)) for t in np.arange(12, 42, 0.5)]
    assert after[0] is not None and after[-1] is None


def test_a_pause_is_no_observation():
    shift = Shift(REFERENCE)
    dark = np.full((240, 320), 250, np.uint8)
    assert [shift.see(dark, round(t * 1e9)) for t in (0, 100, 200, 300)] == [None] * 4
    assert shift.distance is None
