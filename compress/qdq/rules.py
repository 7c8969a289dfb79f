"""TensorRT's rules for explicit int8, proven on a finished graph.

What the importer and the builder of TensorRT 10.3 to 11 ask for: signed int8, zero point 0, complete pairs, constant
positive scales, one scale an activation, weights along the output channels. What int8 ViTs lose accuracy and speed by:
anything quantised inside attention, softmax, LayerNorm or next to any operation but a product with a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from edgeunip.compress.qdq.index import Index, attribute, index
from edgeunip.compress.qdq.layers import KINDS, channel_axis
from edgeunip.errors import ExportError

OPSET = 17  # the first with LayerNormalization, which a builder can keep in float32
IR_VERSIONS = range(8, 11)  # 10 is the newest that TensorRT 10.3's ONNX knows
QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class Violation:
    """A broken rule: its name, the node or tensor that breaks it, and how."""

    rule: str
    node: str
    why: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.node}: {self.why}"


Found = Iterator[Violation]


def check(model: ModelProto, *, least_opset: int = OPSET) -> None:
    """Hold a graph to all rules.

    Raises:
        ExportError: it breaks one; the first is named, and how many there are.
    """
    found = violations(model, least_opset=least_opset)
    if found:
        raise ExportError(
            f"The int8 graph breaks {len(found)} of TensorRT's rules, first '{found[0].rule}'",
            where=found[0].node,
            why=found[0].why,
        )


def violations(model: ModelProto, *, least_opset: int = OPSET) -> list[Violation]:
    """Return every broken rule."""
    known = index(model)
    on_model = [*_versions(model, least_opset), *_static(model), *_inside(model)]
    on_nodes = [broken for rule in NODE_RULES for node in model.graph.node for broken in rule(node, known)]
    return on_model + on_nodes


def _versions(model: ModelProto, least_opset: int) -> Found:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < least_opset:
        yield Violation("opset", "model", f"{opset} is older than {least_opset}")
    if model.ir_version not in IR_VERSIONS:
        yield Violation("IR version", "model", f"{model.ir_version}, not {IR_VERSIONS[0]} to {IR_VERSIONS[-1]}")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            yield Violation("domain", node.name, f"{node.domain}.{node.op_type} is no operator of ONNX itself")


def _static(model: ModelProto) -> Found:
    for value in [*model.graph.input, *model.graph.output]:
        dims = value.type.tensor_type.shape.dim
        if not dims or any(dim.dim_value <= 0 for dim in dims):
            yield Violation("static shape", value.name, "its size is not fixed")


def _inside(model: ModelProto) -> Found:
    for tensor in index(model).constants.values():
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            yield Violation("external data", tensor.name, "its values are in another file")


def _pairs(node: NodeProto, known: Index) -> Found:
    """Every Q feeds DQs and nothing else; every DQ takes a Q of the same scale, or an int8 constant."""
    if node.op_type == QUANTISE:
        takers = known.consumers.get(node.output[0], [])
        if not takers or any(taker.op_type != DEQUANTISE for taker in takers) or node.output[0] in known.outputs:
            yield Violation("pair", node.name, "its int8 goes elsewhere than to DequantizeLinear")
    if node.op_type == DEQUANTISE:
        before, constant = known.producer.get(node.input[0]), known.constants.get(node.input[0])
        if constant is None and (before is None or before.op_type != QUANTISE):
            yield Violation("pair", node.name, "it takes neither QuantizeLinear nor a constant")
        if before is not None and before.op_type == QUANTISE and not _same_scale(before, node):
            yield Violation("pair", node.name, "its scale is not that of its QuantizeLinear")
        if constant is not None and constant.data_type != TensorProto.INT8:
            yield Violation("type", node.name, "the constant it takes is not int8")


def _same_scale(quantise: NodeProto, dequantise: NodeProto) -> bool:
    axes = [attribute(node, "axis", 1) for node in (quantise, dequantise)]
    return quantise.input[1] == dequantise.input[1] and axes[0] == axes[1]


def _parameters(node: NodeProto, known: Index) -> Found:
    """Scale and zero point are there, constant, of one size; the scale is positive, the zero point int8 0."""
    if node.op_type not in (QUANTISE, DEQUANTISE):
        return
    if len(node.input) < 3 or any(name not in known.constants for name in node.input[1:3]):
        yield Violation("parameters", node.name, "scale and zero point are not two constants")
        return
    scale, zero = known.array(node.input[1]), known.array(node.input[2])
    if zero.dtype != np.int8:
        yield Violation("type", node.name, f"its zero point is {zero.dtype}, not int8")
    if zero.any():
        yield Violation("zero point", node.name, "it is not 0")
    if scale.shape != zero.shape:
        yield Violation("parameters", node.name, f"scale {scale.shape} and zero point {zero.shape} differ in size")
    if scale.dtype not in (np.float32, np.float16) or not np.all(np.isfinite(scale)) or not np.all(scale > 0):
        yield Violation("scale", node.name, "it is not of float type, finite and above 0")


def _placement(node: NodeProto, known: Index) -> Found:
    """A DQ feeds the data or the weight of layers, and nothing else."""
    if node.op_type != DEQUANTISE:
        return
    position = 1 if _is_constant(node.output[0], known) else 0
    takers = known.consumers.get(node.output[0], [])
    if not takers or node.output[0] in known.outputs:
        yield Violation("placement", node.name, "it feeds no layer")
    for taker in takers:
        if not _is_weighted(taker, known) or [*taker.input].index(node.output[0]) != position:
            yield Violation(PLACES.get(taker.op_type, "placement"), node.name, f"it feeds {taker.op_type} {taker.name}")


PLACES = {"Softmax": "softmax", "LayerNormalization": "layer norm", "MatMul": "attention", "Einsum": "attention"}


def _granularity(node: NodeProto, known: Index) -> Found:
    """Both inputs of a layer are quantised or neither; one scale for the data, one a channel for the weight."""
    if not _is_weighted(node, known):
        return
    data, weight = (known.producer.get(name) for name in node.input[:2])
    quantised = [maker is not None and maker.op_type == DEQUANTISE for maker in (data, weight)]
    if quantised[0] != quantised[1]:
        yield Violation("half", node.name, "only one of data and weight is quantised")
    if quantised[0] and data is not None and _scales(data, known) != 1:
        yield Violation("activation scale", node.name, "its data has more than one scale")
    if quantised[1] and weight is not None:
        yield from _weight_scales(node, weight, known)


def _weight_scales(node: NodeProto, weight: NodeProto, known: Index) -> Found:
    axis, count = channel_axis(node), _scales(weight, known)
    if axis is None:
        if count != 1:
            yield Violation("weight axis", node.name, f"{count} scales; {node.op_type} takes one")
        return
    channels = _constant_shape(weight.output[0], known)[axis]
    if attribute(weight, "axis", 1) != axis or count != channels:
        found = f"{count} scales along axis {attribute(weight, 'axis', 1)}"
        yield Violation("weight axis", node.name, f"{found}, not {channels} along axis {axis}")


def _picture(node: NodeProto, known: Index) -> Found:
    """The picture is normalised before it is quantised."""
    if node.op_type == QUANTISE:
        name = node.input[0]
        while (maker := known.producer.get(name)) is not None and maker.op_type in MOVES:
            name = maker.input[0]
        if name in known.inputs:
            yield Violation("picture", node.name, f"it quantises the input {name} before it is normalised")


MOVES = ("Cast", "Identity", "Reshape", "Transpose", "Unsqueeze", "Squeeze")


def _attention(node: NodeProto, known: Index) -> Found:
    """Nothing is quantised between the layers that make q, k and v, and the products of attention."""
    if node.op_type not in ("MatMul", "Einsum") or any(_is_constant(name, known) for name in node.input):
        return
    pending, seen = [*node.input], set(node.input)
    while pending:
        maker = known.producer.get(pending.pop())
        if maker is None or _is_weighted(maker, known) or maker.op_type == "LayerNormalization":
            continue
        if maker.op_type in (QUANTISE, DEQUANTISE):
            yield Violation("attention", maker.name, f"it lies before the attention product {node.name}")
        new = set(maker.input) - seen
        pending, seen = [*pending, *sorted(new)], seen | new


def _around(node: NodeProto, known: Index) -> Found:
    """The result of a softmax is not quantised."""
    if node.op_type == QUANTISE:
        maker = known.producer.get(node.input[0])
        if maker is not None and maker.op_type == "Softmax":
            yield Violation("softmax", node.name, f"it quantises the result of {maker.name}")


Rule = Callable[[NodeProto, Index], Found]
NODE_RULES: tuple[Rule, ...] = (_pairs, _parameters, _granularity, _attention, _around, _placement, _picture)


def _is_weighted(node: NodeProto, known: Index) -> bool:
    return node.op_type in KINDS and _is_constant(node.input[1], known) and not _is_constant(node.input[0], known)


def _is_constant(name: str, known: Index) -> bool:
    """Tell a constant, or a constant that was quantised."""
    while (maker := known.producer.get(name)) is not None and maker.op_type in (QUANTISE, DEQUANTISE):
        name = maker.input[0]
    return name in known.constants


def _constant_shape(name: str, known: Index) -> tuple[int, ...]:
    while (maker := known.producer.get(name)) is not None:
        name = maker.input[0]
    return tuple(known.constants[name].dims)


def _scales(node: NodeProto, known: Index) -> int:
    scale = known.constants.get(node.input[1])
    return int(np.prod(scale.dims)) if scale is not None else 0
