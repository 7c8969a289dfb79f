import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip import images, thermal
from edgeunip.errors import UsageError
from edgeunip.thermal import Agc, Linear, Mode, Planck, Tone, radiometry_from_json, radiometry_to_json

MODES: tuple[Mode, ...] = get_args(Mode)
LEPTON = Linear(0.01, -273.15)
FLIR = Planck(r1=14985.93, r2=0.01128322, b=1398.1, f=1.0, o=-6233.0)

needs_data = pytest.mark.skipif("EDGEUNIP_DATA" not in os.environ, reason="EDGEUNIP_DATA names no folder of real data")


def agc(mode: Mode, **changes: Any) -> Agc:
    return Agc(mode=mode, **{"window_c": (10.0, 40.0), **changes})


def scene(seed: int = 0, shape: tuple[int, int] = (120, 160), dtype: Any = np.uint16) -> NDArray[Any]:
    """A cool background, a gradient, a warm object, noise; about 22 degC for a TLinear camera."""
    rng = np.random.default_rng(seed)
    counts = 29400 + np.linspace(0, 300, shape[1])[None, :] + rng.normal(0, 8, shape)
    counts[shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] += 1200
    if dtype == np.uint8:
        counts = (counts - 29350) / 8
    return counts.round().clip(0, np.iinfo(dtype).max).astype(dtype)


# --- temperatures ---


def test_lepton_tlinear_and_tc001_examples() -> None:
    lepton = LEPTON.celsius(np.array([[27315, 29815, 31015, 0, 65535]], np.uint16))
    np.testing.assert_allclose(lepton, [[0, 25, 37, -273.15, 382.2]], atol=2e-5)
    assert lepton.dtype == np.float32 and lepton.shape == (1, 5)
    tc001 = Linear(1 / 64, -273.15).celsius(np.array([[19192, 19050]], np.uint16))
    np.testing.assert_allclose(tc001, [[26.725, 24.50625]], atol=2e-5)
    assert Linear(1 / 16, -273.15).celsius(np.array([[4770]], np.uint16))[0, 0] == pytest.approx(24.975, abs=2e-5)


def test_uint8_counts_have_temperatures_too() -> None:
    assert Linear(0.5, -20).celsius(np.array([[0, 255]], np.uint8)).tolist() == [[-20, 107.5]]
    low = replace(FLIR, o=100.0).celsius(np.array([[7, 255]], np.uint8))
    assert low.dtype == np.float32 and low.shape == (1, 2)


@given(st.floats(1e-3, 1, allow_nan=False), st.floats(-300, 300), st.integers(0, 65535))
def test_linear_inverse(scale: float, offset: float, count: int) -> None:
    model = Linear(scale, offset)
    celsius = scale * count + offset
    assert model.counts(celsius) == pytest.approx(count, abs=1e-6 / scale)
    measured = float(model.celsius(np.array([[count]], np.uint16))[0, 0])
    assert measured == pytest.approx(celsius, abs=1e-3 + 2e-7 * scale * count)


planck = st.builds(
    Planck,
    r1=st.floats(9_000, 25_000),
    r2=st.floats(0.008, 0.04),
    b=st.floats(1300, 1550),
    f=st.floats(0.9, 1.5),
    o=st.floats(-8000, 0),
    emissivity=st.floats(0.5, 1.0),
    reflected_c=st.floats(-20, 50),
    atmosphere_c=st.floats(-20, 50),
    distance_m=st.floats(0, 50),
    humidity=st.floats(0, 1),
)


@given(planck, st.floats(-20, 120))
@settings(max_examples=150, deadline=None)
def test_planck_inverse(model: Planck, celsius: float) -> None:
    counts = model.counts(celsius)
    if not 1 <= counts <= 65534:
        return
    low, high = (float(v) for v in model.celsius(np.array([[math.floor(counts), math.ceil(counts)]], np.uint16))[0])
    assert low - 1e-3 <= celsius <= high + 1e-3
    assert 0 < model.transmission() <= 1.2


def test_planck_by_hand() -> None:
    celsius = FLIR.celsius(np.array([[14000]], np.uint16))[0, 0]
    expected = 1398.1 / math.log(14985.93 / (0.01128322 * (14000 - 6233)) + 1.0) - 273.15
    assert celsius == pytest.approx(expected, abs=1e-4)


