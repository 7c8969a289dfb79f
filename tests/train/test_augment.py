"""Augmentation: picture and labels stay together, sizes, padding, focus, ranges, repeatability."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip.train.augment import LARGEST_SHARE, Augmentation
from edgeunip.train.recipe import Recipe

IGNORE = 255
PLAIN = Recipe(mean=0, std=1, brightness=0, contrast=0, focus=0)
GRAYS = np.array([20, 90, 160, 230], np.uint8)


def label_map(seed: int = 0, shape: tuple[int, int] = (64, 80), block: int = 8) -> NDArray[np.uint8]:
    """Draw blocks of four classes, a few of them ignored."""
    blocks = np.random.default_rng(seed).choice(
        [0, 1, 2, 3, IGNORE], [n // block for n in shape], p=[0.24] * 4 + [0.04]
    )
    return np.kron(blocks, np.ones((block, block))).astype(np.uint8)


def picture_of(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.append(GRAYS, np.zeros(252, np.uint8))[label]


def augmentation(height: int = 64, width: int = 80, crop: tuple[int, int] = (64, 80), **values: Any) -> Augmentation:
    return Augmentation(height, width, crop, IGNORE, replace(PLAIN, **values))


def interior(label: NDArray[np.uint8], margin: int = 3) -> NDArray[np.bool_]:
    """Tell pixels whose neighbourhood is of one class: there, interpolation of the picture does not matter."""
    edge = np.pad(label, margin, constant_values=254)  # what lies beyond a crop is not known
    windows = np.lib.stride_tricks.sliding_window_view(edge, (2 * margin + 1, 2 * margin + 1))
    return np.asarray((windows == label[..., None, None]).all((2, 3)))


@given(
    seed=st.integers(0, 10_000),
    crop=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    scale=st.floats(0.5, 2),
    focus=st.sampled_from([0.0, 1.0]),
)
def test_picture_and_labels_stay_together(seed: int, crop: tuple[int, int], scale: float, focus: float) -> None:
    label = label_map(seed, block=16)
    size = crop[0] * 16, crop[1] * 16
    augment = augmentation(crop=size, scale_min=scale, scale_max=scale, focus=focus)
    image, labels = augment(picture_of(label), label, np.random.default_rng(seed))
    assert image.shape == (1, *size)
    assert labels.shape == size
    assert (image.dtype, labels.dtype) == (np.float32, np.uint8)
    decided = interior(labels) & (labels != IGNORE)
    np.testing.assert_allclose(image[0][decided], GRAYS[labels[decided]], atol=1)


def test_the_comparison_notices_a_shift() -> None:
    """Negative control: labels moved by eight pixels do not pass."""
    label = label_map(3, block=16)
    image, labels = augmentation()(picture_of(label), label, np.random.default_rng(0))
    moved = np.roll(labels, 8, axis=1)
    decided = interior(moved) & (moved != IGNORE)
    assert np.abs(image[0][decided] - GRAYS[moved[decided]]).max() > 50


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_what_is_missing_is_padded(scale: float) -> None:
    """At half the size a crop of the model's input is three quarters padding, at its right and bottom."""
    label = np.full((64, 80), 2, np.uint8)
    augment = augmentation(scale_min=scale, scale_max=scale, mean=100.0, std=2.0)
    image, labels = augment(picture_of(label), label, np.random.default_rng(0))
    rows, columns = min(64, round(64 * scale)), min(80, round(80 * scale))
    assert (labels[:rows, :columns] == 2).all()
    assert (image[0, :rows, :columns] == (160 - 100) / 2).all()
    outside = np.ones((64, 80), bool)
    outside[:rows, :columns] = False
    assert (labels[outside] == IGNORE).all()
    assert (image[0][outside] == 0).all()


def test_a_picture_of_another_size_is_brought_to_the_input() -> None:
    label = np.kron(np.array([[0, 1], [2, 3]]), np.ones((30, 50))).astype(np.uint8)
    augment = augmentation(height=64, width=96, crop=(64, 96), scale_min=1, scale_max=1)
    image, labels = augment(picture_of(label), label, np.random.default_rng(1))
    np.testing.assert_array_equal(np.unique(labels[:32]), [0, 1])
    np.testing.assert_array_equal(np.unique(labels[32:]), [2, 3])
    assert abs(int((labels[0] == 0).sum()) - 48) <= 1
    assert image.shape == (1, 64, 96)


