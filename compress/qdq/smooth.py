"""SmoothQuant: channels that reach far in an activation are scaled down there, and up in the weights behind.

Xiao et al., "SmoothQuant", ICML 2023, equation 4: s_j = max|x_j|^alpha / max|w_j|^(1 - alpha). The division goes into
the scale and bias of the LayerNormalization before, so that the float graph computes what it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from edgeunip.compress.qdq.index import Index, index, with_constants
from edgeunip.compress.qdq.layers import Layer


@dataclass(frozen=True)
class Group:
    """A normalised tensor and all that must change when its channels are scaled.

    Attributes:
        tensor: the output of a LayerNormalization, or of the scale and bias of one that is spelled out.
        affine: names of its scale and bias.
        layers: the matrix products that take it; nothing else does.
    """

    tensor: str
    affine: tuple[str, ...]
    layers: tuple[Layer, ...]


def smoothable(model: ModelProto, layers: Sequence[Layer]) -> list[Group]:
    """Find the normalised tensors that only matrix products take, with scale, bias and weights of their own."""
    known = index(model)
    by_output = {layer.output: layer for layer in layers if layer.kind in ("MatMul", "Gemm")}
    found = []
    for node in model.graph.node:
        affine = _affine(node, known)
        takers = [by_output.get(taker.output[0]) for taker in known.consumers.get(node.output[0], [])]
        linear = tuple(layer for layer in takers if layer is not None)
        alone = len(linear) == len(takers) and node.output[0] not in known.outputs
        own = all(_is_own(name, known) for name in (*affine, *(layer.weight for layer in linear)))
        if affine and linear and alone and own:
            found.append(Group(node.output[0], affine, linear))
    return found


def _affine(node: NodeProto, known: Index) -> tuple[str, ...]:
    """Return the names of the scale and bias that a node ends a normalisation with, none if it does not."""
    if node.op_type == "LayerNormalization":
        return tuple(name for name in node.input[1:] if name)
    if node.op_type != "Add":
        return ()
    computed = [name for name in node.input if name not in known.constants]
    scaled = known.producer.get(computed[0]) if len(computed) == 1 else None
    if scaled is None or scaled.op_type != "Mul" or len(known.consumers[computed[0]]) != 1:
        return ()
    names = [name for name in (*scaled.input, *node.input) if name in known.constants]
    return tuple(names) if len(names) == 2 and all(len(known.constants[name].dims) == 1 for name in names) else ()


def _is_own(name: str, known: Index) -> bool:
    return name in known.constants and len(known.consumers[name]) == 1


def smooth(
    model: ModelProto, groups: Sequence[Group], peaks: Mapping[str, NDArray[np.float32]], alpha: float
) -> ModelProto:
    """Return a copy of a model that computes the same with activations easier to quantise.

    Args:
        model: a float graph.
        groups: of ``smoothable``.
        peaks: largest |x| of each channel of each group's tensor, float32 [channels].
        alpha: 0 leaves it all to the weights, 1 makes all channels of the activation reach alike.
    """
    known = index(model)
    values: dict[str, NDArray[np.float32]] = {}
    for group in groups:
        weights = [_rows(known.array(layer.weight), layer) for layer in group.layers]
        reach = np.max([np.abs(weight).max(1) for weight in weights], axis=0)
        factors = smoothing_factors(peaks[group.tensor], reach, alpha)
        values |= {name: (known.array(name) / factors).astype(np.float32) for name in group.affine}
        for layer, weight in zip(group.layers, weights, strict=True):
            values[layer.weight] = np.ascontiguousarray(_rows(weight * factors[:, None], layer))
    return with_constants(model, values)


def smoothing_factors(peaks: NDArray[np.float32], reach: NDArray[np.float32], alpha: float) -> NDArray[np.float32]:
    """Return s_j; 1 where a channel is dead in the activation or in the weights."""
    alive = (peaks > 0) & (reach > 0)
    peaks, reach = np.where(alive, peaks, 1), np.where(alive, reach, 1)
    factors: NDArray[np.float32] = (peaks**alpha / reach ** (1 - alpha)).astype(np.float32)
    return factors


def _rows(weight: NDArray[Any], layer: Layer) -> NDArray[Any]:
    """Turn a weight so that its rows are input channels; the same call turns it back."""
    return weight.T if layer.axis == 0 else weight
