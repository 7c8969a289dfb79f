"""A scene in which nothing moved needs no inference: its class map is that of the frame before."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import UsageError
from edgeunip.frame import Frame

_CELLS = 32
# Of real Lepton clips at rest nine tenths of the frames stay below it for a second; a walking animal exceeds it from
# one frame to the next (benchmarks/hold.py).
_CHANGE = 0.15
_LEAST_CONTRAST = 32.0


class Gate:
    """Tells which frames need inference. Sees the frames of one camera, in order.

    The counts are averaged in 32 by 32 cells, and a frame is still while no cell has moved from its place in the last
    inferred frame by more than a share of that frame's contrast. A drift of the whole picture, as uncooled sensors
    have it, is taken out first; the picture would not do, because the gain control moves every gray a little at every
    frame. Comparing with the last inferred frame, not the last one, lets nothing creep by.
    """

    def __init__(self, max_age_s: float, *, change: float = _CHANGE) -> None:
        """Start with no frame.

        Args:
            max_age_s: a class map is held no longer than this, seconds.
            change: share of the contrast, 0..1, that a cell may change by.

        Raises:
            UsageError: a value is not above 0.
        """
        if not (max_age_s > 0 and change > 0):
            raise UsageError("A class map is held for a time above 0 s", where=max_age_s)
        self._max_age_s, self._change = max_age_s, change
        self._cells: NDArray[np.float32] | None = None
        self._inferred: Frame | None = None

    def is_still(self, frame: Frame) -> bool:
        """Tell whether a frame may keep the class map; if not, it counts as inferred from now on."""
        counts = frame.counts.astype(np.float32)
        cells = np.asarray(cv2.resize(counts, (_CELLS, _CELLS), interpolation=cv2.INTER_AREA), np.float32)
        if self._cells is not None and self._inferred is not None:
            age_s = (frame.t_ns - self._inferred.t_ns) / 1e9
            alike = frame.counts.shape == self._inferred.counts.shape
            if alike and 0 <= age_s < self._max_age_s and not self._moved(cells, self._cells):
                return True
        self._cells, self._inferred = cells, frame
        return False

    def _moved(self, cells: NDArray[np.float32], before: NDArray[np.float32]) -> bool:
        change = cells - before
        contrast = max(float(before.max() - before.min()), _LEAST_CONTRAST)
        return float(np.abs(change - np.median(change)).max()) > self._change * contrast
