from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.classes import Classes
from edgeunip.frame import ClassStatistics, Frame, Region, Result, State
from edgeunip.runtimes.alarms import RuleWatch
from edgeunip.runtimes.areas import Area
from edgeunip.runtimes.rules import parse_rule

CLASSES = Classes(("background", "person", "car"), ((0, 0, 0),) * 3)
GATE = Area("gate", ((0, 0), (0.5, 0), (0.5, 1), (0, 1)), relative=True)
PERIOD_NS = 100_000_000
BLIND = [State.FFC, State.SETTLING, State.STALE, State.FROZEN, State.OFFLINE]


def heat(celsius, *, pixels=10, at=(5.0, 5.0), p95=None):
    """A part at one temperature."""
    spot = None if celsius is None else (int(at[0]), int(at[1]))
    p95 = celsius if p95 is None else p95
    return ClassStatistics(pixels, pixels / 200, celsius, celsius, celsius, spot, p95, at)


def result(t_ns, regions=(), *, state=State.LIVE, areas=None, background=None, seq=0):
    """A result of numbered regions given as (name, number, statistics); a class is as hot as its hottest region."""
    found = {name: ClassStatistics(0, 0.0) for name in CLASSES.names}
    found["background"] = heat(background, pixels=100)
    for name in CLASSES.names[1:]:
        hottest = max((s for n, _, s in regions if n == name), key=lambda s: s.max_c or -999, default=None)
        if hottest is not None:
            pixels = sum(s.pixels for n, _, s in regions if n == name)
            found[name] = replace(hottest, pixels=pixels, area=pixels / 200, p95_c=-99.0, mean_c=-99.0)
    frame = Frame(np.zeros((10, 20), np.uint16), seq, t_ns, state)
    flat = np.zeros((10, 20), np.uint8)
    listed = tuple(Region(name, number, (0, 0, 1, 1), entry) for name, number, entry in regions)
    return Result(frame, flat, flat, found, t_ns, regions=listed, areas=areas or {})


def watch(*rules, **options):
    parsed = [parse_rule(rule, CLASSES, ["gate"], name=f"rule {i}") for i, rule in enumerate(rules)]
    return RuleWatch(parsed, {"gate": GATE}, **options)


def one_person(watched, values, *, start=0, state=State.LIVE, period_ns=PERIOD_NS):
    """Whether the alarm is raised at each frame while a person has these temperatures; None is no person."""
    raised = []
    for step, value in enumerate(values, start):
        regions = [] if value is None else [("person", 1, heat(value))]
        raised.append(bool(watched.alarms(result(step * period_ns, regions, state=state))))
    return raised


def test_an_alarm_tells_what_it_is_about():
    watched = watch("person max > 38 C")
    people = [("person", 4, heat(36)), ("person", 7, heat(39.5, at=(12.0, 3.0)))]
    (alarm,) = watched.alarms(result(5_000, people))
    assert (alarm.rule, alarm.name, alarm.since_ns) == ("person max > 38 C", "rule 0", 5_000)
    assert (alarm.value, alarm.unit, alarm.hotspot, alarm.region) == (39.5, "C", (12, 3), 7)
    (later,) = watched.alarms(result(6_000, [("person", 7, heat(38.2))]))
    assert (later.since_ns, later.value, later.region) == (5_000, 38.2, 7)
    assert watched.alarms(result(7_000, [])) == ()


def test_max_counts_every_pixel_and_p95_goes_by_the_region():
    crowd = [("person", 1, heat(30, p95=29)), ("person", 2, heat(39, p95=35))]
    seen = result(0, crowd)
    # A speck of the class that is too small for a region.
    speck = replace(seen, classes={**seen.classes, "person": replace(seen.classes["person"], max_c=90.0)})
    (alarm,) = watch("person max > 80 C").alarms(speck)
    assert (alarm.value, alarm.region) == (90, 0)
    (alarm,) = watch("person p95 > 30 C").alarms(seen)
    assert (alarm.value, alarm.region) == (35, 2)
    (alarm,) = watch("person p95 < 30 C").alarms(seen)
    assert (alarm.value, alarm.region) == (29, 1)


def test_any_sees_the_background_and_spares_whom_it_is_told_to():
    hot_car = [("car", 1, heat(95)), ("person", 2, heat(36))]
    assert watch("any max > 80 C").alarms(result(0, hot_car))[0].value == 95
    assert watch("any except car max > 80 C").alarms(result(0, hot_car)) == ()
    assert watch("any except car max > 80 C").alarms(result(0, hot_car, background=99))[0].value == 99


