"""The layers of a graph that int8 pays for: matrix products and convolutions with a constant weight.

Attention products have two computed inputs and are none; softmax, LayerNorm, GELU and Resize never are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from edgeunip.compress.names import layer_name
from edgeunip.compress.qdq.index import Index, attribute, index
from edgeunip.errors import UsageError, near

KINDS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
NARROWEST = 16  # rows and columns of a matrix that fill a tile of int8 tensor cores; pooling matrices are narrower


@dataclass(frozen=True)
class Layer:
    """One quantisable layer.

    Attributes:
        name: module path, as ``backbone.blocks.0.attn.qkv``.
        kind: one of ``KINDS``.
        output: its output tensor, which identifies the node.
        data: the computed input.
        weight: the constant input.
        axis: the weight's axis of output channels, which gets a scale each; None for one scale for all.
    """

    name: str
    kind: str
    output: str
    data: str
    weight: str
    axis: int | None


def find_layers(model: ModelProto) -> list[Layer]:
    """Find the quantisable layers, in graph order, each with a name of its own."""
    known = index(model)
    nodes = [node for node in model.graph.node if is_layer(node, known)]
    seen: Counter[str] = Counter()
    layers = []
    for node in nodes:
        seen[name := layer_name(node.name) or node.name.strip("/")] += 1
        unique = name if seen[name] == 1 else f"{name}#{seen[name]}"
        layers.append(Layer(unique, node.op_type, node.output[0], node.input[0], node.input[1], channel_axis(node)))
    return layers


def is_layer(node: NodeProto, known: Index) -> bool:
    """Tell whether a node is a product or convolution of a computed tensor with a float32 constant."""
    if node.op_type not in KINDS or node.input[0] in known.constants or node.input[1] not in known.constants:
        return False
    shape = known.constants[node.input[1]].dims
    if node.op_type in ("MatMul", "Gemm"):
        return len(shape) == 2 and min(shape) >= NARROWEST and not attribute(node, "transA", 0)
    return True


def channel_axis(node: NodeProto) -> int | None:
    """Return the axis of a layer's weight that its output channels run along, None for a scale per tensor.

    A transposed convolution gets one scale: TensorRT's own engineers have asked for axis 0 there, the input channels
    (NVIDIA/TensorRT#1694, #2380), ONNX and its other users take axis 1, and with groups neither names the output
    channels. One scale means the same to all.
    """
    if node.op_type == "ConvTranspose":
        return None
    return {"MatMul": 1, "Gemm": 1 - attribute(node, "transB", 0), "Conv": 0}[node.op_type]


def end_layers(model: ModelProto, layers: Sequence[Layer]) -> frozenset[str]:
    """Name the layers next to the picture (patch embedding, stem) and next to the logits (classifier)."""
    outputs = {layer.output for layer in layers}
    behind: set[str] = set()
    for node in model.graph.node:
        if not outputs.isdisjoint(node.output) or not behind.isdisjoint(node.input):
            behind |= set(node.output)
    before: set[str] = set()
    for node in reversed(model.graph.node):
        if not outputs.isdisjoint(node.output) or not before.isdisjoint(node.output):
            before |= set(node.input)
    return frozenset(layer.name for layer in layers if layer.data not in behind or layer.output not in before)


def select(layers: Sequence[Layer], keep_float: Collection[str]) -> list[Layer]:
    """Leave out the layers that stay float.

    Raises:
        UsageError: ``keep_float`` names no layer of the graph.
    """
    names = {layer.name for layer in layers}
    for name in sorted(set(keep_float) - names):
        raise UsageError("No such layer to keep in float", where=name, remedy=near(name, names))
    return [layer for layer in layers if layer.name not in keep_float]
