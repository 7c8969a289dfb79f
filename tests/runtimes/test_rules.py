import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeunip.classes import Classes
from edgeunip.errors import UsageError
from edgeunip.runtimes.rules import Rule, parse_rule, write_rule

CLASSES = Classes(("background", "person", "car", "traffic light"), ((0, 0, 0),) * 4)
AREAS = ("gate", "left door")


def parse(text, name=""):
    return parse_rule(text, CLASSES, AREAS, name=name)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("person max > 38 C for 3 s", Rule(("person",), "max", 38, "C", for_s=3, hysteresis=0.5)),
        (
            "any except car max > 80 C",
            Rule(("background", "person", "traffic light"), "max", 80, "C", hysteresis=0.5, any=True),
        ),
        ("car rises 5 C in 10 s", Rule(("car",), "max", 5, "C", window_s=10, hysteresis=0.5)),
        ("car p95 rises 9 F in 2 min", Rule(("car",), "p95", 5, "C", window_s=120, hysteresis=0.5)),
        ("person count > 3 in gate", Rule(("person",), "count", 3, "count", area="gate")),
        ("car area > 2 %", Rule(("car",), "area", 2, "%", hysteresis=0.1)),
        ("car area >= 500px", Rule(("car",), "area", 500, "px", ">=", hysteresis=25)),
        (
            "person p95 > 37.5°C in gate for 3s",
            Rule(("person",), "p95", 37.5, "C", area="gate", for_s=3, hysteresis=0.5),
        ),
        ("car mean <= 0 c", Rule(("car",), "mean", 0, "C", "<=", hysteresis=0.5)),
        ("car MIN < 250 K hysteresis 2 K", Rule(("car",), "min", 250 - 273.15, "C", "<", hysteresis=2)),
        ("car max > 212 F hysteresis 9 F", Rule(("car",), "max", 100, "C", hysteresis=5)),
        (
            '"traffic light" max > -5 C in "left door" for 500 ms again after 1 min',
            Rule(("traffic light",), "max", -5, "C", area="left door", for_s=0.5, hysteresis=0.5, again_s=60),
        ),
        ("any count ≥ 1", Rule(("person", "car", "traffic light"), "count", 1, "count", ">=", any=True)),
        (
            "any except person, car and 'traffic light' max > 1 C",
            Rule(("background",), "max", 1, "C", hysteresis=0.5, any=True),
        ),
        ("car rises 0.4 C in 10 s", Rule(("car",), "max", 0.4, "C", window_s=10, hysteresis=0.2)),
        ("car rises 1 C in 10 s in gate", Rule(("car",), "max", 1, "C", window_s=10, area="gate", hysteresis=0.5)),
    ],
)
def test_rules_mean_what_they_say(text, rule):
    found = parse(text)
    assert found.threshold == pytest.approx(rule.threshold)
    assert found.hysteresis == pytest.approx(rule.hysteresis)
    assert Rule(**{**vars(found), "threshold": rule.threshold, "hysteresis": rule.hysteresis}) == rule
    assert (found.text, found.name) == (text, text)
    assert parse(text, "fever").name == "fever"


@pytest.mark.parametrize(
    ("text", "character", "says"),
    [
        ("persn max > 38 C", 1, "No class is called 'persn'"),
        ("persn max > 38 C", 1, "Did you mean person?"),
        ("", 1, "Here belongs a class, not the end"),
        ("38 C", 1, "of: 38 C. Classes: background, person, car, traffic light."),
        ("traffic light max > 3 C", 1, "The class traffic light needs quotation marks"),
        ("person maks > 38 C", 8, "Here belongs what is measured, not 'maks'"),
        ("person maks > 38 C", 8, "Did you mean max"),
        ("person max 38 C", 12, "Here belongs a comparison, not '38'"),
        ("person max > C", 14, "Here belongs a number, not 'C'"),
        ("person max > 38", 16, "Here belongs a unit, not the end"),
        ("person max > 38 for 3 s", 17, "Here belongs a unit, not 'for'"),
        ("person max > 38 px", 17, "Write C, F or K."),
        ("car area > 2 C", 14, "Write % or px."),
        ("car area > 120 %", 12, "No area can be 120 %"),
        ("car max > -300 C", 11, "No temperature is below absolute zero"),
        ("car max > 0 K", 11, "No temperature is below absolute zero"),
        ("car rises 0 C in 3 s", 11, "A rise must be above 0"),
        ("car rises 5 C", 14, "A rise is written: rises 5 C in 10 s."),
        ("car rises 5 C in 0 s", 18, "A rise needs a time above 0"),
        ("car area rises 5 % in 3 s", 10, "Here belongs a comparison, not 'rises'"),
        ("background count > 3", 1, "No count can be told of the background alone"),
        ("background rises 3 C in 3 s", 1, "No change can be told of the background alone"),
        ("car max > 3 C for 3", 20, "Here belongs a unit of time, not the end"),
        ("car max > 3 C for 3 years", 21, "Write ms, s, min or h."),
        ("car max > 3 C for -3 s", 19, "A time is not below 0"),
        ("car max > 3 C in gat", 18, "Did you mean gate?"),
        ("car max > 3 C fr 3 s", 15, "Did you mean for?"),
        ("car max > 3 C for 3 s for 4 s", 23, "'for' stands here for the second time"),
        ("car max > 3 C again 4 s", 21, "Here belongs after, not '4'"),
        ("car area > 3 % hysteresis 4 px", 29, "The hysteresis is in the unit of the threshold, %"),
        ("car max > 3 C hysteresis -1 C", 26, "A hysteresis is not below 0"),
        ("car rises 2 C in 3 s hysteresis 2 C", 1, "An alarm of this rule would never end"),
        ("car area > 3 % hysteresis 4 %", 1, "An alarm of this rule would never end"),
        ("car area < 97 % hysteresis 4 %", 1, "An alarm of this rule would never end"),
        ("car count >= 0", 1, "An alarm of this rule would never end"),
        ("car max > 3 C; drop", 14, "';' is no part of a rule"),
        ('"car max > 3 C', 1, "This quotation mark is never closed"),
        ("car max > 1" + "0" * 400 + " C", 11, "This number is too large"),
    ],
)
def test_errors_point_at_the_word(text, character, says):
    with pytest.raises(UsageError) as raised:
        parse(text, "fever")
    message = str(raised.value)
    assert says in message
    assert f"rule fever, character {character} of: " in message
    assert "\n" not in message


