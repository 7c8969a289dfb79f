"""Whether what the camera shows still looks like what the model was calibrated on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BINS = 16
_MEMORY_S = 10.0
# One scene is never like a whole data set: of 200 single pictures of two real sets, none was further than 0.61 from the
# calibration histogram of its own set, half of them beyond 0.3.
_FAR, _NEAR = 0.65, 0.6


class Shift:
    """Compares the gray histogram of the live pictures with that of the calibration pictures.

    The distance is the share of the pixels that would have to change their bin (total variation), 0..1, of a mean
    over about ten seconds. It says that something is unlike (another scene, another season, a lens cap), not what.

    Attributes:
        distance: the newest; None until ten seconds have been seen.
    """

    def __init__(self, reference: Sequence[float]) -> None:
        self.distance: float | None = None
        self._reference = np.asarray(reference, np.float64)
        self._mean: NDArray[np.float64] | None = None
        self._seen_s, self._before_ns, self._far = 0.0, 0, False

    def see(self, picture: NDArray[np.uint8], t_ns: int) -> str | None:
        """Take one AGC picture (H, W); return a warning while the scene is far from the calibration, else None."""
        counts = np.bincount(picture[::2, ::2].ravel() >> 4, minlength=_BINS)
        shares = counts / counts.sum()
        elapsed_s = max(0.0, (t_ns - self._before_ns) / 1e9) if self._mean is not None else 0.0
        self._before_ns = t_ns
        keep = math.exp(-elapsed_s / _MEMORY_S)
        self._mean = shares if self._mean is None else keep * self._mean + (1 - keep) * shares
        # A pause is no observation: a frame counts for one second at most.
        self._seen_s += min(elapsed_s, 1.0)
        if self._seen_s >= _MEMORY_S:
            self.distance = float(np.abs(self._mean - self._reference).sum() / 2)
            self._far = self.distance > (_NEAR if self._far else _FAR)
        if not self._far or self.distance is None:
            return None
        return (
            f"the picture's grays differ from the calibration's in {100 * self.distance:.0f} % of the pixels: "
            "another scene than the model was made for?"
        )
