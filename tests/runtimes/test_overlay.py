from dataclasses import replace

import cv2
import numpy as np
import pytest
from tiny_runtime import CLASSES, LINEAR

from edgeunip.frame import Alarm, ClassStatistics, Frame, Region, Result, State
from edgeunip.runtimes.overlay import MIN_WIDTH, Overlay, _alarm


def make(height=24, width=40, *, state=State.LIVE, statistics=None):
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (height, width)).astype(np.uint8)
    labels = random.integers(0, 5, (height, width)).astype(np.uint8)
    frame = Frame(np.zeros((height, width), np.uint16), 0, 0, state, LINEAR)
    return Result(frame, picture, labels, statistics or {}, 0)


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 1.0])
def test_colours_are_a_blend_and_the_background_stays_gray(opacity):
    result = make()
    image = Overlay(CLASSES, opacity=opacity).colour(result)
    gray = np.repeat(result.picture[..., None], 3, 2).astype(np.float64)
    colour = CLASSES.palette()[result.class_map].astype(np.float64)
    coloured = ((result.class_map > 0) & (result.class_map < len(CLASSES)))[..., None]
    share = np.where(coloured, opacity, 0.0)
    assert np.array_equal(image, np.floor(gray * (1 - share) + colour * share + 0.5))


@pytest.mark.parametrize(("width", "scale"), [(80, 6), (160, 3), (206, 3), (320, 2), (479, 2), (480, 1), (640, 1)])
def test_small_sensors_are_enlarged_by_a_whole_number(width, scale):
    overlay, result = Overlay(CLASSES), make(24, width)
    image = overlay.draw(result)
    assert image.shape == (24 * scale, width * scale, 3)
    assert image.shape[1] >= MIN_WIDTH
    assert np.array_equal(image[::scale, ::scale], overlay.colour(result))


def test_legend_names_present_classes_and_marks_the_hotspot():
    present = ClassStatistics(96, 0.1, 20.0, 25.0, 31.25, (300, 100))
    result = make(240, 640, statistics={"background": present, "hot": present, "cool": ClassStatistics(0, 0.0)})
    overlay = Overlay(CLASSES)
    image = overlay.draw(result)
    assert tuple(image[8, 8]) == CLASSES.colours[3]
    assert tuple(image[100, 300]) == (255, 255, 255)
    changed = (image != overlay.colour(result)).any(2)
    assert changed[:17, :60].any()
    assert not changed[20:90].any()


def test_legend_tells_a_state_that_is_not_live():
    live, closed = (Overlay(CLASSES).draw(make(240, 640, state=state)) for state in (State.LIVE, State.FFC))
    assert not np.array_equal(live, closed)


def region(number, box, name="hot"):
    return Region(name, number, box, ClassStatistics(box[2] * box[3], 0.1))


def alarm(name="fever", region=0, unit="C"):
    return Alarm("hot max > 38 C", name, 0, 38.44, unit, None, region)


def test_followed_regions_have_boxes_and_those_of_an_alarm_are_red():
    regions = (region(1, (300, 50, 60, 40)), region(2, (400, 50, 60, 40)), region(0, (500, 50, 60, 40)))
    result = replace(make(240, 640), regions=regions, alarms=(alarm(region=2),))
    overlay = Overlay(CLASSES)
    image, plain = overlay.draw(result), overlay.draw(replace(result, regions=(), alarms=()))
    assert tuple(image[50, 330]) == CLASSES.colours[3]
    assert tuple(image[50, 430]) == (255, 40, 40)
    assert (image[45:100, 480:] == plain[45:100, 480:]).all()
    # The number stands inside, at the lower left.
    assert (image[76:90, 300:312] == 0).all(2).sum() > 30
    assert image[76:90, 300:312].min(2).max() > 200


def test_of_numbers_that_would_cover_one_another_the_larger_regions_is_written():
    """Unless an alarm is about the smaller; both boxes are drawn."""
    large, small = region(1, (300, 50, 90, 40)), region(22, (304, 70, 30, 20))
    overlay, result = Overlay(CLASSES), make(240, 640)
    both, alarmed = (
        overlay.draw(replace(result, regions=(small, large), alarms=alarms))[79:89, 300:320] == 0
        for alarms in ((), (alarm(region=22),))
    )
    black = [(part[:, :4].all(2).sum(), part[:, 13:].all(2).sum()) for part in (both, alarmed)]
    assert black[0][0] > 20 and black[0][1] == 0  # the 1 at 300
    assert black[1][0] == 0 and black[1][1] > 20  # the 22 at 304
    assert tuple(overlay.draw(replace(result, regions=(large, small)))[70, 320]) == CLASSES.colours[3]


def test_boxes_are_enlarged_with_the_picture():
    result = replace(make(60, 80), regions=(region(1, (20, 10, 30, 20)),))
    image = Overlay(CLASSES).draw(result)
    assert tuple(image[60, 200]) == tuple(image[179, 299]) == CLASSES.colours[3]


def test_alarms_stand_at_the_foot_and_many_are_summed_up():
    overlay, result = Overlay(CLASSES), make(240, 640)
    one, nine = (overlay.draw(replace(result, alarms=(alarm(),) * number)) for number in (1, 9))
    assert tuple(one[222 + 2, 1]) == (190, 0, 0)
    assert not (one[:223] != overlay.draw(result)[:223]).any()
    assert tuple(nine[240 - 5 * 17 + 2, 1]) == (190, 0, 0)
    assert not (nine[: 240 - 5 * 17] != overlay.draw(result)[: 240 - 5 * 17]).any()


@pytest.mark.parametrize(
    ("unit", "region", "text"),
    [("C", 3, "fever: 38.4 C at 3"), ("%", 0, "fever: 38.4 %"), ("px", 0, "fever: 38 px"), ("count", 0, "fever: 38")],
)
def test_an_alarm_in_words(unit, region, text):
    assert _alarm(alarm(unit=unit, region=region)) == text


def test_overlay_is_quick_enough():
    overlay, result = Overlay(CLASSES), make(480, 640)
    times = []
    for _ in range(20):
        start = cv2.getTickCount()
        overlay.colour(result)
        times.append((cv2.getTickCount() - start) / cv2.getTickFrequency() * 1e3)
    assert min(times) < 2.0