def test_without_areas_the_remedy_says_so():
    with pytest.raises(UsageError, match=r"No area is called 'gate'.*The scene file has no \[areas\] yet"):
        parse_rule("car max > 3 C in gate", CLASSES)


def test_a_class_name_does_not_hide_a_longer_one():
    classes = Classes(("background", "dog", "dog house"), ((0, 0, 0),) * 3)
    with pytest.raises(UsageError, match=r'The class dog house needs quotation marks.*Write "dog house"'):
        parse_rule("dog house max > 3 C", classes)
    assert parse_rule("dog max > 3 C", classes).classes == ("dog",)


def test_words_of_the_language_can_be_names():
    classes = Classes(("background", "any", "for", "max"), ((0, 0, 0),) * 4)
    rule = parse_rule('"any" max > 3 C in "in"', classes, ["in"])
    assert (rule.classes, rule.any, rule.area) == (("any",), False, "in")
    assert parse_rule(write_rule(rule, classes), classes, ["in"]) == rule
    assert parse_rule("any except 'any' and max count > 1", classes).classes == ("for",)


numbers = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def rules(draw):
    quantity = draw(st.sampled_from(["max", "mean", "min", "p95", "area", "count"]))
    window = draw(st.none() | st.floats(1e-3, 1e6)) if quantity in ("max", "mean", "min", "p95") else None
    meant = CLASSES.names[1:] if window or quantity in ("area", "count") else CLASSES.names
    some = draw(st.booleans())
    chosen = draw(st.sets(st.sampled_from(meant), min_size=1)) if some else {draw(st.sampled_from(meant))}
    unit = {"area": draw(st.sampled_from(["%", "px"])), "count": "count"}.get(quantity, "C")
    threshold = draw(st.floats(1e-3, 100) if window or unit == "%" else numbers)
    rule = Rule(
        tuple(name for name in meant if name in chosen),
        quantity,
        threshold,
        unit,
        ">" if window else draw(st.sampled_from([">", ">=", "<", "<="])),
        window,
        draw(st.none() | st.sampled_from(AREAS)),
        draw(numbers),
        draw(st.floats(0, 1) | st.sampled_from([threshold / 3, threshold / 2])),
        draw(numbers),
        some,
    )
    assume(not rule.endless)
    return rule


@given(rules())
def test_what_is_written_reads_the_same(rule):
    assert parse(write_rule(rule, CLASSES)) == rule


WORDS = (
    "person",
    "car",
    "any",
    "except",
    "max",
    "rises",
    ">",
    "<",
    "3",
    "-1.5",
    "C",
    "%",
    "s",
    "in",
    "for",
    "gate",
    "'",
)


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS)).map(" ".join))
def test_any_text_is_a_rule_or_a_clear_refusal(text):
    try:
        found = parse(text)
    except UsageError as error:
        assert "character" in str(error) and "\n" not in str(error)
    else:
        assert parse(write_rule(found, CLASSES)) == found


@given(rules(), st.floats(-1e3, 1e3))
def test_the_band_lies_on_the_side_of_the_comparison(rule, value):
    # What satisfies the comparison satisfies it with slack; the band is as wide as the slack.
    if rule.beyond(value):
        assert rule.beyond(value, slack=rule.hysteresis)
    inward = -1 if rule.comparison[0] == ">" else 1
    edge = rule.threshold + inward * rule.hysteresis
    assert rule.beyond(edge, slack=rule.hysteresis) == (len(rule.comparison) == 2)
    assert not rule.beyond(np.nan)
