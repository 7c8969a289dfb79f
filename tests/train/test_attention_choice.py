"""Which layer is chosen, by how much, and what a layer is called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.errors import DataError, UsageError
from edgeunip.train.attention.choice import Borders, Choice, agreement, choose

MONOTONE = [0.60, 0.45, 0.31, 0.22, 0.16, 0.12, 0.10, 0.085, 0.06, 0.03, 0.01, 0.005]


def test_u2_monotone_list() -> None:
    """U2: argmin |NMI - 0.09|, layers from 1, with the runner-up's distance."""
    found = choose(MONOTONE)
    assert (found.layer, found.nmi, found.target, found.runner_up) == (8, 0.085, 0.09, 7)
    assert found.margin == pytest.approx(0.005)
    assert choose(MONOTONE, 0.11).layer in (6, 7)
    assert choose(MONOTONE, 0.0).layer == 12
    assert choose(MONOTONE[::-1]).layer == 5


def test_the_earlier_of_two_equally_near_layers() -> None:
    assert choose([0.5, 0.125, 0.0625, 0.125], 0.125) == Choice(2, 0.125, 0.125, runner_up=4, margin=0.0)


def test_one_layer() -> None:
    assert choose([0.7]) == Choice(1, 0.7, 0.09)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=24), st.floats(0, 1))
def test_no_layer_is_nearer(nmi: list[float], target: float) -> None:
    found = choose(nmi, target)
    distances = [abs(value - target) for value in nmi]
    assert distances[found.layer - 1] == min(distances)
    assert distances.index(min(distances)) == found.layer - 1
    assert found.margin is not None and found.margin >= 0


def test_refusals() -> None:
    with pytest.raises(DataError, match=r"The attention is not finite: layer 2 \(NaN or infinity in the weights\)"):
        choose([0.1, float("nan")])
    with pytest.raises(UsageError, match=r"The target NMI must be in 0\.\.1: 1\.5"):
        choose([0.1], 1.5)
    with pytest.raises(UsageError, match="no layer"):
        choose([])


def test_patterns_by_borders() -> None:
    borders = Borders()
    assert [borders.pattern(value) for value in (0.3, 0.121, 0.12, 0.09, 0.06, 0.059, 0.0)] == [
        *["local"] * 2,
        *["hybrid"] * 3,
        *["global"] * 2,
    ]
    assert Borders(0.5, 0.2).pattern(0.3) == "hybrid"
    for wrong in ((0.05, 0.06), (1.1, 0.0), (0.5, -0.1), (float("nan"), 0.1)):
        with pytest.raises(UsageError, match="borders of the patterns"):
            Borders(*wrong)


def test_agreement_of_resamples() -> None:
    """Images that agree choose alike every time; two layers that take turns share the resamples about evenly."""
    sure = np.tile([0.3, 0.09, 0.01], (20, 1))
    assert agreement(sure, choose([0.3, 0.09, 0.01])) == 1.0
    turns = np.array([[0.05, 0.11], [0.11, 0.05]] * 10)
    share = agreement(turns, choose([0.08, 0.08]))
    assert share is not None and 0.4 < share < 0.7
    assert agreement(turns, choose([0.08, 0.08])) == share
    assert agreement(sure[:1], choose([0.3, 0.09, 0.01])) is None