def test_counts_and_areas():
    two = [("person", 1, heat(30, pixels=3)), ("person", 2, heat(30, pixels=5)), ("car", 3, heat(30, pixels=4))]
    assert watch("person count >= 2").alarms(result(0, two))[0].value == 2
    assert watch("person count > 2").alarms(result(0, two)) == ()
    assert watch("person count < 1").alarms(result(0, []))[0].value == 0
    assert watch("any area > 11 px").alarms(result(0, two))[0].value == 12
    (alarm,) = watch("person area > 3.9 %").alarms(result(0, two))
    assert (alarm.value, alarm.unit, alarm.hotspot, alarm.region) == (4, "%", None, 0)


def test_an_area_of_interest_has_its_own_numbers():
    people = [("person", 1, heat(36, at=(5.0, 5.0))), ("person", 2, heat(41, at=(15.0, 5.0)))]
    within = {"gate": {"background": heat(10), "person": heat(36), "car": ClassStatistics(0, 0.0)}}
    seen = result(0, people, areas=within)
    assert watch("person max > 38 C in gate").alarms(seen) == ()
    assert watch("person max > 35 C in gate").alarms(seen)[0].value == 36
    assert watch("person count > 0 in gate").alarms(seen)[0].value == 1
    assert watch("person count > 1 in gate").alarms(seen) == ()


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_without_a_temperature_there_is_no_alarm(nothing):
    for rule in ("person max > -200 C", "person max < 999 C", "person p95 > -200 C", "any min < 999 C"):
        assert watch(rule).alarms(result(0, [("person", 1, heat(nothing))], background=nothing)) == ()


def test_hysteresis_keeps_an_alarm_that_wavers():
    watched = watch("person max > 38 C")
    assert one_person(watched, [38, 38.1, 37.8, 37.6, 37.5, 37.8, 38.1]) == [0, 1, 1, 1, 0, 0, 1]
    # Negative control: without a band it flaps.
    assert one_person(watch("person max > 38 C hysteresis 0 C"), [38.1, 37.9, 38.1]) == [1, 0, 1]
    below = watch("person max < 10 C hysteresis 2 C")
    assert one_person(below, [10, 9.9, 11.9, 12, 11]) == [0, 1, 1, 0, 0]


@given(st.lists(st.floats(37.51, 38.0), min_size=1, max_size=50))
def test_within_the_band_nothing_changes(values):
    watched = watch("person max > 38 C")
    assert not any(one_person(watched, values))
    assert one_person(watched, [40.0], start=len(values)) == [True]
    assert all(one_person(watched, values, start=len(values) + 1))


def test_for_counts_from_the_first_frame_above():
    raised = one_person(watch("person max > 38 C for 1 s"), [37] + [39] * 12)
    assert raised == [False] * 11 + [True] * 2
    # One frame below, or without the person, and it begins anew.
    for gap in (38.0, None):
        assert not any(one_person(watch("person max > 38 C for 1 s"), ([39] * 10 + [gap]) * 5))


mostly_hot = st.sampled_from([True] * 15 + [False])
mostly_live = st.sampled_from([State.LIVE] * 30 + BLIND)


@given(st.lists(st.tuples(st.integers(100, 400), mostly_hot, mostly_live), min_size=20, max_size=60))
def test_for_never_ends_early(frames):
    """Whatever comes: an alarm of ``for 3 s`` has seen 3 s of live frames above without one below between."""
    watched, t_ns, hot_ns, before = watch("person max > 38 C for 3 s"), 0, None, None
    for gap_ms, hot, state in frames:
        t_ns += gap_ms * 1_000_000
        if state is State.LIVE:
            if not hot:
                hot_ns = None
            elif hot_ns is None:
                hot_ns = 0
            elif before is State.LIVE:
                hot_ns += gap_ms * 1_000_000
        regions = [("person", 1, heat(39.0 if hot else 30.0))]
        raised = watched.alarms(result(t_ns, regions, state=state))
        if raised and raised[0].since_ns == t_ns:
            assert hot_ns is not None and hot_ns >= 3_000_000_000
        before = state


@given(
    st.lists(st.tuples(st.floats(-50, 500), st.sampled_from(BLIND), st.integers(0, 10_000)), max_size=40),
    st.sampled_from(["person max > 38 C", "person rises 1 C in 10 s", "any max > 38 C", "person count > 0"]),
)
def test_what_is_no_scene_raises_nothing_whatever_it_shows(frames, rule):
    watched, t_ns = watch(rule), 0
    for celsius, state, gap_ms in frames:
        t_ns += gap_ms * 1_000_000
        seen = result(t_ns, [("person", 1, heat(celsius))], state=state, background=celsius)
        assert watched.alarms(seen) == ()
    # Negative control: the same in a live scene does raise, once for a level and twice for a rise.
    watched.alarms(result(t_ns + PERIOD_NS, [("person", 1, heat(30.0))]))
    assert watched.alarms(result(t_ns + 2 * PERIOD_NS, [("person", 1, heat(60.0))]))


