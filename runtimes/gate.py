"""A scene in which nothing moved needs no inference: its class map is that of the frame before."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import UsageError
from edgeunip.frame import Frame

_CELLS = 32
_CHANGE = 6.0


class Gate:
    """Tells which frames need inference. Sees the frames of one camera, in order.

    The picture is cut into 32 by 32 cells and a cell's mean gray is compared with that of the last frame that was
    inferred: a cell is a few hundred pixels, so that the sensor's noise averages out, and small enough that a person
    at a distance changes one. Comparing with the last inferred frame, not the last one, lets nothing creep by.
    """

    def __init__(self, max_age_s: float, *, change: float = _CHANGE) -> None:
        """Start with no frame.

        Args:
            max_age_s: a class map is held no longer than this, seconds.
            change: gray levels, 0..255, by which a cell's mean must differ.

        Raises:
            UsageError: a value is not above 0.
        """
        if not (max_age_s > 0 and change > 0):
            raise UsageError("A class map is held for a time above 0 s", where=max_age_s)
        self._max_age_s, self._change = max_age_s, change
        self._cells: NDArray[np.float32] | None = None
        self._inferred: Frame | None = None

    def is_still(self, frame: Frame, picture: NDArray[np.uint8]) -> bool:
        """Tell whether a frame with AGC picture (H, W) may keep the class map; if not, it counts as inferred."""
        cells = np.asarray(cv2.resize(picture, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA), np.float32)
        if self._cells is not None and self._inferred is not None:
            age_s = (frame.t_ns - self._inferred.t_ns) / 1e9
            alike = frame.counts.shape == self._inferred.counts.shape
            if alike and 0 <= age_s < self._max_age_s and float(np.abs(cells - self._cells).max()) < self._change:
                return True
        self._cells, self._inferred = cells, frame
        return False
