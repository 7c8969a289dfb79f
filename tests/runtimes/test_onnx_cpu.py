"""ONNX Runtime behind the Runtime contract, on a graph written by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeunip.errors import InferenceError
from edgeunip.runtimes.onnx_cpu import OnnxRuntime

SHAPE = (32, 48)


def model(kind: int = TensorProto.UINT8, shape: tuple[int, ...] = (1, 1, *SHAPE)) -> bytes:
    """Two classes: the mean of 4x4 pixels, and 100 less it."""
    nodes = [
        helper.make_node("Cast", ["picture"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["float"], ["warm"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Sub", ["hundred", "warm"], ["cold"]),
        helper.make_node("Concat", ["warm", "cold"], ["logits"], axis=1),
    ]
    hundred = helper.make_tensor("hundred", TensorProto.FLOAT, [], [100.0])
    quarter = (1, 2 * shape[1], shape[2] // 4, shape[3] // 4)
    ends = [
        helper.make_tensor_value_info("picture", kind, shape),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, quarter),
    ]
    body = helper.make_graph(nodes, "mean", ends[:1], ends[1:], [hundred])
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = made.SerializeToString()
    return content


def test_it_computes_what_the_graph_says(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model())
    picture = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    mean = picture.reshape(8, 4, 12, 4).mean((1, 3))
    for source in (model(), tmp_path / "model.onnx"):
        runtime = OnnxRuntime(source, threads=1)
        assert (runtime.input_shape, runtime.output_shape) == (SHAPE, (2, 8, 12))
        assert runtime.name.startswith("onnxruntime ") and runtime.concurrency == 1
        logits = runtime(picture)
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, np.stack([mean, 100 - mean]), rtol=1e-5)
        runtime.close()
        runtime.close()


def test_calls_at_once_do_not_mix() -> None:
    runtime = OnnxRuntime(model(), throughput=True)
    assert runtime.concurrency == 2
    pictures = [np.full(SHAPE, gray, np.uint8) for gray in range(64)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(runtime, pictures))
    assert [logits[0, 0, 0] for logits in found] == list(range(64))
    assert found[0].base is not found[1].base or found[0].base is None, "each result is the caller's own"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no model", r"^ONNX Runtime cannot load the model: model\.onnx \("),
        (b"", r"^ONNX Runtime cannot load the model"),
        (model(TensorProto.FLOAT), r"^The model must have one fixed uint8 input and one float32 output"),
        (model(shape=(1, 3, *SHAPE)), r"^The model must take \[1, 1, H, W\] and give \[1, classes, h, w\]"),
    ],
)
def test_what_is_no_such_model(content: bytes, told: str) -> None:
    with pytest.raises(InferenceError, match=told) as error:
        OnnxRuntime(content)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((InferenceError, OSError), match=r"gone\.onnx"):
        OnnxRuntime(tmp_path / "gone.onnx")


@pytest.mark.parametrize("picture", [np.zeros((32, 32), np.uint8), np.zeros(SHAPE, np.float32)])
def test_another_picture_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(InferenceError, match=r"^The model takes uint8 \(32, 48\), the picture is (uint8|float32) "):
        OnnxRuntime(model())(picture)
