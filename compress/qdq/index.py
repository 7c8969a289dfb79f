"""A graph's tensors by name: what is constant, who makes a tensor, who takes it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper


@dataclass(frozen=True)
class Index:
    """Look-ups into one graph; valid as long as the graph is not changed.

    Attributes:
        constants: initialisers and the values of ``Constant`` nodes.
        producer: the node that makes a tensor; none for constants and inputs of the graph.
        consumers: the nodes that take a tensor, in graph order.
        inputs, outputs: names of the graph's inputs and outputs.
    """

    constants: dict[str, TensorProto]
    producer: dict[str, NodeProto]
    consumers: dict[str, list[NodeProto]]
    inputs: frozenset[str]
    outputs: frozenset[str]

    def array(self, name: str) -> NDArray[Any]:
        """Return a constant's values."""
        values: NDArray[Any] = numpy_helper.to_array(self.constants[name])
        return values


def index(model: ModelProto) -> Index:
    """Index the main graph of a model (graphs inside If and Loop are not looked into)."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producer: dict[str, NodeProto] = {}
    consumers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants |= {name: a.t for name in node.output for a in node.attribute if a.name == "value"}
        else:
            producer |= dict.fromkeys(filter(None, node.output), node)
        for name in dict.fromkeys(filter(None, node.input)):
            consumers[name].append(node)
    inputs = frozenset(value.name for value in model.graph.input) - constants.keys()
    return Index(constants, producer, dict(consumers), inputs, frozenset(value.name for value in model.graph.output))


def attribute(node: NodeProto, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def with_constants(model: ModelProto, values: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """Return a copy of a model with the values of some constants replaced."""
    changed = ModelProto()
    changed.CopyFrom(model)
    found = index(changed).constants
    for name, array in values.items():
        found[name].CopyFrom(numpy_helper.from_array(array, name))
    return changed