@pytest.mark.parametrize("state", BLIND)
def test_alarms_stay_and_clocks_stand_still_meanwhile(state):
    watched = watch("person max > 38 C for 1 s")
    assert not any(one_person(watched, [39] * 6))  # 0.5 s
    assert not any(one_person(watched, [99] * 30, start=6, state=state))
    raised = one_person(watched, [39] * 8, start=36)  # 0.5 s more are needed, after the first frame
    assert raised == [False] * 5 + [True] * 3
    assert all(one_person(watched, [None] * 20, start=44, state=state))
    assert not any(one_person(watched, [None] * 3, start=64))


def test_degraded_counts_as_live():
    assert one_person(watch("person max > 38 C for 300 ms"), [39] * 5, state=State.DEGRADED) == [0, 0, 0, 1, 1]


def test_a_silence_begins_for_anew():
    watched = watch("person max > 38 C for 1 s")
    one_person(watched, [39] * 10)
    assert not any(one_person(watched, [39] * 10, start=20))  # 1.1 s of silence: more than 3 periods and 0.5 s
    assert one_person(watched, [39], start=30) == [True]
    # A slow stream has no silences: two seconds lie between all of its frames.
    slow = one_person(watch("person max > 38 C for 5 s"), [39] * 60, period_ns=2_000_000_000)
    assert slow[-1]


def test_time_that_goes_back_begins_anew():
    watched = watch("person max > 38 C for 1 s")
    one_person(watched, [39] * 10, start=100)
    assert not any(one_person(watched, [39] * 10))
    assert one_person(watched, [39], start=10) == [True]


def test_hold_off_keeps_quiet_after_the_end():
    watched = watch("person max > 38 C again after 1 s")
    raised = one_person(watched, [39, 30] + [39] * 12)
    assert raised == [1, 0] + [0] * 9 + [1] * 3
    assert one_person(watch("person max > 38 C"), [39, 30, 39]) == [1, 0, 1]


def test_a_rise_is_of_one_region_over_time():
    watched = watch("car rises 5 C in 1 s")
    warming = [("car", 1, heat(20 + 0.6 * step)) for step in range(12)]
    raised = [watched.alarms(result(step * PERIOD_NS, [car])) for step, car in enumerate(warming)]
    assert [bool(alarms) for alarms in raised] == [False] * 9 + [True] * 3
    assert raised[9][0].value == pytest.approx(5.4)
    assert raised[11][0].value == pytest.approx(6.0)  # of the last second only
    assert (raised[9][0].region, raised[9][0].unit) == (1, "C")
    # The same rise in five times the time is none.
    slow = watch("car rises 5 C in 1 s")
    assert not any(slow.alarms(result(5 * step * PERIOD_NS, [car])) for step, car in enumerate(warming))


def test_a_hotter_newcomer_is_no_rise():
    watched = watch("car rises 5 C in 10 s", "any rises 5 C in 10 s")
    for step in range(20):
        seen = [("car", 1, heat(20))] + ([("car", 2, heat(90))] if step >= 5 else [])
        assert watched.alarms(result(step * PERIOD_NS, seen)) == ()
    # Negative control: the maximum of the class did rise.
    assert watch("car max > 80 C").alarms(result(0, seen))


def test_a_region_that_nobody_follows_has_no_past():
    watched = watch("car rises 5 C in 10 s")
    assert not any(watched.alarms(result(s * PERIOD_NS, [("car", 0, heat(20 + 9 * s))])) for s in range(5))


def test_histories_are_bounded_and_forgotten():
    watched = watch("car rises 5 C in 60 s")
    rises = watched._watched[0]._rises
    for step in range(20_000):
        watched.alarms(result(step * 16_000_000, [("car", 1 + step // 1000, heat(20))]))
    assert len(rises._histories) <= 6  # each number lasts 16 s
    patient = watch("car rises 5 C in 1000 h")
    for step in range(1200):
        patient.alarms(result(step * 100_000_000, [("car", 1, heat(20 + step / 1e4)), ("car", 2 + step, heat(20))]))
    histories = patient._watched[0]._rises._histories
    assert len(histories) == 1024 and histories.keys() >= {1, 1201}
    assert max(len(history) for history in rises._histories.values()) <= 66


def test_a_recording_has_the_time_of_its_rate_not_of_its_reading():
    watched = watch("person max > 38 C for 1 s", rate_hz=9.0)
    people = [("person", 1, heat(39))]
    raised = [bool(watched.alarms(result(0, people, seq=seq))) for seq in range(12)]
    assert raised == [False] * 9 + [True] * 3
    # Pictures that do not belong together have no duration.
    alone = watch("person max > 38 C for 1 s", "person max > 38 C", rate_hz=0.0)
    names = [[a.name for a in alone.alarms(result(s * PERIOD_NS, people, seq=s))] for s in range(30)]
    assert names == [["rule 1"]] * 30
