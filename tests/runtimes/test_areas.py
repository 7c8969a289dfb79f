import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_runtime import CLASSES, LINEAR

from edgeunip.errors import UsageError
from edgeunip.frame import ClassStatistics, Frame
from edgeunip.runtimes.areas import Area, area_statistics, mask

SQUARE = ((2.0, 1.0), (6.0, 1.0), (6.0, 4.0), (2.0, 4.0))


def whole(area, shape):
    """An area's pixels in the whole frame."""
    found, picture = mask(area, shape), np.zeros(shape, bool)
    rows, columns = found.inside.shape
    picture[found.origin[1] : found.origin[1] + rows, found.origin[0] : found.origin[0] + columns] = found.inside
    return picture


def test_a_rectangle_on_pixel_edges_holds_the_pixels_between():
    expected = np.zeros((8, 10), bool)
    expected[1:4, 2:6] = True
    assert np.array_equal(whole(Area("a", SQUARE), (8, 10)), expected)
    assert np.array_equal(whole(Area("a", SQUARE[::-1]), (8, 10)), expected)


def test_the_whole_frame_in_shares_and_in_pixels():
    shares = Area("a", ((0, 0), (1, 0), (1, 1), (0, 1)), relative=True)
    assert whole(shares, (7, 9)).all()
    assert whole(Area("a", ((0, 0), (9, 0), (9, 7), (0, 7))), (7, 9)).all()


def test_two_areas_with_a_common_side_share_no_pixel_and_leave_none_out():
    left, right = ((0, 0), (4.5, 0), (2.5, 8), (0, 8)), ((4.5, 0), (10, 0), (10, 8), (2.5, 8))
    one, two = (whole(Area("a", corners), (8, 10)) for corners in (left, right))
    assert np.array_equal(one, ~two)


@given(st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_a_pixel_belongs_to_the_area_when_its_centre_does(corners, seed):
    random = np.random.default_rng(seed)
    angles = np.sort(random.random(corners)) * 2 * np.pi
    radii = random.uniform(2, 14, corners)
    polygon = np.stack([16 + radii * np.cos(angles), 15 + radii * np.sin(angles)], 1)
    assume(np.diff(angles).min() > 0.05 and np.diff(angles).max() < 3 and angles[0] + 2 * np.pi - angles[-1] < 3)
    area = Area("star", tuple((float(x), float(y)) for x, y in polygon))
    contour = polygon.astype(np.float32)[:, None]
    for y, x in np.ndindex(30, 32):
        distance = cv2.pointPolygonTest(contour, (x + 0.5, y + 0.5), True)
        if abs(distance) > 1e-3:
            assert whole(area, (30, 32))[y, x] == (distance > 0)


def test_statistics_within_an_area_against_numpy():
    random = np.random.default_rng(0)
    counts = random.integers(29000, 31000, (40, 50)).astype(np.uint16)
    labels = random.integers(0, 3, (40, 50)).astype(np.uint8)
    area = Area("a", ((5, 3), (45, 10), (20, 38)))
    found = area_statistics(Frame(counts, 0, 0, radiometry=LINEAR), labels, CLASSES, area)
    inside = whole(area, (40, 50))
    assert found["hot"] == ClassStatistics(0, 0.0)
    for number, name in enumerate(CLASSES.names[:3]):
        part, entry = inside & (labels == number), found[name]
        assert (entry.pixels, entry.area) == (part.sum(), pytest.approx(part.sum() / inside.sum()))
        y, x = np.unravel_index(np.where(part, counts, 0).argmax(), counts.shape)
        assert (entry.hotspot, entry.max_c) == ((x, y), pytest.approx(LINEAR.celsius(counts)[y, x]))
        assert entry.centroid == pytest.approx(np.argwhere(part).mean(0)[::-1])


@pytest.mark.parametrize(
    ("polygon", "relative", "says"),
    [
        (SQUARE[:2], False, "a polygon has 3 to 1000 corners, this one 2"),
        (SQUARE * 251, False, "this one 1004"),
        (((0, 0), (float("nan"), 0), (1, 1)), False, "a corner is no finite number"),
        (((0, 0), (5, 0), (5, -1)), False, r"corner \(5, -1\) lies outside the frame"),
        (((0, 0), (0.5, 0), (0.5, 2)), True, r"corner \(0.5, 2\) lies outside.*write relative = false for pixels"),
        (((0, 0), (4, 4), (4, 0), (0, 4)), False, r"the sides from \(0, 0\) and from \(4, 0\) cross or touch"),
        (((0, 0), (4, 0), (4, 0), (0, 4)), False, "cross or touch"),
        (((0, 0), (4, 0), (2, 0), (2, 4)), False, "cross or touch"),
        (((0, 0), (4, 0), (8, 0)), False, "cross or touch"),
        (((0, 0), (4, 0), (4, 4), (2, 0), (0, 4)), False, "cross or touch"),
    ],
)
def test_what_is_no_polygon_is_refused_in_one_line(polygon, relative, says):
    with pytest.raises(UsageError, match=f"This area cannot be: gate .*{says}"):
        Area("gate", polygon, relative)


def test_an_area_must_fit_the_frame():
    with pytest.raises(UsageError, match=r"gate \(corner \(6, 1\) lies outside the frame of 5x8\)"):
        mask(Area("gate", SQUARE), (8, 5))
    with pytest.raises(UsageError, match="it holds no pixel's centre in a frame of 10x8"):
        mask(Area("gate", ((1.1, 1.1), (1.4, 1.1), (1.2, 1.4))), (8, 10))


def test_an_area_knows_which_pixels_it_holds():
    found = mask(Area("gate", SQUARE), (8, 10))
    assert found.holds(2, 1) and found.holds(5.9, 3.9)
    assert not any(found.holds(*point) for point in ((1.9, 1), (6, 1), (2, 4), (2, 0.9), (-5, -5), (99, 99)))
