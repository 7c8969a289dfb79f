"""The graph that is exported: picture in, logits out, normalisation and position table inside. ONNX first.

Every target starts from the same ONNX graph: what OpenVINO, ONNX Runtime and TensorRT run differs in nothing else. It
is written by torch's tracing exporter, whose nodes keep the modules' names, and which takes a second where the
exporter over torch.export takes ten and leaves drop path's random numbers in the graph (torch 2.15, tried).
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx.shape_inference
import openvino
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from edgeunip.errors import ExportError
from edgeunip.train.encoder import blocks
from edgeunip.train.position import resize_pos_embed
from edgeunip.train.run import Run
from edgeunip.train.segmentor import Segmentor
from edgeunip.train.vit import PATCH, Backbone

INPUT, OUTPUT = "picture", "logits"
OPSET = 17  # the first with LayerNormalization, which TensorRT can keep in float32
FAULT = "This is a fault of the conversion, please report it with the versions in provenance.json."
LARGEST_FOLDED = 1 << 16  # values of a constant worth computing in advance; position tables are larger, and baked


class ExportGraph(nn.Module):
    """A trained model as a device runs it.

    Args:
        model: the trained model; it is copied.
        size: (height, width) of the input, pixels.
        mean, std: the normalisation that becomes part of the graph, gray levels.
    """

    def __init__(self, model: Segmentor, size: tuple[int, int], *, mean: float, std: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.mean, self.std = mean, std
        if isinstance(self.model.backbone, Backbone):
            _bake_position(self.model.backbone, (size[0] // PATCH, size[1] // PATCH))
            _plain_blocks(self.model.backbone)
        self.eval()

    def forward(self, picture: Tensor) -> Tensor:
        """Map an AGC picture, uint8 [1, 1, H, W], to logits, float32 [1, classes, H/4, W/4]."""
        logits: Tensor = self.model((picture.float() - self.mean) / self.std)
        return logits


def to_onnx(run: Run, model: Segmentor, *, opset: int = OPSET) -> onnx.ModelProto:
    """Convert a run's model to an ONNX graph of static shape, all of it in one file; the same run gives the same bytes.

    Raises:
        ExportError: the graph would compute at run time what the input size fixes.
    """
    recipe = run.recipe
    graph = ExportGraph(model, run.size, mean=recipe.mean, std=recipe.std)
    example = torch.zeros(1, 1, *run.size, dtype=torch.uint8)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracer remarks on every number that a fixed input size makes constant (here they shall be), and torch
        # would rather have its other exporter used.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        to: Any = buffer  # torch's signature names paths only; the tracing exporter writes to a file as well
        names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
        torch.onnx.export(graph, (example,), to, dynamo=False, opset_version=opset, **names)  # durable: into memory
    exported = _fold(onnx.load_from_string(buffer.getvalue()))
    _check(exported)
    return exported


def to_openvino(exported: onnx.ModelProto) -> openvino.Model:
    """Convert the ONNX graph for OpenVINO; the same graph gives the same model, names included."""
    converted = openvino.Core().read_model(exported.SerializeToString(), b"")
    converted.set_friendly_name("edgeunip")
    return converted


@torch.no_grad()
def _bake_position(backbone: Backbone, grid: tuple[int, int]) -> None:
    """Resample the position table once, so that the graph holds a constant and no resize."""
    table = resize_pos_embed(backbone.position, backbone.grid, grid)
    backbone.vit.pos_embed = nn.Parameter(table.clone(), requires_grad=False)
    backbone.vit.patch_embed.grid_size = grid


@torch.no_grad()
def _plain_blocks(backbone: Backbone) -> None:
    """Write attention as matmul, softmax, matmul, the pattern that quantisers know, and LayerScale into the weights."""
    for block in blocks(backbone.vit):
        block.attn.fused_attn = False
        for scale, layer in (("ls1", block.attn.proj), ("ls2", block.mlp.fc2)):
            if isinstance(found := getattr(block, scale), nn.Identity):
                continue
            layer.weight.mul_(found.gamma[:, None])
            layer.bias.mul_(found.gamma)
            setattr(block, scale, nn.Identity())


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute what depends on no picture: shapes, and small constants made of constants."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {value.name: _shape(value) for value in (*inferred.graph.input, *inferred.graph.value_info)}
    known = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    kept, folded = [], dict[str, NDArray[Any]]()
    for node in model.graph.node:
        values = _computed(node, known, shapes)
        if values is None:
            kept.append(node)
        else:
            folded |= values
            known |= values
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input} | {value.name for value in model.graph.output}
    weights = [item for item in model.graph.initializer if item.name in used]
    weights += [numpy_helper.from_array(value, name) for name, value in folded.items() if name in used]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(weights)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def _computed(
    node: onnx.NodeProto, known: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...] | None]
) -> dict[str, NDArray[Any]] | None:
    """Return a node's outputs where no picture is needed for them, else None."""
    if node.op_type == "Shape" and not node.attribute and (shape := shapes.get(node.input[0])) is not None:
        return {node.output[0]: np.array(shape, np.int64)}
    if not all(name in known for name in node.input if name):
        return None
    if sum(known[name].size for name in node.input if name) > LARGEST_FOLDED:
        return None
    feeds = {name: known[name] for name in node.input if name}
    results: Any = onnx.reference.ReferenceEvaluator(node).run(None, feeds)
    return dict(zip(node.output, (np.asarray(result) for result in results), strict=True))


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(side.HasField("dim_value") for side in kind.shape.dim):
        return None
    return tuple(side.dim_value for side in kind.shape.dim)


def _check(model: onnx.ModelProto) -> None:
    """Hold the graph to what every target needs: static shapes, positions as constants, all in one file.

    Raises:
        ExportError: it breaks one of them.
    """
    onnx.checker.check_model(model, full_check=True)
    moving = {"Shape", "If", "Loop", "NonZero", "RandomUniformLike", "RandomNormalLike"}
    depending = {INPUT}
    for node in model.graph.node:
        if depending & set(node.input):
            depending |= set(node.output)
        if node.op_type in moving or (node.op_type == "Resize" and node.input[0] not in depending):
            what = f"The graph computes a {node.op_type} at run time, which a fixed input size makes a constant"
            raise ExportError(what, where=node.name, remedy=FAULT)
    for value in model.graph.value_info:
        if _shape(value) is None:
            raise ExportError("A shape in the graph is not fixed", where=value.name, remedy=FAULT)
