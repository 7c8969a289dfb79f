"""Reading the measures: a layer's pattern, and the layer that NMI-HAD distils."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import DataError, UsageError

Pattern = Literal["local", "hybrid", "global"]

TARGET = 0.09
_RESAMPLES = 1000


@dataclass(frozen=True)
class Borders:
    """Where on the scale of NMI a pattern ends and the next begins.

    The paper gives no borders. The defaults are the range of the target in which it reports stable results.

    Attributes:
        local_above: above it a layer is local: each query attends to its own surroundings.
        global_below: below it a layer is global: all queries attend alike. What is between is hybrid.

    Raises:
        UsageError: they are not 0 <= global_below <= local_above <= 1.
    """

    local_above: float = 0.12
    global_below: float = 0.06

    def __post_init__(self) -> None:
        if not 0 <= self.global_below <= self.local_above <= 1:
            where = f"global below {self.global_below}, local above {self.local_above}"
            raise UsageError("The borders of the patterns must satisfy 0 <= global <= local <= 1", where=where)

    def pattern(self, nmi: float) -> Pattern:
        """Return the pattern of a layer with this NMI."""
        if nmi > self.local_above:
            return "local"
        return "global" if nmi < self.global_below else "hybrid"


@dataclass(frozen=True)
class Choice:
    """The layer whose NMI is nearest to the target.

    Attributes:
        layer: counted from 1.
        nmi: its NMI.
        target: the NMI wanted.
        runner_up: the second nearest layer; None where there is but one.
        margin: by how much the runner-up is farther from the target; None where there is but one.
        agreement: share of resamples of the images (bootstrap) that choose the same layer; None for one image.
    """

    layer: int
    nmi: float
    target: float
    runner_up: int | None = None
    margin: float | None = None
    agreement: float | None = None


def choose(nmi: Sequence[float], target: float = TARGET) -> Choice:
    """Choose among layers by their NMI, first to last; of two equally near ones the earlier, which is cheaper to run.

    Raises:
        UsageError: the target is not in 0..1, or there is no layer.
        DataError: an NMI is not finite.
    """
    if not 0 <= target <= 1:
        raise UsageError("The target NMI must be in 0..1", where=target)
    if not nmi:
        raise UsageError("There is no layer to choose from")
    for layer, value in enumerate(nmi, 1):
        if not math.isfinite(value):
            raise DataError("The attention is not finite", where=f"layer {layer}", why="NaN or infinity in the weights")
    off = [abs(value - target) for value in nmi]
    first, *rest = sorted(range(len(nmi)), key=off.__getitem__)
    if not rest:
        return Choice(first + 1, nmi[first], target)
    return Choice(first + 1, nmi[first], target, runner_up=rest[0] + 1, margin=off[rest[0]] - off[first])


def agreement(nmi: NDArray[np.float64], choice: Choice) -> float | None:
    """Return the share of resamples of the images that choose the same layer, by NMI [images, layers].

    A thousand draws with replacement, the same ones every time.
    """
    images = len(nmi)
    if images < 2:
        return None
    counts = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=_RESAMPLES)
    chosen = np.abs(counts @ nmi / images - choice.target).argmin(axis=1) + 1
    return float((chosen == choice.layer).mean())
