import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.frame import ClassStatistics, Region, State
from edgeunip.runtimes.track import Tracker


def region(x, y=0, width=10, height=10, name="car"):
    centroid = (x + (width - 1) / 2, y + (height - 1) / 2)
    return Region(name, 0, (x, y, width, height), ClassStatistics(width * height, 0.1, centroid=centroid))


def numbers(tracker, *regions, state=State.LIVE):
    return [found.number for found in tracker.follow(regions, state)]


def test_numbers_begin_at_one_and_stay():
    tracker = Tracker()
    assert numbers(tracker, region(0), region(100)) == [1, 2]
    # In another order, and moved: they keep their numbers.
    assert numbers(tracker, region(103), region(2)) == [2, 1]
    assert numbers(tracker, region(50), region(4), region(105)) == [3, 1, 2]


def test_only_the_number_changes():
    tracker = Tracker()
    (found,) = tracker.follow([region(7)], State.LIVE)
    assert (found.name, found.box, found.statistics) == ("car", (7, 0, 10, 10), region(7).statistics)


def test_a_region_that_jumps_a_little_is_the_same_and_far_away_another():
    tracker = Tracker()
    assert numbers(tracker, region(0)) == [1]
    assert numbers(tracker, region(13)) == [1]  # no overlap, 13 px away: less than the 14 px of its diagonal
    assert numbers(tracker, region(30)) == [2]


def test_a_region_of_another_class_is_another():
    tracker = Tracker()
    assert numbers(tracker, region(0), region(0, name="person")) == [1, 2]
    assert numbers(tracker, region(0, name="person")) == [2]


def test_the_greater_overlap_wins():
    tracker = Tracker()
    numbers(tracker, region(0), region(8))
    assert numbers(tracker, region(7), region(1)) == [2, 1]


@pytest.mark.parametrize(("missing", "number"), [(3, 1), (4, 2)])
def test_a_missing_region_is_remembered_for_a_while(missing, number):
    tracker = Tracker(patience=3)
    numbers(tracker, region(0))
    for _ in range(missing):
        numbers(tracker)
    assert numbers(tracker, region(0)) == [number]


def test_of_very_many_those_missing_longest_are_forgotten():
    tracker = Tracker(patience=10**6)
    assert numbers(tracker, region(-100)) == [1]
    for frame in range(30):
        assert len(numbers(tracker, *(region(1000 * (60 * frame + at)) for at in range(60)))) == 60
    assert len(tracker._tracks) <= 1024 + 60
    assert numbers(tracker, region(1000 * 60 * 29)) == [2 + 29 * 60]  # the latest are remembered
    assert numbers(tracker, region(-100)) == [2 + 30 * 60]


@pytest.mark.parametrize("state", [State.FFC, State.SETTLING, State.STALE, State.FROZEN, State.OFFLINE])
def test_nothing_ages_and_nothing_moves_while_nothing_is_seen(state):
    tracker = Tracker(patience=3)
    numbers(tracker, region(0))
    for step in range(50):
        assert numbers(tracker, region(min(step, 5)), region(500), state=state) == [1, 0]
        assert numbers(tracker, state=state) == []
    assert numbers(tracker, region(2)) == [1]
    # Negative control: as many live frames make it forget.
    for _ in range(4):
        numbers(tracker)
    assert numbers(tracker, region(2)) == [2]


boxes = st.lists(
    st.builds(region, st.integers(0, 40), st.integers(0, 40), st.integers(1, 20), st.integers(1, 20),
              st.sampled_from(["car", "person"])), max_size=6)  # fmt: skip


@given(st.lists(st.tuples(boxes, st.sampled_from([State.LIVE, State.LIVE, State.DEGRADED, State.FFC])), max_size=12))
def test_numbers_are_unique_deterministic_and_never_come_back(frames):
    one, two = Tracker(patience=2), Tracker(patience=2)
    names, last_seen, highest = {}, {}, 0
    for step, (regions, state) in enumerate(frames):
        found = one.follow(regions, state)
        assert found == two.follow(regions, state)
        given_out = [r.number for r in found if r.number]
        assert len(set(given_out)) == len(given_out)
        for r in found:
            if r.number:
                assert names.setdefault(r.number, r.name) == r.name
                assert r.number in last_seen or (r.number > highest and state is not State.FFC)
                last_seen[r.number], highest = step, max(highest, r.number)
            else:
                assert state is State.FFC
