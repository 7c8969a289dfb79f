"""Hand-made graphs, small enough to know every scale of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

Array = NDArray[np.float32]
node = helper.make_node


def graph(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, NDArray],
    shape: Sequence[int],
    outputs: Sequence[str] = ("y",),
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
) -> ModelProto:
    """A checked model of one input ``x`` and static shapes."""
    inferred = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", kind, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(inferred, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for output, found in zip(model.graph.output, session.get_outputs(), strict=True):
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, found.shape))
    checker.check_model(model, full_check=True)
    return model


def run(model: ModelProto, x: NDArray, output: int = 0) -> Array:
    """Run a model, Q/DQ as written."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: Array = session.run(None, {"x": x})[output]
    return found


def constants(model: ModelProto) -> dict[str, NDArray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def kinds(model: ModelProto) -> list[str]:
    return [entry.op_type for entry in model.graph.node]


def attention(seed: int = 0) -> ModelProto:
    """A picture, uint8 [1, 1, 8, 8], through a patch embedding, one attention block, an MLP and a classifier."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int) -> Array:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    linear = {name: weight(16, 16) for name in ("wq", "wk", "wv", "wo", "w1", "w2")}
    rest = {
        "wp": weight(16, 1, 2, 2),
        "wc": weight(3, 16, 1, 1),
        "scale": np.abs(weight(16)) + 0.5,
        "bias": weight(16),
        "mean": np.float32(128),
        "tokens": np.array([1, 16, 16], np.int64),
        "map": np.array([1, 16, 4, 4], np.int64),
    }
    nodes = [
        node("Cast", ["x"], ["float"], name="/Cast", to=TensorProto.FLOAT),
        node("Sub", ["float", "mean"], ["normal"], name="/Sub"),
        node("Conv", ["normal", "wp"], ["patches"], name="/model/embed/Conv", strides=[2, 2]),
        node("Reshape", ["patches", "tokens"], ["rows"], name="/model/Reshape"),
        node("Transpose", ["rows"], ["t"], name="/model/Transpose", perm=[0, 2, 1]),
        node("LayerNormalization", ["t", "scale", "bias"], ["n"], name="/model/norm/LayerNormalization"),
        node("MatMul", ["n", "wq"], ["q"], name="/model/attn/q/MatMul"),
        node("MatMul", ["n", "wk"], ["k"], name="/model/attn/k/MatMul"),
        node("MatMul", ["n", "wv"], ["v"], name="/model/attn/v/MatMul"),
        node("Transpose", ["k"], ["kt"], name="/model/attn/Transpose", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["product"], name="/model/attn/MatMul"),
        node("Softmax", ["product"], ["shares"], name="/model/attn/Softmax", axis=-1),
        node("MatMul", ["shares", "v"], ["mixed"], name="/model/attn/MatMul_1"),
        node("MatMul", ["mixed", "wo"], ["o"], name="/model/attn/proj/MatMul"),
        node("Add", ["t", "o"], ["r"], name="/model/Add"),
        node("MatMul", ["r", "w1"], ["h"], name="/model/mlp/mlp.0/MatMul"),
        node("Erf", ["h"], ["a"], name="/model/mlp/mlp.1/Erf"),
        node("MatMul", ["a", "w2"], ["f"], name="/model/mlp/mlp.2/MatMul"),
        node("Transpose", ["f"], ["ft"], name="/model/Transpose_1", perm=[0, 2, 1]),
        node("Reshape", ["ft", "map"], ["m"], name="/model/Reshape_1"),
        node("Conv", ["m", "wc"], ["y"], name="/model/classify/Conv"),
    ]
    return graph(nodes, linear | rest, [1, 1, 8, 8], kind=TensorProto.UINT8)


def pictures(count: int = 4, *, size: tuple[int, int] = (8, 8), seed: int = 1) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, size, np.uint8) for _ in range(count)]
