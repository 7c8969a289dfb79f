"""Bad pixels found in frames of a uniform scene: the lens cap, a wall, the sky."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import DataError

FEWEST = 16
# Robust standard deviations a pixel may stand off its surroundings. Of normal noise not one pixel in 1e14 does, so
# that the fixed pattern's heavier tails do not either; a pixel worse than that shows in every picture.
_OFF = 8.0
# A pixel's noise as a multiple of the usual one. Over 16 frames the estimate itself varies by 18 %, over 64 by 9 %.
_NOISY, _DEAD = 4.0, 0.2
# Below that, in counts, rounding hides the noise: every good pixel then repeats itself, too.
_HIDDEN = 0.6
_AROUND = 5
_MOST = 0.02


@dataclass(frozen=True, eq=False)
class Found:
    """Bad pixels by what is wrong with them; arrays are True where it is, shape (H, W).

    Attributes:
        stuck: the value never changes, or hardly.
        off: the value is far from the surroundings'.
        noisy: the value jumps about.
        noise: usual standard deviation of a pixel from frame to frame, counts.
        frames: how many different frames were looked at.
    """

    stuck: NDArray[np.bool_]
    off: NDArray[np.bool_]
    noisy: NDArray[np.bool_]
    noise: float
    frames: int

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Every bad pixel."""
        return self.stuck | self.off | self.noisy


def find_bad_pixels(frames: NDArray[np.uint8] | NDArray[np.uint16]) -> Found:
    """Find bad pixels in frames (N, H, W) of a uniform scene.

    A pixel is stuck where its noise is less than a fifth of the usual, off where its median over time is more than 8
    robust standard deviations from the median of the 5x5 pixels around it, noisy where its noise is more than 4 times
    the usual. Medians and the median absolute deviation (times 1.4826: a standard deviation, for normal noise) make the
    bad pixels themselves, and slow shading, count for nothing.

    Raises:
        DataError: fewer than 16 different frames, or so many such pixels that the scene cannot have been uniform.
    """
    distinct = _without_repeats(frames)
    if len(distinct) < FEWEST:
        raise DataError(
            f"Finding bad pixels needs {FEWEST} different frames, and these are {len(distinct)}",
            remedy="Take more frames; a camera that repeats one frame has its shutter closed, or is frozen.",
        )
    values = distinct.astype(np.float32)
    values -= np.median(values, axis=(1, 2), keepdims=True)  # the whole picture drifts
    level, noise = np.median(values, axis=0), values.std(axis=0, ddof=1)
    usual = float(np.median(noise))
    still = distinct.astype(np.float32).std(axis=0, ddof=1)
    stuck = (np.minimum(still, noise) < _DEAD * usual) if usual > _HIDDEN else np.zeros(noise.shape, np.bool_)
    found = Found(stuck, _outliers(level), noise > max(_NOISY * usual, 1.0), usual, len(distinct))
    if found.bad.mean() > _MOST:
        raise DataError(
            f"{100 * found.bad.mean():.1f} % of the pixels look bad",
            why="the scene is not uniform, or something moved",
            remedy="Cover the lens, or point the camera at a wall or the clear sky, out of focus.",
        )
    return found


def _without_repeats(frames: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    new = np.ones(len(frames), np.bool_)
    new[1:] = (frames[1:] != frames[:-1]).any(axis=(1, 2))
    return frames[new]


def _outliers(level: NDArray[np.float32]) -> NDArray[np.bool_]:
    off = level - np.asarray(cv2.medianBlur(level.astype(np.float32), _AROUND), np.float32)
    sigma = 1.4826 * float(np.median(np.abs(off - np.median(off))))
    return np.asarray(np.abs(off) > max(_OFF * sigma, 1.0), np.bool_)
