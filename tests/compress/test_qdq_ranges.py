"""Histograms of fixed size, and the ranges taken from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip.compress.qdq.ranges import BINS, METHODS, Histogram, choose, fake_quantise


def seen(*parts: NDArray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part.astype(np.float32))
    return histogram


@given(st.integers(0, 2**32 - 1), st.floats(-6, 6), st.integers(1, 5))
def test_counts_depend_neither_on_order_nor_on_cuts(seed: int, log_scale: float, cuts: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_t(2, 500) * 10**log_scale).astype(np.float32)
    whole, cut = seen(values), seen(*np.array_split(rng.permutation(values), cuts))
    np.testing.assert_array_equal(whole.counts, cut.counts)
    assert (whole.top, whole.peak) == (cut.top, cut.peak)
    assert whole.counts.sum() == 500 and whole.peak == np.abs(values).max() < whole.top <= 2 * whole.peak


def test_growing_keeps_size_and_counts() -> None:
    histogram = seen(*(np.full(10, 4.0**power) for power in range(-8, 9)))
    assert histogram.counts.shape == (BINS,) and histogram.counts.sum() == 170
    assert histogram.peak == 4.0**8 and histogram.top == 2 * 4.0**8


def test_zeros_alone() -> None:
    histogram = seen(np.zeros(5))
    assert histogram.counts[0] == 5
    assert [choose(histogram, method) for method in METHODS] == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        seen(np.array([1, bad]))


def test_max_and_percentile_of_known_values() -> None:
    histogram = seen(np.arange(1, 1001) / 1000)
    assert choose(histogram, "max") == 1
    for percentile in (50, 90, 99.9):
        assert choose(histogram, "percentile", percentile=percentile) == pytest.approx(percentile / 100, abs=2e-3)
    assert choose(histogram, "percentile", percentile=100) == 1


@given(st.integers(0, 2**32 - 1), st.sampled_from(METHODS))
def test_a_range_is_above_0_and_within_the_peak(seed: int, method: str) -> None:
    histogram = seen(np.random.default_rng(seed).standard_t(3, 300))
    assert 0 < choose(histogram, method) <= histogram.peak  # type: ignore[arg-type]


def test_mse_is_the_least_of_the_values_themselves() -> None:
    values = np.random.default_rng(0).laplace(0, 1, 20000)
    errors = {t: float(np.square(values - fake_quantise(values, t / 127)).sum()) for t in np.linspace(2, 12, 200)}
    found = choose(seen(values), "mse")
    assert np.square(values - fake_quantise(values, found / 127)).sum() < 1.01 * min(errors.values())
    assert np.square(values - fake_quantise(values, np.abs(values).max() / 127)).sum() > 1.05 * min(errors.values())


def test_entropy_cuts_a_lone_outlier_and_keeps_an_even_spread() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(0, 1, 100_000)
    assert 3 < choose(seen(np.append(normal, 30.0)), "entropy") < 6
    assert choose(seen(rng.uniform(0, 1, 100_000)), "entropy") > 0.9