def test_planck_outside_its_range_is_nan_and_only_there() -> None:
    every = np.arange(65536, dtype=np.uint16)[None]
    table = FLIR.celsius(every)[0]
    assert np.isnan(table[:6233]).all() and np.isfinite(table[6234:]).all()
    assert (np.diff(table[6234:]) > 0).all() and table[6300] < -100
    # With F below 1 the logarithm has a pole: above it the formula would give temperatures below absolute zero.
    pole = replace(FLIR, f=0.2, r2=1.0, o=0.0).celsius(every)[0]
    assert np.isnan(pole[20000:]).all() and np.nanmin(pole) > -273.15


def test_emissivity_reflection_and_air_correct_in_the_right_direction() -> None:
    counts = np.array([[19000]], np.uint16)

    def seen(**changes: float) -> float:
        return float(replace(FLIR, **changes).celsius(counts)[0, 0])

    black = seen()
    assert black > 20
    assert seen(emissivity=0.8) > black, "hotter than the surroundings: a dull object is hotter than it looks"
    assert seen(emissivity=0.8, reflected_c=100.0) < black, "it mirrors something hot: it is colder than it looks"
    assert seen(distance_m=50.0) > black, "the air takes away part of its radiation"
    assert seen(distance_m=50.0, humidity=0.9) > seen(distance_m=50.0, humidity=0.1), "damp air takes away more"
    at_room = replace(FLIR, emissivity=0.6, distance_m=30.0, reflected_c=20.0, atmosphere_c=20.0)
    assert at_room.counts(20.0) == pytest.approx(FLIR.counts(20.0)), "all at one temperature: nothing to correct"


def test_atmosphere_follows_the_published_formula() -> None:
    """tau = X exp(-sqrt(d) (a1 + b1 sqrt(w))) + (1 - X) exp(-sqrt(d) (a2 + b2 sqrt(w))), w in mm of water."""
    air = replace(FLIR, distance_m=10.0, humidity=0.5, atmosphere_c=15.0)
    water = 0.5 * math.exp(1.5587 + 6.939e-2 * 15 - 2.7816e-4 * 15**2 + 6.8455e-7 * 15**3)
    assert water == pytest.approx(12.83 / 2, abs=0.1)  # half of what saturates air at 15 degC, g/m3
    root = math.sqrt(10.0)
    one = 1.9 * math.exp(-root * (0.006569 - 0.002276 * math.sqrt(water)))
    two = 0.9 * math.exp(-root * (0.012620 - 0.006670 * math.sqrt(water)))
    assert air.transmission() == pytest.approx(one - two, rel=1e-12)
    assert 0.95 < air.transmission() < 1
    assert replace(air, distance_m=0.0).transmission() == 1.0


def test_what_is_measured_is_emitted_reflected_and_air() -> None:
    model = replace(FLIR, emissivity=0.9, reflected_c=5.0, atmosphere_c=12.0, distance_m=20.0)
    tau = model.transmission()
    emitted, mirrored, air = FLIR.counts(35.0), FLIR.counts(5.0), FLIR.counts(12.0)
    assert model.counts(35.0) == pytest.approx(tau * (0.9 * emitted + 0.1 * mirrored) + (1 - tau) * air)


@pytest.mark.parametrize(
    "changes",
    [
        *({"r1": v} for v in (0.0, -1.0, math.nan, math.inf)),
        *({"b": 0.0}, {"r2": 0.0}, {"o": math.nan}),
        *({"emissivity": v} for v in (0.0, -0.1, 1.01, math.nan)),
        *({"humidity": 50.0}, {"humidity": -0.1}, {"distance_m": -1.0}),
        *({"reflected_c": -273.15}, {"reflected_c": -400.0}, {"atmosphere_c": 1e9, "distance_m": 1.0}),
        {"x": 50.0, "distance_m": 100.0},
    ],
    ids=str,
)
def test_constants_no_camera_has(changes: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        replace(FLIR, **changes)


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 0.0), (-0.01, 0.0), (math.nan, 0.0), (1.0, math.inf)])
def test_no_linear_radiometry(scale: float, offset: float) -> None:
    with pytest.raises(UsageError, match=r"^A linear radiometry needs a positive scale"):
        Linear(scale, offset)


@given(st.none() | planck | st.builds(Linear, st.floats(1e-6, 1e3), st.floats(-1e6, 1e6)))
@settings(deadline=None)
def test_radiometry_json_round_trip(radiometry: thermal.Radiometry | None) -> None:
    assert radiometry_from_json(json.loads(json.dumps(radiometry_to_json(radiometry)))) == radiometry


