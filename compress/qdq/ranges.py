"""How far a tensor reaches: a histogram of fixed size, and the range that int8 shall cover."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

RangeMethod = Literal["max", "percentile", "entropy", "mse"]
METHODS = get_args(RangeMethod)
BINS = 4096
LEVELS = 128
_EXACT = 1 << 23  # elements a float32 counter of OpenCV's counts exactly
_CANDIDATES = 128


@dataclass
class Histogram:
    """Counts of |x| in equal bins from 0 to ``top``, a power of two that doubles as larger values come.

    A doubling adds the bins in pairs, so the counts depend neither on the order of the values nor on how they are cut.

    Attributes:
        counts: int64 [BINS].
        top: right edge of the last bin, 0 before the first value.
        peak: the largest |x|.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    top: float = 0.0
    peak: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count an array of any shape.

        Raises:
            ValueError: a value is not finite.
        """
        magnitudes = np.abs(values.ravel())
        peak = float(magnitudes.max(initial=0))
        if not math.isfinite(peak):
            raise ValueError("not finite")
        self.peak = max(self.peak, peak)
        self._grow(peak)
        for start in range(0, magnitudes.size, _EXACT):
            part = magnitudes[None, start : start + _EXACT]
            counted = cv2.calcHist([part], [0], None, [BINS], [0.0, self.top])
            self.counts += counted.ravel().astype(np.int64)

    def _grow(self, peak: float) -> None:
        if not self.top:
            self.top = 2.0 ** math.frexp(peak)[1] if peak else 2.0**-24
        while peak >= self.top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.top *= 2

    @property
    def width(self) -> float:
        """Width of a bin."""
        return self.top / BINS

    @property
    def used(self) -> NDArray[np.int64]:
        """The counts up to the bin of the largest value, at least one."""
        return self.counts[: int(self.peak / self.width) + 1] if self.top else self.counts[:1]


def choose(histogram: Histogram, method: RangeMethod, *, percentile: float = 99.99) -> float:
    """Return the |x| that int8's 127 shall stand for.

    Args:
        histogram: of the tensor.
        method: ``max`` covers all; ``percentile`` that share of the values; ``entropy`` loses least information;
            ``mse`` has the least squared error.
        percentile: per cent.
    """
    if method == "max" or not histogram.peak:
        return histogram.peak
    if method == "percentile":
        found = _percentile(histogram, percentile)
    elif method == "entropy":
        found = _entropy(histogram.used) * histogram.width
    else:
        found = _mse(histogram)
    return min(found, histogram.peak)


def _percentile(histogram: Histogram, percentile: float) -> float:
    shares = np.cumsum(histogram.used) / histogram.used.sum()
    return float(np.searchsorted(shares, percentile / 100) + 1) * histogram.width


def _mse(histogram: Histogram) -> float:
    """Try thresholds from an eighth of the peak on; below, a step of int8 is hardly wider than a bin."""
    counts = histogram.used
    centres = (np.arange(counts.size) + 0.5) * histogram.width
    thresholds = np.linspace(histogram.peak / 8, histogram.peak, _CANDIDATES)
    errors = [float(counts @ (centres - fake_quantise(centres, t / 127)) ** 2) for t in thresholds]
    return float(thresholds[int(np.argmin(errors))])


def fake_quantise(values: NDArray[Any], scale: float) -> NDArray[Any]:
    """Round to int8 with a scale, and back."""
    rounded: NDArray[Any] = np.clip(np.rint(values / scale), -128, 127) * scale
    return rounded


def _entropy(counts: NDArray[np.int64]) -> int:
    """Return the number of bins kept whose 128 levels diverge least from what they stand for.

    The calibration of TensorRT as S. Migacz published it, "8-bit inference with TensorRT", GTC 2017: clipped values
    pile up in the last bin kept, levels spread evenly over their bins that are not empty, Kullback-Leibler divergence.
    The first bin holds the zeros of ReLU, which any range represents, and takes the count of its neighbour.
    """
    bins = counts.astype(np.float64)
    if bins.size <= LEVELS:
        return int(bins.size)
    bins[0] = bins[1]
    candidates = np.unique(np.linspace(LEVELS, bins.size, _CANDIDATES).astype(int))
    divergences = [_divergence(bins, int(kept)) for kept in candidates]
    return int(candidates[int(np.argmin(divergences))])


def _divergence(bins: NDArray[np.float64], kept: int) -> float:
    inside = bins[:kept]
    reference = inside.copy()
    reference[-1] += bins[kept:].sum()
    level = np.arange(kept) * LEVELS // kept
    filled = inside > 0
    share = np.bincount(level, inside, LEVELS) / np.maximum(np.bincount(level, filled, LEVELS), 1)
    candidate = np.where(filled, share[level], 0)
    reference, candidate = reference / max(reference.sum(), 1), candidate / max(candidate.sum(), 1)
    some = reference > 0
    return float((reference[some] * np.log(reference[some] / np.maximum(candidate[some], 1e-10))).sum())
