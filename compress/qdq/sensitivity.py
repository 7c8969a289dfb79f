"""What each layer costs: the noise in the logits when it alone is int8, or when it alone is not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgeunip.compress.qdq.insert import insert
from edgeunip.compress.qdq.observe import Pictures, logits
from edgeunip.compress.qdq.quantise import Calibrated, Options

PICTURES = 4


def sensitivity(
    calibrated: Calibrated, pictures: Pictures, options: Options, *, others: bool = False
) -> dict[str, float]:
    """Return a signal-to-noise ratio of the logits, dB, for each layer that ``options`` quantises; low is costly.

    Args:
        calibrated: of ``calibrate``.
        pictures: uint8 [H, W] each; ``PICTURES`` of them, evenly spread, are used.
        options: how a layer is quantised.
        others: quantise all layers but the one, instead of it alone; high is then costly.
    """
    few = [pictures[int(i)] for i in np.linspace(0, len(pictures) - 1, min(PICTURES, len(pictures)))]
    chosen, ranges = calibrated.quantised_layers(options), calibrated.ranges(options)
    wanted = list(logits(calibrated.model, few))
    found = {}
    for layer in chosen:
        some = [other for other in chosen if (other is layer) != others]
        found[layer.name] = noise(insert(calibrated.model, some, ranges, weights=options.weights), few, wanted)
    return found


def noise(model: ModelProto, pictures: Pictures, wanted: list[NDArray[np.float32]]) -> float:
    """Return 10 log10 of the power of the wanted logits over that of a model's deviation from them, dB."""
    signal = sum(float(np.square(value, dtype=np.float64).sum()) for value in wanted)
    found = zip(wanted, logits(model, pictures), strict=True)
    deviation = sum(float(np.square(value - other, dtype=np.float64).sum()) for value, other in found)
    return 10 * math.log10(signal / deviation) if deviation and signal else math.inf
