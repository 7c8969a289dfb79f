"""Pictures that look the same: a perceptual hash of 64 bits, and a look-up of near ones that is not quadratic."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray

# On real thermal images a copy re-encoded at JPEG quality 70, resized or shifted by a pixel differs by 4 bits or fewer
# (99.9 %), and what differs by 4 or fewer without being a copy is the next frame of a still camera.
NEAR = 4
FARTHEST = 11
_THUMBNAIL, _COEFFICIENTS = 32, 8
_BANDS, _BAND_BITS = 4, 16
_FLAT = 2.0  # rms of the coefficients, gray levels: of a flatter picture the hash would be that of its noise


def perceptual_hash(picture: NDArray[np.uint8]) -> int | None:
    """Return 64 bits of a picture [H, W] that hardly change when it is re-encoded, resized, or brightened.

    Each bit tells whether one of the 8 x 8 lowest cosine coefficients, those along the edges left out, lies above
    their median. None for a picture without structure, such as a blank one: it resembles nothing.
    """
    size = _THUMBNAIL, _THUMBNAIL
    thumbnail = cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    low = slice(1, 1 + _COEFFICIENTS)
    coefficients = cv2.dct(thumbnail)[low, low].ravel()
    if np.sqrt(np.mean(coefficients**2)) < _FLAT:
        return None
    return int.from_bytes(np.packbits(coefficients > np.median(coefficients)).tobytes(), "big")


class Near:
    """A set of hashes that answers whether one within ``distance`` bits of a given hash is in it.

    The 64 bits are cut into four bands. Where hashes differ by 4 r + a bits or fewer (a < 4), one of the first a + 1
    bands differs by r bits at most, or one of the others by r - 1: only hashes that share a band so far are compared.

    Args:
        distance: Hamming distance, 0..11.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        radius, more = divmod(distance, _BANDS)
        self._flips = [_flips(radius if band <= more else radius - 1) for band in range(_BANDS)]
        self._tables: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in range(_BANDS)]

    def add(self, value: int) -> None:
        """Put a hash in."""
        for table, band in zip(self._tables, _bands(value), strict=True):
            table[band].append(value)

    def __contains__(self, value: int) -> bool:
        return any(
            (other ^ value).bit_count() <= self._distance
            for table, band, flips in zip(self._tables, _bands(value), self._flips, strict=True)
            for flip in flips
            for other in table.get(band ^ flip, ())
        )


def _flips(radius: int) -> list[int]:
    """Return every mask of up to ``radius`` bits of a band, none for a negative radius."""
    masks = [combinations(range(_BAND_BITS), count) for count in range(radius + 1)]
    return [sum(1 << bit for bit in bits) for of_count in masks for bits in of_count]


def _bands(value: int) -> list[int]:
    return [value >> (_BAND_BITS * band) & 0xFFFF for band in range(_BANDS)]
