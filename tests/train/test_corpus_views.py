"""Random resized crops: torchvision's geometry and pixels, drawn from the generator that is passed in."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from corpus_scenes import Picture, scene
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from edgeunip.train.corpus.views import RandomResizedCrop, resize

VIEW = RandomResizedCrop()


Box = tuple[int, int, int, int]


def ours(picture: Picture, box: Box) -> NDArray[np.intp]:
    top, left, height, width = box
    return resize(picture[top : top + height, left : left + width], VIEW.size).astype(int)


def torchvisions(picture: Image.Image | Tensor, box: Box) -> NDArray[np.intp]:
    size = [VIEW.size, VIEW.size]
    return np.asarray(vision.resized_crop(picture, *box, size, InterpolationMode.BICUBIC, antialias=True), int)


def test_pixels_are_torchvisions_of_the_same_box() -> None:
    """On a tensor it has the same kernel; on a Pillow image the axes may be resized in another order."""
    differences = []
    for seed in range(30):
        picture = scene(seed, 240, 320) // 2 + 64  # nothing overshoots black or white
        box = VIEW.box(240, 320, np.random.default_rng(seed))
        found = ours(picture, box)
        np.testing.assert_array_equal(found, torchvisions(torch.from_numpy(picture)[None], box)[0])
        differences.append(np.abs(found - torchvisions(Image.fromarray(picture), box)))
    assert np.max(differences) <= 2
    assert np.mean(np.array(differences) > 1) < 1e-5
    assert np.mean(differences) < 0.05


def test_saturated_pixels_differ_rarely_from_pillows() -> None:
    """Both clip between the two axes."""
    differences = []
    for seed in range(20):
        picture, box = scene(seed, 240, 320), VIEW.box(240, 320, np.random.default_rng(seed))
        differences.append(np.abs(ours(picture, box) - torchvisions(Image.fromarray(picture), box)))
    assert np.mean(np.array(differences) > 1) < 2e-4


def test_negative_control_opencv_aliases() -> None:
    picture = scene(0, 480, 640) // 2 + 64
    theirs = torchvisions(Image.fromarray(picture), (0, 0, 480, 640))
    assert np.abs(ours(picture, (0, 0, 480, 640)) - theirs).max() <= 2
    aliased = cv2.resize(picture, (224, 224), interpolation=cv2.INTER_CUBIC)
    assert np.abs(aliased.astype(int) - theirs).max() > 3


def test_a_view_is_a_function_of_the_generator() -> None:
    picture = scene(1)
    views = [VIEW(picture, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert (views[0].shape, views[0].dtype) == ((224, 224), np.uint8)
    np.testing.assert_array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_half_are_mirrored() -> None:
    picture = np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))
    views = [VIEW(picture, np.random.default_rng(seed)) for seed in range(200)]
    assert 80 < sum(view[0, 0] > view[0, -1] for view in views) < 120


@given(height=st.integers(1, 900), width=st.integers(1, 900), seed=st.integers(0, 1 << 32))
def test_the_box_lies_within_the_picture(height: int, width: int, seed: int) -> None:
    top, left, h, w = VIEW.box(height, width, np.random.default_rng(seed))
    assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width
    assert h > 0 and w > 0


def test_areas_and_ratios_span_the_range() -> None:
    boxes = [VIEW.box(500, 600, np.random.default_rng(seed)) for seed in range(2000)]
    areas = np.array([h * w / 300_000 for _, _, h, w in boxes])
    ratios = np.array([w / h for _, _, h, w in boxes])
    assert 0.195 < areas.min() < 0.23 and 0.93 < areas.max() <= 1
    assert 0.745 < ratios.min() < 0.77 and 1.3 < ratios.max() < 1.345
    assert abs(np.median(np.log(ratios))) < 0.05, "log-uniform"


def test_a_strip_gives_its_centre() -> None:
    assert VIEW.box(20, 2000, np.random.default_rng(0)) == (0, 986, 20, 27)
    assert VIEW.box(2000, 20, np.random.default_rng(0)) == (986, 0, 27, 20)
