from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lepton_rows import rows

from edgeunip.devices import lepton, profiles
from edgeunip.devices.profile import Profile
from edgeunip.frame import Frame, State
from edgeunip.thermal import Counts, Linear

LEPTON = profiles.PROFILES["lepton"]


def _frame(profile: Profile | None, counts: Counts) -> Frame:
    return profiles.frame(profile, counts, seq=0, t_ns=0, where="CAM")


def _scene(shape: tuple[int, int] = (120, 160)) -> Counts:
    return (29_000 + np.arange(shape[0] * shape[1]).reshape(shape) % 1500).astype(np.uint16)


def test_every_field_is_where_the_datasheet_says() -> None:
    told = lepton.parse(rows(counter=70_000, uptime_ms=200_000, last_ffc_ms=130_500, sensor_k100=30_215))
    assert told == lepton.Telemetry((14, 2), 70_000, 200_000, 3, 69_500, 29.0, 0.01)


@pytest.mark.parametrize(("tlinear", "fine", "kelvin"), [(0, 0, None), (0, 1, None), (1, 0, 0.1), (1, 1, 0.01)])
def test_tlinear_decides_on_temperatures(tlinear: int, fine: int, kelvin: float | None) -> None:
    counts = np.vstack([_scene(), rows(tlinear=tlinear, fine=fine)])
    for profile in (LEPTON, None):
        found = _frame(profile, counts)
        assert found.radiometry == (None if kelvin is None else Linear(kelvin, -273.15))
    assert _frame(profiles.PROFILES["lepton-raw"], counts).radiometry is None


@pytest.mark.parametrize(
    ("ffc", "ago_ms", "state"),
    [
        (0, 0, State.LIVE),
        (1, 90_000, State.LIVE),
        (2, 90_000, State.FFC),
        (3, 400, State.SETTLING),
        (3, 1_000, State.LIVE),
    ],
)
def test_the_shutter_is_told_by_telemetry(ffc: int, ago_ms: int, state: State) -> None:
    told = rows(ffc=ffc, uptime_ms=500_000, last_ffc_ms=500_000 - ago_ms)
    assert _frame(LEPTON, np.vstack([_scene(), told])).state is state


@pytest.mark.parametrize("shape", [(120, 160), (60, 80)])
def test_rows_are_cut_above_or_below(shape: tuple[int, int]) -> None:
    scene, told = _scene(shape), rows(shape[1])
    for wire in (np.vstack([scene, told]), np.vstack([told, scene])):
        assert wire.shape in lepton.ROWS
        for profile in (LEPTON, None):
            assert np.array_equal(_frame(profile, wire).counts, scene)


def test_a_frame_without_telemetry_keeps_all_its_rows() -> None:
    scene = _scene()
    for profile in (LEPTON, None, profiles.PROFILES["raw"]):
        assert np.array_equal(_frame(profile, scene).counts, scene)
    assert _frame(LEPTON, scene).radiometry == Linear(0.01, -273.15)


def test_a_lepton_has_120_rows_whatever_the_others_hold() -> None:
    wire = np.vstack([_scene(), np.zeros((2, 160), np.uint16)])
    assert np.array_equal(_frame(LEPTON, wire).counts, wire[:120])
    # Another camera's 122 rows are its own.
    assert np.array_equal(_frame(None, wire).counts, wire)


def test_a_users_calibration_of_bare_counts_is_not_tlinears_business() -> None:
    mine = Profile("mine", "x", Linear(0.02, -140.0), sizes=((122, 160),), telemetry={(122, 160): 2}, layout="lepton")
    for tlinear in (0, 1):
        assert _frame(mine, np.vstack([_scene(), rows(tlinear=tlinear)])).radiometry == mine.radiometry


@given(hnp.arrays(np.uint16, (2, 160), elements=st.integers(0, 65535)))
def test_any_words_parse_or_not(words: Counts) -> None:
    told = lepton.parse(words)
    if told is not None:
        assert 0 <= told.ffc <= 3 and told.since_ffc_ms >= 0 and -60 < told.sensor_c < 120


@pytest.mark.parametrize(
    ("word", "value"), [(0, 0), (24, 3_021), (26, 60_000), (31, 9_999), (208, 2), (209, 65_535), (4, 1 << 6)]
)
def test_words_that_make_no_sense_are_no_telemetry(word: int, value: int) -> None:
    words = rows()
    words.reshape(-1)[word] = value
    assert lepton.parse(words) is None


def test_real_pixels_are_never_taken_for_telemetry(raw16: Path) -> None:
    for name in ("lepton_a", "lepton_b"):
        frames = np.load(raw16 / "lepton" / f"{name}.npz")["frames"]
        for frame in frames:
            for row in range(0, 118, 2):
                assert lepton.parse(frame[row : row + 2]) is None
        # A frame that is two rows taller is not a Lepton's because of its size.
        tall = np.vstack([frames[0], frames[1][:2]])
        assert lepton.cut(tall) is None


def test_telemetry_behind_real_frames_is_never_read_as_pixels(raw16: Path) -> None:
    frames = np.load(raw16 / "lepton" / "lepton_a.npz")["frames"]
    for number, scene in enumerate(frames):
        wire = np.vstack([scene, rows(counter=7 + 3 * number, tlinear=0)])
        found = _frame(LEPTON, wire)
        assert np.array_equal(found.counts, scene) and int(found.counts.max()) == int(scene.max())
        assert found.radiometry is None  # these are counts, and telemetry says so
        # The control: who reads all rows as pixels reports the telemetry's largest word as the hottest spot.
        assert int(wire.max()) > int(scene.max())
