"""Multiply-accumulates of an OpenVINO graph, and how many of them are done on 8-bit values: what energy follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import openvino

# What hands quantised values on as they are, and what turns them back into float: the walk goes through both.
_LAYOUT = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Split", "VariadicSplit", "StridedSlice", "Slice", "MaxPool"}
_DEQUANTISING = {"Convert", "Subtract", "Multiply"}
_BYTES = {"i8", "u8"}
_LEVELS = 256


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates for one picture.

    Attributes:
        total: of convolutions and matrix products, attention's included; nothing else is counted.
        int8: those of layers whose two operands are both quantised to 8 bits. An engine may run some in float
            nevertheless: OpenVINO does so with depthwise convolutions where the processor has no byte products.
    """

    total: int
    int8: int

    @property
    def int8_share(self) -> float:
        """Share of the total done on 8-bit values, 0..1."""
        return self.int8 / self.total if self.total else 0.0


def count(model: openvino.Model) -> Macs:
    """Count the multiply-accumulates of a graph of static shape."""
    total = int8 = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() in _COUNTED:
            macs = _COUNTED[node.get_type_name()](node)
            total += macs
            int8 += macs if all(is_quantised(node.input_value(index)) for index in (0, 1)) else 0
    return Macs(total, int8)


def _convolution(node: Any) -> int:
    """Return each output value's kernel: weights [out, in, h, w]."""
    return _size(node.output(0)) * math.prod(_shape(node.input_value(1))[1:])


def _grouped(node: Any) -> int:
    """Return the same of weights [groups, out, in, h, w]."""
    return _size(node.output(0)) * math.prod(_shape(node.input_value(1))[2:])


def _transposed(node: Any) -> int:
    """Return a whole kernel for each value read: weights [in, out, h, w]."""
    return _size(node.input_value(0)) * math.prod(_shape(node.input_value(1))[1:])


def _grouped_transposed(node: Any) -> int:
    """Return the same of weights [groups, in, out, h, w]."""
    return _size(node.input_value(0)) * math.prod(_shape(node.input_value(1))[2:])


def _product(node: Any) -> int:
    left = _shape(node.input_value(0))
    inner = left[-2] if node.get_attributes()["transpose_a"] and len(left) > 1 else left[-1]
    return _size(node.output(0)) * inner


def _attention(node: Any) -> int:
    """Return queries times keys, and weights times values: [.., L, E], [.., S, E], [.., S, V]."""
    queries, keys, values = (_shape(node.input_value(index)) for index in range(3))
    return math.prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1])


_COUNTED: dict[str, Callable[[Any], int]] = {
    "Convolution": _convolution,
    "GroupConvolution": _grouped,
    "ConvolutionBackpropData": _transposed,
    "GroupConvolutionBackpropData": _grouped_transposed,
    "MatMul": _product,
    "ScaledDotProductAttention": _attention,
}


def is_quantised(value: Any) -> bool:
    """Tell whether a value is one of at most 256, as NNCF (FakeQuantize) or ONNX (Q/DQ, stored bytes) writes it."""
    dequantised = False
    while True:
        node = value.get_node()
        kind: str = node.get_type_name()
        if kind == "FakeQuantize":
            return not dequantised and int(node.get_attributes()["levels"]) <= _LEVELS
        if value.get_element_type().get_type_name() in _BYTES:
            return kind != "Parameter"  # a picture of bytes that is normalised in float is no quantised operand
        if kind == "Concat":
            return not dequantised and all(is_quantised(part) for part in node.input_values())
        if kind not in _LAYOUT | _DEQUANTISING:
            return False
        dequantised = dequantised or kind in _DEQUANTISING
        value = node.input_value(0)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in value.get_shape())


def _size(value: Any) -> int:
    return math.prod(_shape(value))
