"""int8 for processors: NNCF's post-training quantisation of the OpenVINO graph."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import openvino

from edgeunip.compress.calibration import Calibration
from edgeunip.compress.forms import OpenVinoForm
from edgeunip.compress.macs import is_quantised
from edgeunip.compress.names import layer_name
from edgeunip.compress.search import Variant

# NNCF imports torch's C++ builder, which remarks on a CUDA compiler without a GPU: nothing is compiled here.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

import nncf  # noqa: E402
from nncf.quantization.advanced_parameters import (  # noqa: E402
    AdvancedQuantizationParameters,
    AdvancedSmoothQuantParameters,
)
from nncf.quantization.range_estimator import RangeEstimatorParametersSet  # noqa: E402

WEIGHTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")
ALPHA = 0.95  # NNCF's own strength of SmoothQuant for matrix products
OFF = -1.0


class NncfQuantiser:
    """A :class:`edgeunip.compress.search.Quantiser` for OpenVINO.

    Args:
        convert: makes the float graph anew; NNCF may change the one it is given.
        calibration: the pictures ranges come from.
        cost_by_layer: measured where it is asked for.
    """

    method = "nncf"

    def __init__(
        self,
        convert: Callable[[], openvino.Model],
        calibration: Calibration,
        cost_by_layer: Callable[[], Mapping[str, float]],
    ) -> None:
        self.convert, self.calibration, self.cost_by_layer = convert, calibration, cost_by_layer
        kinds = {node.get_type_name() for node in convert().get_ordered_ops()}
        self.attends = "Softmax" in kinds
        percentile, plain = Variant("percentile"), Variant("max")
        self.variants = (Variant("max", ALPHA), plain, percentile) if self.attends else (plain, percentile)

    def quantise(self, variant: Variant) -> OpenVinoForm:
        """Quantise weights (per channel) and activations; softmax, norms and attention products stay float."""
        model = self.convert()
        ignored = [n.get_friendly_name() for n in weighted(model) if _layer(n) in variant.float_layers]
        with contextlib.redirect_stdout(sys.stderr):  # its progress bars: standard output is for data
            quantised = nncf.quantize(
                model,
                nncf.Dataset(self.calibration.pictures, lambda picture: picture[None, None]),
                # A transformer's pattern keeps attention float; symmetric activations are a convolution's fastest form.
                model_type=nncf.ModelType.TRANSFORMER if self.attends else None,
                preset=nncf.QuantizationPreset.MIXED if self.attends else nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(self.calibration.pictures),
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
                advanced_parameters=_parameters(variant),
            )
        quantised.set_friendly_name("edgeunip")
        return OpenVinoForm(quantised, precisions(quantised))


def weighted(model: openvino.Model) -> list[Any]:
    """Return the nodes with constant weights: convolutions, and products with a matrix that no picture changes."""
    return [n for n in model.get_ordered_ops() if n.get_type_name() in WEIGHTED and _is_constant(n.input_value(1))]


def precisions(model: openvino.Model) -> dict[str, str]:
    """Return ``int8`` or ``float32`` by layer: int8 where both the weights and what they meet are quantised."""
    return {
        _layer(node): "int8" if all(is_quantised(node.input_value(index)) for index in (0, 1)) else "float32"
        for node in weighted(model)
    }


def _parameters(variant: Variant) -> AdvancedQuantizationParameters:
    alpha = OFF if variant.smooth is None else variant.smooth
    ranges = RangeEstimatorParametersSet.MEAN_QUANTILE if variant.ranges == "percentile" else None
    return AdvancedQuantizationParameters(
        # Weights of 7 bits: without VNNI the sum of two byte products saturates, and a bundle shall give the same map
        # on any x86 processor (here 3 dB nearer to float, at no cost in time).
        overflow_fix=nncf.OverflowFix.ENABLE,
        smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=alpha, convolution=OFF),
        **({"activations_range_estimator_params": ranges} if ranges else {}),
    )


def _layer(node: Any) -> str:
    return layer_name(node.get_friendly_name())


def _is_constant(value: Any) -> bool:
    """Tell whether a value depends on no input: its sources are constants all the way up."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        return True
    sources = node.input_values()
    return bool(sources) and all(_is_constant(source) for source in sources)
