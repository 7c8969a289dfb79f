"""What one sensor needs beyond its model: bad pixels replaced, and a flat field of the user's subtracted.

Both come after the wire is read and before anything looks at the counts, temperatures included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import DataError
from edgeunip.thermal import Counts

# A median of fewer neighbours is no better than any one of them.
_NEIGHBOURS = 3
# With more than that something else is wrong: another camera's map, or the lens cap.
_MOST = 0.05


@dataclass(frozen=True, eq=False)
class Correction:
    """Corrections of one sensor.

    Attributes:
        bad: True where a pixel is bad, shape (H, W).
        flat: counts to subtract from each pixel, int16 (H, W), zero on average; None without a flat field.

    Raises:
        DataError: the shapes differ, or more than 5 % of the pixels are bad.
    """

    bad: NDArray[np.bool_]
    flat: NDArray[np.int16] | None = None
    _groups: tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.bad.ndim != 2 or (self.flat is not None and self.flat.shape != self.bad.shape):
            raise DataError("The map of bad pixels and the flat field differ in size")
        if self.bad.mean() > _MOST:
            raise DataError(
                f"The map of bad pixels holds {100 * self.bad.mean():.1f} % of them",
                why=f"beyond {100 * _MOST:.0f} % it is no map of single pixels",
                remedy="Make it again before a uniform scene: edgeunip cameras badpixels SOURCE",
            )
        object.__setattr__(self, "_groups", tuple(_neighbours(self.bad)))

    def apply(self, counts: Counts) -> Counts:
        """Return counts (H, W) with each bad pixel the median of its good neighbours, less the flat field; a copy.

        The neighbours are those in the smallest square around the pixel that holds at least three good ones. Of an
        even number the median is the mean of the middle two, rounded down. The flat field never wraps around: counts
        stay within their type.

        Raises:
            DataError: the frame has another size.
        """
        if counts.shape != self.bad.shape:
            raise DataError(f"The correction is for frames of {self.bad.shape}, and this one is {counts.shape}")
        mended = counts.copy()
        flat = mended.reshape(-1)
        for pixels, around in self._groups:
            values = np.sort(counts.reshape(-1)[around], axis=1).astype(np.uint32)
            middle = values.shape[1] // 2
            flat[pixels] = (values[:, (values.shape[1] - 1) // 2] + values[:, middle]) // 2
        if self.flat is None:
            return mended
        depth = cv2.CV_8U if counts.dtype == np.uint8 else cv2.CV_16U
        levelled = cv2.subtract(mended, self.flat, dtype=depth)
        return levelled.view(np.uint8) if counts.dtype == np.uint8 else levelled.view(np.uint16)


def _neighbours(bad: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield (bad pixels, their good neighbours) as flat indices (n,) and (n, k), one k after the other."""
    width = bad.shape[1]
    found: dict[int, list[tuple[int, list[int]]]] = {}
    for y, x in np.argwhere(bad).tolist():
        around = _good_around(bad, y, x)
        found.setdefault(len(around), []).append((y * width + x, around))
    for _, entries in sorted(found.items()):
        yield np.array([pixel for pixel, _ in entries], np.intp), np.array([near for _, near in entries], np.intp)


def _good_around(bad: NDArray[np.bool_], y: int, x: int) -> list[int]:
    height, width = bad.shape
    for reach in range(1, max(height, width)):
        top, left = max(0, y - reach), max(0, x - reach)
        good = np.argwhere(~bad[top : y + reach + 1, left : x + reach + 1])
        if len(good) >= _NEIGHBOURS:
            return [(top + row) * width + left + column for row, column in good.tolist()]
    raise DataError("The frame is too small: a bad pixel has no good neighbours", where=f"{width}x{height}")


def flat_field(frames: NDArray[np.uint8] | NDArray[np.uint16], bad: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Return what each pixel shows more than the average before a uniform scene, int16 (H, W), zero on average.

    Args:
        frames: of the scene, shape (N, H, W).
        bad: the bad pixels, replaced before.
    """
    mean = np.mean([Correction(bad).apply(frame) for frame in frames], axis=0)
    return np.asarray(np.clip(np.rint(mean - mean.mean()), -32768, 32767), np.int16)
