"""From a float graph and real pictures to explicit int8: calibrate once, quantise as often as a search likes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnx import ModelProto

from edgeunip.compress.qdq import rules
from edgeunip.compress.qdq.insert import WeightForm, activation_scale, insert
from edgeunip.compress.qdq.layers import Layer, end_layers, find_layers, select
from edgeunip.compress.qdq.observe import Pictures, channel_peaks, histograms
from edgeunip.compress.qdq.ranges import METHODS, Histogram, RangeMethod, choose
from edgeunip.compress.qdq.smooth import smooth, smoothable
from edgeunip.errors import ExportError, UsageError, near


@dataclass(frozen=True)
class Options:
    """What is quantised, and how.

    Attributes:
        range: how the reach of an activation is chosen, one of ``METHODS``.
        percentile: of ``range="percentile"``, per cent.
        smooth: alpha of SmoothQuant, 0 to 1; None leaves it out.
        keep_float: names of layers that stay float.
        keep_ends: leave the layers next to the picture and to the logits float.
        weights: how int8 weights are stored.
        least_opset: the oldest that ``rules`` lets pass; 17 has LayerNormalization, older ones spell it out.
    """

    range: RangeMethod = "mse"
    percentile: float = 99.99
    smooth: float | None = None
    keep_float: frozenset[str] = frozenset()
    keep_ends: bool = True
    weights: WeightForm = "float32"
    least_opset: int = rules.OPSET

    def __post_init__(self) -> None:
        if self.range not in METHODS:
            raise UsageError("Unknown range method", where=self.range, remedy=near(self.range, METHODS))
        if not 0 < self.percentile <= 100:
            raise UsageError("The percentile must be above 0 and at most 100", where=self.percentile)
        if self.smooth is not None and not 0 <= self.smooth <= 1:
            raise UsageError("SmoothQuant's alpha must be from 0 to 1", where=self.smooth)


@dataclass(frozen=True)
class Calibrated:
    """A float graph and what real pictures showed of it.

    Attributes:
        model: the graph, smoothed if that was asked for.
        layers: its quantisable layers.
        histograms: of each layer's data tensor.
    """

    model: ModelProto
    layers: list[Layer]
    histograms: Mapping[str, Histogram]

    def ranges(self, options: Options) -> dict[str, float]:
        """Choose the reach of every layer's data tensor."""
        found = self.histograms.items()
        return {name: choose(seen, options.range, percentile=options.percentile) for name, seen in found}

    def quantised_layers(self, options: Options) -> list[Layer]:
        """Return the layers that become int8.

        Raises:
            UsageError: ``keep_float`` names no layer.
        """
        ends = end_layers(self.model, self.layers) if options.keep_ends else frozenset()
        return select(self.layers, options.keep_float | ends)


@dataclass(frozen=True)
class LayerReport:
    """What became of a layer: its precision, and the scale of its data where that is ``int8``."""

    kind: str
    precision: str
    scale: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Quantised:
    """An explicit int8 graph that follows TensorRT's rules, and a report by layer name."""

    model: ModelProto
    report: dict[str, LayerReport]


def quantise(model: ModelProto, pictures: Pictures, options: Options = Options()) -> Quantised:
    """Quantise a float graph; the same input gives the same bytes.

    Args:
        model: float32 graph, input uint8 [1, 1, H, W], static shapes, opset 17 or later.
        pictures: uint8 [H, W] each, to calibrate on.
        options: how.

    Raises:
        DataError: no pictures, or of another size.
        ExportError: nothing is left to quantise, values are not finite, or the result breaks a rule.
        UsageError: ``keep_float`` names no layer.
    """
    return apply(calibrate(model, pictures, alpha=options.smooth), options)


def calibrate(model: ModelProto, pictures: Pictures, *, alpha: float | None = None) -> Calibrated:
    """Pass the pictures through the graph, once, and twice if it is smoothed with ``alpha``.

    Raises:
        DataError: no pictures, or of another size.
        ExportError: values are not finite.
    """
    layers = find_layers(model)
    if alpha is not None:
        groups = smoothable(model, layers)
        peaks = channel_peaks(model, pictures, [group.tensor for group in groups])
        model = smooth(model, groups, peaks, alpha)
    tensors = list(dict.fromkeys(layer.data for layer in layers))
    return Calibrated(model, layers, histograms(model, pictures, tensors))


def apply(calibrated: Calibrated, options: Options) -> Quantised:
    """Quantise what was calibrated; ``options.smooth`` has had its effect there.

    Raises:
        ExportError: nothing is left to quantise, or the result breaks a rule.
        UsageError: ``keep_float`` names no layer.
    """
    chosen, ranges = calibrated.quantised_layers(options), calibrated.ranges(options)
    if not chosen:
        raise ExportError("No layer is left to quantise", remedy="Keep fewer layers in float.")
    model = insert(calibrated.model, chosen, ranges, weights=options.weights)
    rules.check(model, least_opset=options.least_opset)
    return Quantised(model, _report(calibrated, chosen, ranges))


def _report(calibrated: Calibrated, chosen: list[Layer], ranges: Mapping[str, float]) -> dict[str, LayerReport]:
    names = {layer.name for layer in chosen}
    return {
        layer.name: LayerReport(layer.kind, "int8", activation_scale(ranges[layer.data]))
        if layer.name in names
        else LayerReport(layer.kind, "float32", None)
        for layer in calibrated.layers
    }