@pytest.mark.parametrize(
    "value",
    [
        *({}, [], "x", 1, {"model": "linear"}, {"model": "cubic", "scale": 1.0, "offset": 0.0}, {"model": ["linear"]}),
        *({"model": "linear", "scale": s, "offset": 0.0} for s in ("1", True, None, [1.0], 10**400, math.nan, 0)),
        {"model": "linear", "scale": 1.0, "offset": 0.0, "more": 1.0},
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_is_no_radiometry(value: Any) -> None:
    with pytest.raises(UsageError):
        radiometry_from_json(value)


# --- tones ---


counts_16 = st.integers(0, 65535)


@given(st.lists(counts_16, min_size=1, max_size=120), st.integers(0, 99), st.integers(1, 100))
def test_percentiles_are_numpys(values: list[int], low: int, span: int) -> None:
    """Black is the percentile rounded to the pixel below, white to the one above."""
    high = min(100, low + span)
    counts = np.array([values], np.uint16)
    tone = Agc(low=low, high=high, min_span=1.0).measure(counts)
    ordered = sorted(values)
    black, white = ordered[(len(values) - 1) * low // 100], ordered[-(-(len(values) - 1) * high // 100)]
    if white - black >= 1:
        assert (tone.low, tone.high) == (black, white)
        assert black == np.percentile(counts, low, method="lower")
        assert white == np.percentile(counts, high, method="higher")
    else:
        assert (tone.low, tone.high) == (black - 0.5, black + 0.5)


def test_default_percentiles_on_a_frame_by_numpy() -> None:
    counts = scene()
    tone = Agc().measure(counts)
    assert tone.low == np.percentile(counts, 0.1, method="lower")
    assert tone.high == np.percentile(counts, 99.9, method="higher")


def test_large_frames_are_measured_on_every_nth_pixel() -> None:
    counts = scene(shape=(512, 640))
    assert Agc().measure(counts) == Agc().measure(counts[::4, ::4])
    assert Agc().measure(counts[::2, ::2]) == Agc().measure(counts[::4, ::4])


def test_noise_is_not_stretched() -> None:
    flat = np.full((20, 20), 1000, np.uint16)
    flat[0, 0] = 1004
    tone = Agc(low=0, high=100, min_span=32).measure(flat)
    assert (tone.low, tone.high) == (1002 - 16, 1002 + 16)
    assert set(np.unique(Agc(low=0, high=100).picture(flat))) == {112, 143}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(120, 160), (1, 1), (1, 7), (5, 3), (33, 64)])
def test_shape_and_type(mode: Mode, dtype: Any, shape: tuple[int, int]) -> None:
    counts = scene(shape=(120, 160), dtype=dtype)[: shape[0], : shape[1]]
    before = counts.copy()
    radiometry = LEPTON if dtype == np.uint16 else Linear(0.2, 0)
    picture = agc(mode).picture(counts, radiometry)
    assert picture.shape == shape and picture.dtype == np.uint8
    assert (counts == before).all()
    assert picture.flags.writeable


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 0), (np.uint8, 255), (np.uint16, 0), (np.uint16, 65535)])
def test_constant_frames_are_constant_pictures(mode: Mode, dtype: Any, value: int) -> None:
    counts = np.full((64, 80), value, dtype)
    picture = agc(mode).picture(counts, LEPTON)
    assert len(np.unique(picture)) == 1
    if mode == "percentile":
        assert picture[0, 0] == 128
    if mode == "window":
        assert picture[0, 0] == (255 if value == 65535 else 0)


@pytest.mark.parametrize("mode", ["percentile", "plateau", "window"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_hotter_is_never_darker(mode: Mode, dtype: Any, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, np.iinfo(dtype).max), min_size=2, max_size=60))
    counts = np.array([values], dtype)
    chosen = agc(mode, min_span=data.draw(st.sampled_from([1.0, 32.0])), plateau=data.draw(st.floats(1, 256)))
    tone = chosen.measure(counts, radiometry=LEPTON if dtype == np.uint16 else Linear(0.2, -1))
    whole = np.arange(np.iinfo(dtype).max + 1).astype(dtype)[None]
    assert (np.diff(chosen.apply(whole, tone).astype(int)[0]) >= 0).all()
    assert (chosen.apply(whole, tone)[0][counts] == chosen.apply(counts, tone)).all()


