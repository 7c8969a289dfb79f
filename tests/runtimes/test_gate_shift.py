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


def frame(t_s, shape=(240, 320)):
    return Frame(np.zeros(shape, np.uint16), 0, round(t_s * 1e9))


def test_noise_is_no_movement_and_a_map_does_not_grow_old():
    gate = Gate(1.0)
    stills = [gate.is_still(frame(t), picture()) for t in np.arange(0, 2.05, 0.1)]
    assert stills.count(False) == 3 and [stills[0], stills[10], stills[20]] == [False] * 3


def test_a_small_warm_thing_is_movement():
    gate = Gate(10.0)
    assert not gate.is_still(frame(0), picture())
    assert gate.is_still(frame(0.1), picture())
    moved = picture()
    moved[100:112, 160:166] = 255  # a person far away: 12 by 6 pixels
    assert not gate.is_still(frame(0.2), moved)
    assert gate.is_still(frame(0.3), moved)


def test_what_creeps_is_movement_in_the_end():
    gate, base, stills = Gate(100.0), picture(noise=0), []
    for step in range(40):
        stills.append(gate.is_still(frame(step / 10), base + np.uint8(step)))
    assert stills.count(False) == 7  # every six gray levels


@pytest.mark.parametrize("second", [frame(0.1, (120, 160)), frame(-0.1)])
def test_another_size_or_a_time_that_runs_backwards_is_inferred(second):
    gate = Gate(10.0)
    gate.is_still(frame(0), picture())
    assert not gate.is_still(second, picture())


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
