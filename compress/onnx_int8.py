"""int8 for TensorRT and other ONNX engines: explicit Q/DQ pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import onnx

from edgeunip.compress.calibration import Calibration
from edgeunip.compress.forms import OnnxForm
from edgeunip.compress.half import to_float16
from edgeunip.compress.qdq import rules
from edgeunip.compress.qdq.quantise import Calibrated, Options, apply, calibrate
from edgeunip.compress.qdq.sensitivity import sensitivity
from edgeunip.compress.search import Variant

ALPHA = 0.5  # SmoothQuant's own strength (Xiao et al. 2023)


class QdqQuantiser:
    """A :class:`edgeunip.compress.search.Quantiser` that writes Q/DQ pairs.

    Args:
        model: the float graph.
        calibration: the pictures ranges come from.
        half: what stays float becomes float16.
    """

    method = "qdq"

    def __init__(self, model: onnx.ModelProto, calibration: Calibration, *, half: bool = False) -> None:
        self.model, self.calibration, self.half = model, calibration, half
        plain = (Variant("mse"), Variant("percentile"), Variant("max"))
        attends = any(node.op_type == "Softmax" for node in model.graph.node)
        self.variants = (*plain, Variant("mse", ALPHA)) if attends else plain
        self._calibrated = lru_cache(maxsize=2)(self._calibrate)

    def quantise(self, variant: Variant) -> OnnxForm:
        """Insert the pairs, and hold the result to TensorRT's rules."""
        made = apply(self._calibrated(variant.smooth), _options(variant))
        model = to_float16(made.model) if self.half else made.model
        rules.check(model)
        plain = "float16" if self.half else "float32"
        layers = {name: plain if found.precision == "float32" else "int8" for name, found in made.report.items()}
        return OnnxForm(model, layers)

    def cost_by_layer(self) -> Mapping[str, float]:
        """Return the signal-to-noise ratio of the logits, dB, with each layer alone in int8."""
        variant = self.variants[0]
        return sensitivity(self._calibrated(variant.smooth), self.calibration.pictures, _options(variant))

    def _calibrate(self, alpha: float | None) -> Calibrated:
        return calibrate(self.model, self.calibration.pictures, alpha=alpha)


def _options(variant: Variant) -> Options:
    return Options(range=variant.ranges, smooth=variant.smooth, keep_float=frozenset(variant.float_layers))
