"""Closed shutters and frozen sensors, told from frames: on the clock of the test, to the frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.budget import BUDGET
from edgeunip.devices.shutter import Shutter
from edgeunip.frame import Frame, State

PERIOD_S = 0.04


def frame(content: int, state: State = State.LIVE, dtype: type = np.uint16) -> Frame:
    return Frame(np.full((3, 4), content, dtype), 0, 0, state)


def play(contents: list[int], *, sensor: bool = True, dtype: type = np.uint16) -> tuple[list[State], list[bool]]:
    shutter = Shutter(BUDGET)
    states, stuck = [], []
    for index, content in enumerate(contents):
        states.append(shutter.judge(frame(content, dtype=dtype), index * PERIOD_S, sensor=sensor))
        stuck.append(shutter.stuck)
    return states, stuck


def test_a_correction_is_marked_from_its_second_frame_then_settles_for_its_time() -> None:
    closed = round(2.5 / PERIOD_S)
    states, stuck = play([1, 2, *[3] * closed, *range(10, 60)])
    assert states[:3] == [State.LIVE] * 3 and states[3 : 2 + closed] == [State.FFC] * (closed - 1)
    settling = states[2 + closed :].count(State.SETTLING)
    assert settling == round(BUDGET.settle_s / PERIOD_S) - 1 and states[-1] is State.LIVE
    assert not any(stuck)


def test_a_freeze_is_told_right_after_the_longest_correction() -> None:
    states, stuck = play([3] * 100)
    first = states.index(State.FROZEN)
    assert first == round(BUDGET.shutter_s / PERIOD_S) + 1 and stuck.index(True) == first
    assert set(states[first:]) == {State.FROZEN}


def test_a_frame_sent_twice_is_held_and_nothing_settles() -> None:
    states, _ = play([1, 2, 2, 3, 4, 4, 5])
    assert states == [
        *[State.LIVE] * 2,
        State.FFC,
        *[State.LIVE] * 2,
        State.FFC,
        State.LIVE,
    ]


def test_the_content_of_decoded_video_says_nothing() -> None:
    states, stuck = play([7] * 200, sensor=False, dtype=np.uint8)
    assert set(states) == {State.LIVE} and not any(stuck)


def test_what_the_camera_says_wins() -> None:
    shutter = Shutter(BUDGET)
    given_states = [State.FFC, State.FFC, State.LIVE, State.SETTLING, State.LIVE]
    judged = [
        shutter.judge(frame(index, state), index * PERIOD_S, sensor=True) for index, state in enumerate(given_states)
    ]
    assert judged == [State.FFC, State.FFC, State.SETTLING, State.SETTLING, State.SETTLING]
    assert shutter.judge(frame(99), PERIOD_S + BUDGET.settle_s, sensor=True) is State.LIVE


def test_a_camera_that_says_ffc_for_ever_with_one_frame_is_frozen_all_the_same() -> None:
    shutter = Shutter(BUDGET)
    states = [shutter.judge(frame(1, State.FFC), index * PERIOD_S, sensor=True) for index in range(100)]
    assert states[0] is State.FFC and states[-1] is State.FROZEN and shutter.stuck


def test_opened_anew_with_the_same_frame_it_is_still_frozen_but_gets_its_time() -> None:
    shutter = Shutter(BUDGET)
    for index in range(100):
        shutter.judge(frame(1), index * PERIOD_S, sensor=True)
    shutter.reopened()
    assert shutter.judge(frame(1), 10.0, sensor=True) is State.FROZEN and not shutter.stuck
    assert shutter.judge(frame(1), 10.0 + BUDGET.shutter_s + 0.1, sensor=True) is State.FROZEN and shutter.stuck
    assert shutter.judge(frame(2), 14.0, sensor=True) is State.SETTLING and not shutter.stuck


def test_a_change_of_size_or_depth_is_no_repetition() -> None:
    shutter = Shutter(BUDGET)
    shutter.judge(frame(1), 0.0, sensor=True)
    assert shutter.judge(frame(1, dtype=np.uint8), 0.1, sensor=True) is State.LIVE
    other = Frame(np.full((4, 3), 1, np.uint8), 0, 0)
    assert shutter.judge(other, 0.2, sensor=True) is State.LIVE


def test_frames_that_differ_in_one_pixel_differ() -> None:
    shutter = Shutter(BUDGET)
    counts = np.zeros((5, 5), np.uint16)
    other = counts.copy()
    other[4, 4] = 1
    shutter.judge(Frame(counts, 0, 0), 0.0, sensor=True)
    assert shutter.judge(Frame(other, 1, 0), 0.1, sensor=True) is State.LIVE
    assert shutter.judge(Frame(other.copy(), 2, 0), 0.2, sensor=True) is State.FFC


@given(st.lists(st.tuples(st.integers(1, 120), st.floats(0.01, 0.2)), max_size=12))
def test_stuck_if_and_only_if_one_frame_lasts_longer_than_a_shutter(runs: list[tuple[int, float]]) -> None:
    """However often frames come: runs of (frames, seconds between them)."""
    shutter, now = Shutter(BUDGET), 0.0
    for content, (count, step) in enumerate(runs):
        begin = None
        for _ in range(count):
            now += step
            begin = now if begin is None else begin
            state = shutter.judge(frame(content), now, sensor=True)
            assert shutter.stuck == (now - begin > BUDGET.shutter_s)
            assert (state is State.FROZEN) == shutter.stuck


@pytest.mark.parametrize("factor", [0.5, 2.2])
def test_control_with_another_bound_these_checks_fail(factor: float) -> None:
    """Half the bound takes a correction of 2.5 s for a fault; double the bound overlooks a freeze of 6 s."""
    from dataclasses import replace

    shutter = Shutter(replace(BUDGET, shutter_s=factor * BUDGET.shutter_s))
    found = [shutter.judge(frame(1), at_s, sensor=True) for at_s in np.arange(0, 2.5 if factor < 1 else 6.0, PERIOD_S)]
    assert (State.FROZEN in found) == (factor < 1)
