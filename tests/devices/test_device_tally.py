from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgeunip.devices.tally import Tally

# Openings of a source, each a list of steps from one frame's number to the next.
OPENINGS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=8), max_size=6)


@given(OPENINGS)
def test_a_source_that_counts_from_0_each_time_keeps_its_gaps_and_gets_no_others(openings: list[list[int]]) -> None:
    tally, given_out, gaps = Tally(goes_on=False), [], 0
    for steps in openings:
        tally.reopened()
        seq = -1
        for step in steps:
            seq += step
            gaps += step - 1
            given_out.append(tally.number(seq))
    assert all(a < b for a, b in itertools.pairwise(given_out))
    if given_out:
        assert given_out[-1] + 1 == len(given_out) + gaps


@given(OPENINGS)
def test_a_source_that_counts_on_keeps_its_own_numbers(openings: list[list[int]]) -> None:
    tally, seq = Tally(goes_on=True), 40
    for steps in openings:
        tally.reopened()
        for step in steps:
            seq += step
            assert tally.number(seq) == seq


def test_a_source_that_begins_anew_goes_on_where_it_was() -> None:
    tally = Tally(goes_on=True)
    tally.reopened()
    assert [tally.number(seq) for seq in (7, 8, 10)] == [7, 8, 10]
    tally.reopened()
    assert [tally.number(seq) for seq in (0, 1, 3)] == [11, 12, 14]
    assert [tally.number(seq) for seq in (3, 4)] == [15, 16]


def test_what_a_source_counted_while_it_was_closed_is_a_gap_but_no_damage() -> None:
    tally = Tally(goes_on=True)
    tally.reopened()
    assert [tally.number(7), tally.number(9)] == [7, 9]
    tally.reopened()
    assert (tally.number(99), tally.lost) == (99, 1)


def test_what_we_left_out_ourselves_is_a_gap_but_no_loss() -> None:
    tally = Tally(goes_on=False)
    tally.reopened()
    assert [tally.number(0), tally.number(4, skipped=3), tally.number(7, skipped=1)] == [0, 4, 7]
    assert tally.lost == 1


def test_degraded_above_10_percent_until_at_most_5() -> None:
    tally, seq = Tally(goes_on=False), 0
    tally.reopened()
    for _ in range(100):
        tally.number(seq := seq + 1)
    for _ in range(9):
        tally.number(seq := seq + 2)
    assert (tally.lost, tally.degraded) == (9, False)
    tally.number(seq := seq + 2)
    assert (tally.lost, tally.degraded) == (10, False)
    tally.number(seq := seq + 3)
    assert (tally.lost, tally.degraded) == (12, True)
    while tally.lost > 5:
        assert tally.degraded
        tally.number(seq := seq + 1)
    assert not tally.degraded


def test_a_source_whose_number_jumps_far_costs_no_memory() -> None:
    tally = Tally(goes_on=False)
    tally.reopened()
    assert tally.number(1 << 60) == 1 << 60 and tally.lost == 99
