"""A teacher's outputs follow the view that picture and labels are seen in: scale, crop, mirror, padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip.train.augment import Augmentation, View
from edgeunip.train.recipe import Recipe

PLAIN = Recipe(mean=0, std=1, brightness=0, contrast=0, focus=0.5)
H, W, CLASSES = 96, 128, 4


def labels(seed: int, block: int = 16) -> NDArray[np.uint8]:
    drawn = np.random.default_rng(seed).integers(0, CLASSES, (H // block, W // block))
    return np.kron(drawn, np.ones((block, block))).astype(np.uint8)


def one_hot(label: NDArray[np.uint8], stride: int) -> NDArray[np.float16]:
    """What a teacher who knows the labels says, at 1/stride: float16 [classes, h, w]."""
    shares = (label == np.arange(CLASSES)[:, None, None]).astype(np.float32)
    rows, columns = label.shape[0] // stride, label.shape[1] // stride
    return shares.reshape(CLASSES, rows, stride, columns, stride).mean((2, 4)).astype(np.float16)


def disagreement(seed: int, scale: float, crop: tuple[int, int], *, mirrored: bool | None = None) -> float:
    """Share of the cells, away from the classes' borders, where the sampled teacher and the seen labels differ."""
    label = labels(seed)
    augment = Augmentation(H, W, crop, 255, replace(PLAIN, scale_min=scale, scale_max=scale))
    view, seen = augment.draw(label, np.random.default_rng(seed))
    sampled = (replace(view, mirrored=mirrored) if mirrored is not None else view).sample(one_hot(label, 4), 4)
    assert sampled.shape == (CLASSES, crop[0] // 4, crop[1] // 4)
    assert sampled.dtype == np.float32
    at = seen.reshape(crop[0] // 4, 4, crop[1] // 4, 4).transpose(0, 2, 1, 3).reshape(crop[0] // 4, crop[1] // 4, 16)
    pure = (at == at[..., :1]).all(2) & (at[..., 0] != 255)
    inside = view.inside(4)
    assert not (pure & ~inside).any()
    # A cell is surely of one class where the teacher's four nearest cells all are.
    sure = pure & (sampled.max(0) > 0.99)
    return float((sampled.argmax(0) != at[..., 0])[sure].mean()) if sure.any() else 0.0


@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(0.5, 2.0),
    crop=st.tuples(st.integers(2, 8), st.integers(2, 10)),
)
def test_a_teacher_who_knows_the_labels_says_them_in_every_view(seed: int, scale: float, crop: tuple[int, int]) -> None:
    assert disagreement(seed, scale, (16 * crop[0], 16 * crop[1])) == 0.0


def test_the_comparison_notices_a_missing_mirror() -> None:
    """Negative control: outputs that are not mirrored with the picture do not pass."""
    seed = next(
        seed
        for seed in range(50)
        if Augmentation(H, W, (H, W), 255, PLAIN).draw(labels(seed), np.random.default_rng(seed))[0].mirrored
    )
    found = [disagreement(one, 1.0, (H, W), mirrored=False) for one in range(seed, seed + 12)]
    assert max(found) > 0.3


def test_the_whole_picture_is_the_map_itself() -> None:
    values = np.random.default_rng(0).normal(size=(3, H // 4, W // 4)).astype(np.float16)
    whole = View((H, W), 0, 0, (H, W), mirrored=False)
    np.testing.assert_array_equal(whole.sample(values, 4), values.astype(np.float32))
    np.testing.assert_array_equal(replace(whole, mirrored=True).sample(values, 4), values[:, :, ::-1])
    assert whole.inside(4).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_ramp_stays_a_ramp(mirrored: bool) -> None:
    """A map that rises by 1 a cell is sampled at the pixels' own places: enlarged by two and cut at (16, 32)."""
    ramp = np.broadcast_to(np.arange(W // 4, dtype=np.float32), (1, H // 4, W // 4))
    view = View((2 * H, 2 * W), 16, 32, (64, 96), mirrored=mirrored)
    found = view.sample(ramp, 4)[0]
    centres = 32 + 4 * (np.arange(24) + 0.5)
    expected = centres / (2 * W) * (W // 4) - 0.5
    np.testing.assert_allclose(found, np.broadcast_to(expected[::-1] if mirrored else expected, (16, 24)), rtol=1e-6)


@pytest.mark.parametrize("mirrored", [False, True])
def test_padding_is_at_the_right_and_bottom_and_not_inside(mirrored: bool) -> None:
    view = View((H // 2, W // 2), 0, 0, (H, W), mirrored=mirrored)
    inside = view.inside(16)
    assert inside.shape == (6, 8)
    assert inside[:3, :4].all()
    assert inside.sum() == 12
    assert view.sample(np.ones((2, 6, 8), np.float16), 16).shape == (2, 6, 8)
