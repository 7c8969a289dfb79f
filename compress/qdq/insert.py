"""Pairs of QuantizeLinear and DequantizeLinear around the layers that shall run in int8.

Symmetric: zero point 0, one scale an activation, one scale an output channel of a weight. An activation gets one pair,
shared by all its int8 layers; whoever else takes it keeps the float tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeunip.compress.qdq.index import index
from edgeunip.compress.qdq.layers import Layer

# A weight is stored as float32 behind a full pair, the form of modelopt that every TensorRT since 8 reads, or as int8
# behind DequantizeLinear alone, a quarter of the bytes, which TensorRT documents from 10 on. Both round alike.
WeightForm = Literal["float32", "int8"]

SMALLEST_SCALE = 2.0**-24  # the least number of half precision: a scale stays positive where a builder stores it so


def insert(
    model: ModelProto, layers: Sequence[Layer], ranges: Mapping[str, float], *, weights: WeightForm = "float32"
) -> ModelProto:
    """Return a copy of a model whose layers ``layers`` are quantised.

    Args:
        model: a float graph.
        layers: of that graph, as ``find_layers`` gives them.
        ranges: the |x| that 127 stands for, for the data tensor of each layer.
        weights: how they are stored.
    """
    known = index(model)
    chosen = {layer.output: layer for layer in layers}
    pairs = _Pairs()
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        changed = NodeProto()
        changed.CopyFrom(node)
        if layer := chosen.get(node.output[0]):
            weight = known.array(layer.weight).astype(np.float32, copy=False)
            changed.input[0] = pairs.activation(layer.data, activation_scale(ranges[layer.data]))
            changed.input[1] = pairs.weight(layer, weight, weights)
            nodes += pairs.take()
        nodes.append(changed)
    return _rebuilt(model, nodes, pairs.initializers)


def activation_scale(reach: float) -> float:
    """Return the scale, as float32 holds it, that maps ``reach`` to 127."""
    return float(np.float32(max(reach / 127, SMALLEST_SCALE)))


def weight_scales(weight: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
    """Return one scale for each index along ``axis``, float32 [channels], or one for all, []."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    peaks = np.abs(weight).max(axis=others if axis is not None else None)
    scales: NDArray[np.float32] = np.asarray(np.maximum(peaks / 127, SMALLEST_SCALE), np.float32)
    return scales


def to_int8(weight: NDArray[np.float32], scales: NDArray[np.float32], axis: int | None) -> NDArray[np.int8]:
    """Round a weight as QuantizeLinear does."""
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    rounded: NDArray[np.int8] = np.clip(np.rint(weight / scales.reshape(shape)), -128, 127).astype(np.int8)
    return rounded


class _Pairs:
    """The nodes and constants added so far; each tensor is quantised once."""

    def __init__(self) -> None:
        self.initializers: dict[str, TensorProto] = {}
        self._made: dict[tuple[str, int | None], str] = {}
        self._nodes: list[NodeProto] = []

    def take(self) -> list[NodeProto]:
        """Hand out the nodes made since the last call."""
        nodes, self._nodes = self._nodes, []
        return nodes

    def activation(self, tensor: str, scale: float) -> str:
        """Return the dequantised twin of a computed tensor."""
        if (tensor, None) not in self._made:
            self._made[tensor, None] = self._pair(tensor, tensor, np.asarray(scale, np.float32), None)
        return self._made[tensor, None]

    def weight(self, layer: Layer, weight: NDArray[np.float32], form: WeightForm) -> str:
        """Return the dequantised twin of a layer's weight."""
        key = layer.weight, layer.axis
        if key not in self._made:
            stem = layer.weight if layer.axis is None else f"{layer.weight}_axis{layer.axis}"
            scales = weight_scales(weight, layer.axis)
            if form == "int8":
                quantised = self._constant(f"{stem}_int8", to_int8(weight, scales, layer.axis))
                self._made[key] = self._dequantise(stem, quantised, self._parameters(stem, scales), layer.axis)
            else:
                self._made[key] = self._pair(layer.weight, stem, scales, layer.axis)
        return self._made[key]

    def _pair(self, tensor: str, stem: str, scales: NDArray[np.float32], axis: int | None) -> str:
        parameters = self._parameters(stem, scales)
        quantised = self._node("QuantizeLinear", stem, [tensor, *parameters], "quantised", axis)
        return self._dequantise(stem, quantised, parameters, axis)

    def _dequantise(self, stem: str, quantised: str, parameters: list[str], axis: int | None) -> str:
        return self._node("DequantizeLinear", stem, [quantised, *parameters], "dequantised", axis)

    def _node(self, kind: str, stem: str, inputs: list[str], suffix: str, axis: int | None) -> str:
        where: dict[str, Any] = {} if axis is None else {"axis": axis}
        output = f"{stem}_{suffix}"
        self._nodes.append(helper.make_node(kind, inputs, [output], name=f"{stem}/{kind}", **where))
        return output

    def _parameters(self, stem: str, scales: NDArray[np.float32]) -> list[str]:
        """Add scale and zero point; the importer of TensorRT wants both, and of one size."""
        zeros = np.zeros(scales.shape, np.int8)
        return [self._constant(f"{stem}_scale", scales), self._constant(f"{stem}_zero_point", zeros)]

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self.initializers[name] = numpy_helper.from_array(values, name)
        return name


def _rebuilt(model: ModelProto, nodes: list[NodeProto], added: Mapping[str, TensorProto]) -> ModelProto:
    """Put a model together again, without the constants that nothing takes any more."""
    rebuilt = ModelProto()
    rebuilt.CopyFrom(model)
    used = {name for node in nodes for name in node.input}
    kept = [node for node in nodes if node.op_type != "Constant" or node.output[0] in used]
    constants = [*model.graph.initializer, *added.values()]
    for field in ("node", "initializer"):
        rebuilt.graph.ClearField(field)
    rebuilt.graph.node.extend(kept)
    rebuilt.graph.initializer.extend(tensor for tensor in constants if tensor.name in used)
    return rebuilt
