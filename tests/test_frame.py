import dataclasses

import numpy as np
import pytest

from edgeunip.frame import ClassStatistics, Frame, Result, State
from edgeunip.thermal import Linear


def frame(t_ns: int = 1_000_000) -> Frame:
    return Frame(np.full((4, 6), 30000, np.uint16), seq=7, t_ns=t_ns, radiometry=Linear(0.01, -273.15))


def test_frame_defaults_and_immutability() -> None:
    one = frame()
    assert one.state is State.LIVE and one.counts.shape == (4, 6)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.seq = 8  # type: ignore[misc]


def test_frames_compare_by_identity_and_can_be_kept_in_sets() -> None:
    one, other = frame(), frame()
    assert one == one and one != other and len({one, other}) == 2


def test_state_is_its_own_text() -> None:
    assert State("ffc") is State.FFC and State.STALE == "stale"
    assert {state.value for state in State} == {"live", "ffc", "settling", "stale", "frozen", "offline", "degraded"}


def test_age_runs_from_capture_to_result() -> None:
    mask = np.zeros((4, 6), np.uint8)
    result = Result(frame(t_ns=5_000_000), mask, mask, {"person": ClassStatistics(0, 0.0)}, done_ns=17_500_000)
    assert result.age_ms == 12.5 and result.dropped == 0
    assert result == result and result.classes["person"].max_c is None
