"""The perceptual hash and the look-up of near ones: what is found, and what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from corpus_scenes import COPIES, Picture, scene
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.train.corpus.duplicates import FARTHEST, NEAR, Near, perceptual_hash

HASH = st.integers(0, (1 << 64) - 1)


def distance(one: int | None, other: int | None) -> int:
    assert one is not None and other is not None
    return (one ^ other).bit_count()


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_copies_are_near(copy: Callable[[Picture], bytes]) -> None:
    for seed in range(30):
        picture = scene(seed, 240, 320)
        again = cv2.imdecode(np.frombuffer(copy(picture), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert distance(perceptual_hash(picture), perceptual_hash(np.asarray(again, np.uint8))) <= NEAR


def test_negative_control_different_scenes_are_far() -> None:
    hashes = [perceptual_hash(scene(seed, 240, 320)) for seed in range(60)]
    nearest = min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i])
    assert nearest > 2 * NEAR


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((50, 60), np.uint8),
        np.full((50, 60), 255, np.uint8),
        np.full((1, 1), 7, np.uint8),
        np.tile(np.arange(200, dtype=np.uint8), (100, 1)),
        np.random.default_rng(0).integers(90, 93, (480, 640)).astype(np.uint8),
    ],
    ids=["black", "white", "one pixel", "gradient", "noise"],
)
def test_a_picture_without_structure_has_no_hash(picture: Picture) -> None:
    assert perceptual_hash(picture) is None


@pytest.mark.skipif("EDGEUNIP_DATA" not in os.environ, reason="EDGEUNIP_DATA names no folder of real data")
def test_copies_of_real_images() -> None:
    for path in sorted((Path(os.environ["EDGEUNIP_DATA"]) / "hit-uav-thermal" / "images").iterdir())[::20]:
        picture = np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), np.uint8)
        for copy in COPIES.values():
            again = cv2.imdecode(np.frombuffer(copy(picture), np.uint8), cv2.IMREAD_GRAYSCALE)
            assert distance(perceptual_hash(picture), perceptual_hash(np.asarray(again, np.uint8))) <= NEAR


@given(known=st.lists(HASH, max_size=8), flips=st.sets(st.integers(0, 63)), limit=st.integers(0, FARTHEST))
def test_look_up_is_that_of_comparing_all(known: list[int], flips: set[int], limit: int) -> None:
    near = Near(limit)
    for value in known:
        near.add(value)
    mask = sum(1 << bit for bit in flips)
    for asked in (*(value ^ mask for value in known), mask):
        assert (asked in near) == any((asked ^ value).bit_count() <= limit for value in known)


@given(value=HASH, bits=st.permutations(range(64)), limit=st.integers(0, FARTHEST))
def test_exactly_up_to_the_distance(value: int, bits: list[int], limit: int) -> None:
    near = Near(limit)
    near.add(value)
    for count in range(FARTHEST + 2):
        assert (value ^ sum(1 << bit for bit in bits[:count]) in near) == (count <= limit)
