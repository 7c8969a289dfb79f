"""float16 for strongly typed networks: their precision lives in the file, so the file is converted, not the engine."""

from __future__ import annotations

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgeunip.compress.names import layer_name
from edgeunip.errors import ExportError

OVERFLOWING = ["LayerNormalization"]  # its squares leave float16's range


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph to float16; LayerNorm, the picture's normalisation and the two ends stay float32.

    Q/DQ pairs become float16 too, scales included, which opset 19 allows: between int8 layers nothing is cast.

    Raises:
        ExportError: the result is no valid graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    normalisation = [node.name for node in copy.graph.node if not layer_name(node.name) and node.op_type != "Cast"]
    half = convert_float_to_float16(copy, keep_io_types=True, op_block_list=OVERFLOWING, node_block_list=normalisation)
    OnnxModel.graph_topological_sort(half.graph, is_deterministic=True)
    del half.graph.value_info[:]
    try:
        inferred = onnx.shape_inference.infer_shapes(half, strict_mode=True)
        onnx.checker.check_model(inferred, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError("The float16 graph is not valid", why=error) from error
    return inferred