def test_percentile_is_the_straight_line_it_says() -> None:
    counts = np.arange(1000, 1256, dtype=np.uint16)[None]
    assert (Agc(low=0, high=100).picture(counts)[0] == np.arange(256)).all()
    tone = Tone(1000.25, 1100.75)
    expected = np.floor(np.clip((counts - 1000.25) / 100.5, 0, 1) * 255 + 0.5)
    assert (Agc().apply(counts, tone) == expected).all()


def test_window_is_the_straight_line_between_two_temperatures() -> None:
    chosen = agc("window", window_c=(20.0, 30.0))
    counts = np.array([[29215, 29315, 29815, 30315, 31315]], np.uint16)  # 19, 20, 25, 30, 40 degC
    assert chosen.picture(counts, LEPTON).tolist() == [[0, 0, 128, 255, 255]]
    black, white = (round(FLIR.counts(c)) for c in (20.0, 30.0))
    ends = chosen.picture(np.array([[black - 1, black + 20, white - 20, white + 1]], np.uint16), FLIR)[0]
    assert ends[0] == 0 and 0 < ends[1] < 5 and 250 < ends[2] < 255 and ends[3] == 255


def test_window_needs_temperatures() -> None:
    with pytest.raises(UsageError) as caught:
        agc("window").picture(scene())
    assert str(caught.value) == (
        "AGC mode 'window' needs temperatures, and this source gives bare counts. "
        "Name the camera's profile, or use mode percentile."
    )


def test_window_keeps_its_tone_while_a_camera_has_lost_its_temperatures() -> None:
    tone = agc("window").measure(scene(), radiometry=LEPTON)
    assert agc("window").measure(scene(), tone, elapsed_s=1.0) == tone


