import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_runtime import CLASSES, LINEAR

from edgeunip.frame import ClassStatistics, Frame, State
from edgeunip.runtimes.measure import NO_CLASS, describe, statistics
from edgeunip.thermal import Planck

PLANCK = Planck(r1=14000.0, r2=0.012, b=1430.0, f=1.0, o=-6000.0)


def frame(counts, *, state=State.LIVE, radiometry=LINEAR):
    return Frame(counts, 0, 0, state, radiometry)


def expected_p95(celsius):
    """The definition: the least temperature that at least 95 % of the pixels do not exceed."""
    return next(t for t in np.unique(celsius) if 100 * np.count_nonzero(celsius <= t) >= 95 * celsius.size)


maps = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda shape: st.tuples(
        st.one_of(
            hnp.arrays(np.uint16, shape, elements=st.integers(0, 65535)),
            hnp.arrays(np.uint16, shape, elements=st.integers(30000, 30005)),
            hnp.arrays(np.uint8, shape),
        ),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, 3, NO_CLASS])),
    )
)


@given(maps, st.sampled_from([LINEAR, PLANCK]))
def test_statistics_against_plain_numpy(pair, radiometry):
    counts, labels = pair
    found = statistics(frame(counts, radiometry=radiometry), labels, CLASSES)
    assert list(found) == list(CLASSES.names)
    celsius, counted = radiometry.celsius(counts), np.count_nonzero(labels != NO_CLASS)
    for number, entry in enumerate(found.values()):
        inside = labels == number
        assert entry.pixels == inside.sum()
        if not inside.any():
            assert entry == ClassStatistics(0, 0.0)
            continue
        assert entry.area == pytest.approx(inside.sum() / counted)
        assert entry.centroid == pytest.approx(np.argwhere(inside).mean(0)[::-1])
        warm = inside & np.isfinite(celsius)
        if not warm.any():
            assert (entry.min_c, entry.mean_c, entry.max_c, entry.p95_c, entry.hotspot) == (None,) * 5
            continue
        assert (entry.min_c, entry.max_c) == (celsius[warm].min(), celsius[warm].max())
        assert entry.p95_c == expected_p95(celsius[warm])
        assert entry.mean_c == pytest.approx(celsius[warm].mean(dtype=np.float64), abs=1e-4)
        y, x = np.unravel_index(np.where(warm, celsius, -np.inf).argmax(), counts.shape)
        assert entry.hotspot == (x, y)


def test_planck_pixels_without_a_temperature_were_among_those_tried():
    assert np.isnan(PLANCK.celsius(np.arange(65536, dtype=np.uint16))).any()


def test_bare_counts_have_areas_and_places_only():
    labels = np.zeros((6, 8), np.uint8)
    labels[:3] = 3
    found = statistics(frame(np.zeros((6, 8), np.uint8), radiometry=None), labels, CLASSES)
    assert found["hot"] == ClassStatistics(24, 0.5, centroid=(3.5, 1.0))
    assert found["warm"] == ClassStatistics(0, 0.0)


@pytest.mark.parametrize("state", list(State))
def test_a_closed_shutter_and_a_frozen_camera_have_no_temperatures(state):
    found = statistics(frame(np.full((6, 8), 30000, np.uint16), state=state), np.ones((6, 8), np.uint8), CLASSES)
    assert found["cool"].pixels == 48
    assert (found["cool"].max_c is None) == (state in (State.FFC, State.FROZEN))
    assert (found["cool"].p95_c is None) == (found["cool"].hotspot is None) == (found["cool"].max_c is None)


def test_a_part_has_its_place_in_the_frame():
    counts = np.arange(48, dtype=np.uint16).reshape(6, 8) + 30000
    found = describe(frame(counts), np.array([[True, False], [True, True]]), total=48, origin=(3, 2))
    assert (found.pixels, found.area, found.hotspot) == (3, 3 / 48, (4, 3))
    assert found.centroid == pytest.approx((3 + 1 / 3, 2 + 2 / 3))
    assert found.max_c == pytest.approx(LINEAR.celsius(counts[3:4, 4:5]).item())