@pytest.mark.parametrize("seed", range(8))
def test_focus_puts_a_class_drawn_at_random_into_the_crop(seed: int) -> None:
    """One pixel of class 3 in 20 480: with focus 1 it is in a third of the crops, else hardly ever."""
    label = np.zeros((128, 160), np.uint8)
    label[70:, :] = 1
    label[16 * seed, 20 * seed] = 3
    augment = augmentation(height=128, width=160, crop=(16, 16), scale_min=1, scale_max=1, focus=1.0)
    rng = np.random.default_rng(seed)
    views = [augment(picture_of(label), label, rng)[1] for _ in range(60)]
    assert 6 <= sum((view == 3).any() for view in views) <= 36
    for view in views:
        assert view.shape == (16, 16)
        assert (view != IGNORE).all()
    unfocused = replace(augment, recipe=replace(augment.recipe, focus=0.0))
    assert sum((unfocused(picture_of(label), label, rng)[1] == 3).any() for _ in range(60)) <= 6


def test_focus_on_a_label_without_a_class() -> None:
    label = np.full((64, 80), IGNORE, np.uint8)
    image, labels = augmentation(focus=1.0)(picture_of(label), label, np.random.default_rng(0))
    assert (labels == IGNORE).all()
    assert image.shape == (1, 64, 80)


def test_crops_that_one_class_fills_are_drawn_again() -> None:
    """Class 1 covers a tenth of the picture; without the rule most crops would show class 0 alone."""
    label = np.zeros((128, 160), np.uint8)
    label[:, :16] = 1
    augment = augmentation(height=128, width=160, crop=(32, 32), scale_min=1, scale_max=1)
    rng = np.random.default_rng(0)
    mixed = sum((augment(picture_of(label), label, rng)[1] == 0).mean() < LARGEST_SHARE for _ in range(200))
    assert mixed >= 60  # expected 0.56 of 200 in ten tries each; a single draw gives 0.08
    single = 200 * 8 / 129
    assert mixed > 3 * single


@given(seed=st.integers(0, 100_000))
def test_a_view_is_a_function_of_the_generator(seed: int) -> None:
    label = label_map(1)
    picture = picture_of(label)
    before = picture.copy(), label.copy()
    augment = augmentation(brightness=32.0, contrast=0.5, focus=0.5)
    first, second = (augment(picture, label, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    others = [augment(picture, label, np.random.default_rng(seed + step)) for step in range(1, 5)]
    # Two seeds may draw the same small view, undistorted; four more do not.
    assert not all(np.array_equal(first[0], other[0]) for other in others)
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(label, before[1])


def shades(values: int, **settings: Any) -> NDArray[np.float32]:
    """The gray that a flat picture gets, over 400 draws."""
    label = np.zeros((16, 16), np.uint8)
    picture = np.full((16, 16), values, np.uint8)
    augment = augmentation(16, 16, (16, 16), scale_min=1, scale_max=1, **settings)
    rng = np.random.default_rng(0)
    views = [augment(picture, label, rng)[0] for _ in range(400)]
    assert all((view == view[0, 0, 0]).all() for view in views)
    return np.array([view[0, 0, 0] for view in views])


def test_brightness_and_contrast_stay_in_their_ranges() -> None:
    assert (shades(100) == 100).all()
    bright = shades(100, brightness=32.0)
    assert 68 <= bright.min() < 72
    assert 128 < bright.max() <= 132
    assert 0.4 < (bright == 100).mean() < 0.6  # half of the pictures are left alone
    contrasted = shades(100, contrast=0.5)
    assert 50 <= contrasted.min() < 54
    assert 146 < contrasted.max() <= 150
    both = shades(200, brightness=32.0, contrast=0.5)
    assert both.max() == 255  # saturated, as a camera's picture
    assert both.min() >= (200 - 32) / 2
    assert shades(5, brightness=32.0).min() == 0


def test_normalisation() -> None:
    assert shades(100, mean=90.0, std=4.0)[0] == pytest.approx(2.5)


def test_half_of_the_views_are_mirrored() -> None:
    label = np.zeros((16, 16), np.uint8)
    label[:, :8] = 1
    augment = augmentation(16, 16, (16, 16), scale_min=1, scale_max=1)
    rng = np.random.default_rng(0)
    views = [augment(picture_of(label), label, rng) for _ in range(300)]
    mirrored = [labels[0, 0] == 0 for _, labels in views]
    assert 0.4 < np.mean(mirrored) < 0.6
    assert all((image[0, 0, 0] == GRAYS[labels[0, 0]]) for image, labels in views)


def test_the_scale_covers_its_range() -> None:
    """The side of a square tells the factor the picture was enlarged by."""
    label = np.zeros((64, 64), np.uint8)
    label[28:36, 28:36] = 1
    augment = augmentation(64, 64, (128, 128), scale_min=0.5, scale_max=2.0)
    rng = np.random.default_rng(0)
    factors = [np.sqrt((augment(picture_of(label), label, rng)[1] == 1).sum()) / 8 for _ in range(300)]
    assert 0.45 < min(factors) < 0.6
    assert 1.9 < max(factors) < 2.1
    assert 1.15 < np.mean(factors) < 1.35