def test_window_does_not_depend_on_the_scene_and_survives_extremes() -> None:
    assert agc("window").measure(scene(0), radiometry=LEPTON) == agc("window").measure(scene(1) // 2, radiometry=LEPTON)
    for window in [(-273.0, 5000.0), (20.0, math.nextafter(20.0, 30.0)), (500.0, 600.0), (-270.0, -269.0)]:
        for radiometry in (LEPTON, FLIR):
            picture = agc("window", window_c=window).picture(scene(), radiometry)
            assert picture.shape == (120, 160)


def test_plateau_gives_a_small_object_more_grays_than_a_straight_line_would() -> None:
    rng = np.random.default_rng(1)
    counts = (rng.integers(0, 40, (100, 100)) + 1000).astype(np.uint16)
    counts[:20, :20] = rng.integers(3000, 3100, (20, 20))
    straight, equalised = Agc().picture(counts), agc("plateau").picture(counts)
    assert np.ptp(equalised[:20, :20]) > 2 * np.ptp(straight[:20, :20])
    # Unclipped, it is plain histogram equalisation: the background takes its 96 % of the grays, the object 4 %.
    plain = agc("plateau", plateau=1e6).picture(counts)
    assert np.ptp(plain[:20, :20]) < np.ptp(equalised[:20, :20])


def test_clahe_is_opencvs_on_the_percentile_picture() -> None:
    counts = scene()
    expected = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(Agc().picture(counts))
    assert (agc("clahe").picture(counts) == expected).all()


@pytest.mark.parametrize("mode", MODES)
def test_one_preprocessing_everywhere(mode: Mode) -> None:
    """Training (picture), calibration (measure and apply) and a stream's first frame are the same bits."""
    chosen, counts = agc(mode), scene(3)
    alone = chosen.picture(counts, LEPTON)
    assert (chosen.apply(counts, chosen.measure(counts, radiometry=LEPTON)) == alone).all()
    first = chosen.measure(counts, None, elapsed_s=0.111, radiometry=LEPTON)
    assert (chosen.apply(counts, first) == alone).all()
    copy = Agc.from_json(json.loads(json.dumps(chosen.to_json())))
    assert (copy.picture(np.asfortranarray(counts), LEPTON) == alone).all()
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    assert (chosen.picture(counts, LEPTON) == alone).all()
    cv2.setNumThreads(threads)


def test_golden_pictures() -> None:
    """These bits are what bundles were made with: a change here makes every bundle's picture another."""
    counts = (np.add.outer(np.arange(48) ** 2, 7 * np.arange(64)) + 27000).astype(np.uint16)
    weights = np.arange(counts.size, dtype=np.uint64)
    sums = {mode: int(agc(mode).picture(counts, LEPTON).ravel().astype(np.uint64) @ weights) for mode in GOLDEN_SUMS}
    assert sums == GOLDEN_SUMS


GOLDEN_SUMS: dict[Mode, int] = {"percentile": 612519826, "plateau": 795913089, "window": 120415643}


# --- over time ---


def test_smoothing_has_its_time_constant() -> None:
    chosen = Agc(smoothing_s=2.0, low=0, high=100)
    dark, bright = np.array([[1000, 2000]], np.uint16), np.array([[5000, 9000]], np.uint16)
    start = chosen.measure(dark)
    after = chosen.measure(bright, start, elapsed_s=2.0)
    assert after.low == pytest.approx(5000 - 4000 * math.exp(-1), rel=1e-12)
    assert after.high == pytest.approx(9000 - 7000 * math.exp(-1), rel=1e-12)


@pytest.mark.parametrize("mode", ["percentile", "plateau", "clahe"])
def test_smoothing_does_not_depend_on_the_frame_rate(mode: Mode) -> None:
    chosen = agc(mode, smoothing_s=1.0)
    slow = chosen.measure(scene(1), chosen.measure(scene(0)), elapsed_s=1.5)
    fast = chosen.measure(scene(0))
    for _ in range(60):
        fast = chosen.measure(scene(1), fast, elapsed_s=1.5 / 60)
    assert fast.low == pytest.approx(slow.low) and fast.high == pytest.approx(slow.high)
    if mode == "plateau":
        assert fast.curve == pytest.approx(slow.curve) and slow.curve is not None


@pytest.mark.parametrize("mode", MODES)
def test_no_time_no_change_and_a_long_time_no_memory(mode: Mode) -> None:
    chosen = agc(mode)
    old = chosen.measure(scene(0), radiometry=LEPTON)
    hot = (scene(1) + 700).astype(np.uint16)
    assert chosen.measure(hot, old, elapsed_s=0.0, radiometry=LEPTON) == old
    assert chosen.measure(hot, old, elapsed_s=-5.0, radiometry=LEPTON) == old, "a clock that goes back"
    assert chosen.measure(hot, old, elapsed_s=1e9, radiometry=LEPTON) == chosen.measure(hot, radiometry=LEPTON)
    quick = replace(chosen, smoothing_s=0.0)
    assert quick.measure(hot, old, elapsed_s=0.0, radiometry=LEPTON) == chosen.measure(hot, radiometry=LEPTON)


def test_a_still_scene_does_not_flicker() -> None:
    tone = first = agc("plateau").measure(scene())
    for elapsed in (0.01, 0.111, 0.5, 3.0):
        tone = agc("plateau").measure(scene(), tone, elapsed_s=elapsed)
        assert tone == first


def test_a_frozen_tone_leaves_the_picture_to_the_counts_alone() -> None:
    """While the shutter is closed a stream keeps the tone: the scene after it looks as before."""
    chosen = agc("plateau")
    before = chosen.measure(scene(0))
    shutter = np.full((120, 160), 29000, np.uint16)
    assert (chosen.apply(shutter, before) == 0).all()
    assert (chosen.apply(scene(0), before) == chosen.picture(scene(0))).all()


def test_a_plateau_stream_that_begins_with_another_modes_tone_keeps_its_curve() -> None:
    straight = Agc().measure(scene(0))
    assert agc("plateau").measure(scene(1), straight, elapsed_s=0.5).curve is not None


# --- parameters ---


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"mode": "gamma"}, "Unknown AGC mode: gamma. Choose one of percentile, plateau, clahe, window."),
    ({"low": 50, "high": 50}, "AGC percentiles must satisfy 0 <= low < high <= 100: 50, 50"),
    ({"low": math.nan}, "AGC percentiles must satisfy"),
    ({"high": 100.1}, "AGC percentiles must satisfy"),
    *(({name: math.nan}, "An AGC parameter is not finite") for name in ("min_span", "smoothing_s", "plateau", "clip")),
    ({"min_span": math.inf}, "An AGC parameter is not finite"),
    ({"window_c": (0.0, math.inf)}, "An AGC parameter is not finite"),
    *(({n: v}, "An AGC parameter is out of range") for n, v in [("min_span", 0.5), ("smoothing_s", -1), ("clip", 0)]),
    *(({"tiles": v}, "The AGC's tiles must be a whole number in 1..64") for v in (0, 65, 8.0, True, 10**9)),
    ({"window_c": (30.0, 30.0)}, "The AGC window must go from cold to hot: (30.0, 30.0) degC"),
    ({"window_c": (-300.0, 30.0)}, "The AGC window must go from cold to hot"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_parameters_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Agc(**changes)
    assert str(caught.value).startswith(message)


@given(
    st.builds(
        Agc,
        mode=st.sampled_from(MODES),
        low=st.floats(0, 49),
        high=st.floats(50, 100),
        min_span=st.floats(1, 1000),
        smoothing_s=st.floats(0, 60),
        plateau=st.floats(1, 256),
        clip=st.floats(0.01, 40),
        tiles=st.integers(1, 64),
        window_c=st.tuples(st.floats(-40, 20), st.floats(21, 500)),
    )
)
def test_parameters_json_round_trip(chosen: Agc) -> None:
    assert Agc.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


@pytest.mark.parametrize("key", Agc().to_json())
@pytest.mark.parametrize(
    "value", [None, True, "1", [1.0], {}, 10**400, [1.0, 2.0, 3.0], ["0", "1"], [True, 2]], ids=repr
)
def test_wrong_types_in_parameters(key: str, value: Any) -> None:
    with pytest.raises(UsageError):
        Agc.from_json({**Agc().to_json(), key: value})


def test_missing_and_unknown_parameters() -> None:
    value = Agc().to_json()
    with pytest.raises(UsageError, match=r"^Not the parameters of an AGC: .*gamma"):
        Agc.from_json({**value, "gamma": 1.0})
    with pytest.raises(UsageError, match="KeyError"):
        Agc.from_json({key: entry for key, entry in value.items() if key != "mode"})


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4), np.int64),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros(16, np.uint16),
        np.zeros((0, 4), np.uint16),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_what_is_no_frame(counts: Any) -> None:
    for call in (Agc().measure, lambda c: Agc().apply(c, Tone(0, 1))):
        with pytest.raises(UsageError, match=r"^AGC takes one channel of uint8 or uint16: "):
            call(counts)


