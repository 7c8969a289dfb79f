from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeunip.devices import profiles
from edgeunip.devices.profile import Profile
from edgeunip.errors import SourceError, UsageError
from edgeunip.thermal import Counts, Radiometry


def apply(
    profile: Profile | None, counts: Counts, radiometry: Radiometry | None, where: object
) -> tuple[Counts, Radiometry | None]:
    found = profiles.frame(profile, counts, seq=0, t_ns=0, where=where, radiometry=radiometry)
    return found.counts, found.radiometry


def test_centikelvin_of_a_lepton() -> None:
    counts = np.full((120, 160), 30815, np.uint16)
    _, radiometry = apply(profiles.find("lepton"), counts, None, "x")
    assert radiometry is not None
    assert radiometry.celsius(counts)[0, 0] == pytest.approx(35.0, abs=1e-3)


def test_scales_of_the_topdon_cameras() -> None:
    for name, per_kelvin in (("tc001", 64), ("tc002c", 16)):
        counts = np.full((192, 256), 300 * per_kelvin, np.uint16)
        _, radiometry = apply(profiles.find(name), counts, None, "x")
        assert radiometry is not None
        assert radiometry.celsius(counts)[0, 0] == pytest.approx(26.85, abs=1e-3)


def test_telemetry_rows_are_cut_from_a_frame_that_has_them_only() -> None:
    lepton = profiles.find("lepton")
    with_rows = np.arange(122 * 160, dtype=np.uint16).reshape(122, 160)
    cut, _ = apply(lepton, with_rows, None, "x")
    assert cut.shape == (120, 160)
    assert np.array_equal(cut, with_rows[:120])
    for shape in ((120, 160), (122, 161), (60, 80)):
        counts = np.zeros(shape, np.uint16)
        assert apply(lepton, counts, None, "x")[0].shape == shape


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20).map(lambda width: 2 * width))))
def test_the_bytes_of_yuyv_are_the_counts(yuyv: np.ndarray) -> None:
    counts = profiles.unpack(yuyv)
    assert counts.dtype == np.uint16 and counts.shape == (yuyv.shape[0], yuyv.shape[1] // 2)
    assert counts.astype("<u2").tobytes() == yuyv.tobytes()
    assert int(counts[0, 0]) == int(yuyv[0, 0]) + 256 * int(yuyv[0, 1])


@given(st.integers(0, 2**32 - 1))
def test_the_lower_half_of_a_split_frame_is_the_frame(seed: int) -> None:
    wire = np.random.default_rng(seed).integers(0, 256, (384, 512), np.uint8)
    counts, radiometry = apply(profiles.find("tc001"), profiles.unpack(wire), None, "x")
    assert counts.shape == (192, 256)
    assert counts.astype("<u2").tobytes() == wire[192:].tobytes()
    assert radiometry is not None and radiometry.scale == 1 / 64


def test_a_split_profile_takes_the_half_as_well_and_nothing_else() -> None:
    tc001 = profiles.find("tc001")
    assert apply(tc001, np.zeros((192, 256), np.uint16), None, "x")[0].shape == (192, 256)
    with pytest.raises(SourceError, match=r"tc001 expects frames of 256x384 or 256x192, not 160x120: CAM") as caught:
        apply(tc001, np.zeros((120, 160), np.uint16), None, "CAM")
    assert caught.value.reason == "format"


def test_a_profile_with_temperatures_refuses_8_bits() -> None:
    with pytest.raises(SourceError, match="needs 16-bit counts, and the source gives 8-bit ones: CAM"):
        apply(profiles.find("lepton"), np.zeros((120, 160), np.uint8), None, "CAM")


def test_raw_and_boson_take_the_temperatures_away() -> None:
    known = profiles.find("lepton").radiometry
    counts = np.full((4, 4), 30_000, np.uint16)
    assert apply(profiles.find("raw"), counts, known, "x") == (counts, None)
    assert apply(profiles.find("boson"), counts, known, "x")[1] is None
    assert apply(None, counts, known, "x")[1] is known


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Unknown camera profile: leptn\. Did you mean lepton or"):
        profiles.find("leptn")
