import time
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_runtime import CLASSES, LINEAR

from edgeunip.frame import Frame, State
from edgeunip.runtimes.measure import describe
from edgeunip.runtimes.regions import default_smallest, find_regions


def frame(shape, state=State.LIVE):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return Frame((30000 + (7 * x + 13 * y) % 101).astype(np.uint16), 0, 0, state, LINEAR)


def flood(labels):
    """Every 8-connected region of every class but 0, as (class, frozenset of pixels): breadth first, by hand."""
    seen, found = np.zeros(labels.shape, bool), []
    for start in zip(*np.nonzero(labels), strict=True):
        if seen[start]:
            continue
        seen[start], queue, pixels = True, deque([start]), []
        while queue:
            y, x = queue.popleft()
            pixels.append((y, x))
            for near in ((y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1)):
                inside = 0 <= near[0] < labels.shape[0] and 0 <= near[1] < labels.shape[1]
                if inside and not seen[near] and labels[near] == labels[start]:
                    seen[near] = True
                    queue.append(near)
        found.append((int(labels[start]), frozenset(pixels)))
    return found


def expected(picture, labels, smallest):
    rows = []
    for number, pixels in flood(labels):
        if len(pixels) >= smallest:
            mask = np.zeros(labels.shape, bool)
            mask[tuple(np.array(sorted(pixels)).T)] = True
            y, x = np.nonzero(mask)
            box = (x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1)
            rows.append((CLASSES.names[number], box, describe(picture, mask, total=labels.size)))
    return rows


small = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 3))
)


@given(small, st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_regions_against_brute_force_whatever_the_enlargement(labels, down, right, smallest, seed):
    # Rows and columns of unequal size: an enlargement by no whole number has them.
    random = np.random.default_rng(seed)
    labels = labels.repeat(random.integers(1, down + 1, labels.shape[0]), 0)
    labels = labels.repeat(random.integers(1, right + 1, labels.shape[1]), 1)
    picture = frame(labels.shape)
    found = find_regions(picture, labels, CLASSES, smallest=smallest, most=10_000)
    wanted = expected(picture, labels, smallest)
    assert len(found) == len(wanted)
    for region in found:
        match = next(row for row in wanted if row[:2] == (region.name, region.box) and row[2] == region.statistics)
        wanted.remove(match)
        assert region.number == 0


@given(small, st.integers(1, 6))
def test_the_largest_are_kept_in_class_order(labels, most):
    picture = frame(labels.shape)
    every = find_regions(picture, labels, CLASSES, smallest=1, most=10_000)
    found = find_regions(picture, labels, CLASSES, smallest=1, most=most)
    assert len(found) == min(most, len(every))
    sizes = sorted((region.statistics.pixels for region in every), reverse=True)
    assert sorted((region.statistics.pixels for region in found), reverse=True) == sizes[:most]
    keys = [(CLASSES.names.index(region.name), -region.statistics.pixels) for region in found]
    assert keys == sorted(keys)


def test_diagonal_neighbours_are_connected_and_classes_are_not():
    labels = np.array([[1, 0, 0], [0, 1, 2], [0, 0, 1]], np.uint8)
    found = find_regions(frame((3, 3)), labels, CLASSES, smallest=1)
    assert [(region.name, region.box, region.statistics.pixels) for region in found] == [
        ("cool", (0, 0, 3, 3), 3),
        ("warm", (2, 1, 1, 1), 1),
    ]


def test_small_regions_are_noise():
    labels = np.zeros((120, 160), np.uint8)
    labels[10, 10:13], labels[50, 50:54] = 1, 1
    (region,) = find_regions(frame(labels.shape), labels, CLASSES)
    assert region.box == (50, 50, 4, 1)
    assert (default_smallest((120, 160)), default_smallest((512, 640)), default_smallest((8, 8))) == (4, 16, 4)


@pytest.mark.parametrize("state", [State.FFC, State.FROZEN])
def test_with_a_closed_shutter_regions_have_a_place_and_no_temperature(state):
    labels = np.zeros((12, 16), np.uint8)
    labels[2:6, 3:9] = 2
    (region,) = find_regions(frame(labels.shape, state), labels, CLASSES)
    assert (region.box, region.statistics.centroid) == ((3, 2, 6, 4), (5.5, 3.5))
    assert (region.statistics.max_c, region.statistics.hotspot) == (None, None)


def test_a_map_without_regions():
    assert find_regions(frame((4, 4)), np.zeros((4, 4), np.uint8), CLASSES) == ()


def test_a_map_of_noise_costs_no_more_than_its_largest_regions():
    labels = np.random.default_rng(0).integers(0, 4, (480, 640)).astype(np.uint8)
    start = time.thread_time()
    found = find_regions(frame(labels.shape), labels, CLASSES, smallest=1)
    assert time.thread_time() - start < 0.5
    assert len(found) == 64