# --- resize ---


def test_fit_keeps_grays_averages_down_and_interpolates_up() -> None:
    picture = np.zeros((8, 8), np.uint8)
    picture[:, ::2] = 200
    assert thermal.fit(picture, 8, 8) is picture
    down = thermal.fit(picture, 4, 4)
    assert down.shape == (4, 4) and (down == 100).all(), "averaged: stripes do not alias"
    up = thermal.fit(np.full((8, 8), 77, np.uint8), 20, 12)
    assert up.shape == (20, 12) and (up == 77).all() and up.dtype == np.uint8


# --- real frames ---


@needs_data
def test_real_lepton_and_tau_frames() -> None:
    folder = Path(os.environ["EDGEUNIP_DATA"], "raw16-thermal")
    files = [*sorted(folder.glob("lepton/*/*.png"))[:4], *folder.glob("tau640/*_png16.png")]
    assert len(files) == 5
    for file in files:
        counts, radiometry = images.read_counts(file)
        assert radiometry is None and counts.dtype == np.uint16
        for mode in ("percentile", "plateau", "clahe"):
            picture = agc(mode).picture(counts)
            assert picture.min() < 20 and picture.max() > 235, (file, mode)


@needs_data
def test_real_flir_temperatures() -> None:
    folder = Path(os.environ["EDGEUNIP_DATA"], "raw16-thermal")
    table = json.loads((folder / "frames.json").read_text())
    files = sorted(folder.glob("flir_jpeg/*.jpg"))
    assert len(files) == 11
    for file in files:
        counts, radiometry = images.read_counts(file)
        assert isinstance(radiometry, Planck)
        apparent = replace(radiometry, emissivity=1.0, distance_m=0.0).celsius(counts)
        expected = table[f"flir_jpeg/{file.stem}"]
        assert (float(apparent.min()), float(apparent.max())) == pytest.approx(expected["apparent_c"], abs=0.01)
        assert radiometry.emissivity == pytest.approx(expected["emissivity"], abs=1e-6)
        corrected = radiometry.celsius(counts)
        assert float(np.abs(corrected - apparent).max()) < 15 and np.isfinite(corrected).all(), file
