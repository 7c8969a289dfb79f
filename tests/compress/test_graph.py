"""The one ONNX graph: constants where a fixed size makes them, module names, and the model's own numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional as F

from edgeunip.classes import Classes
from edgeunip.compress import graph
from edgeunip.compress.forms import serialise
from edgeunip.compress.half import to_float16
from edgeunip.compress.names import layer_name
from edgeunip.compress.qdq.layers import find_layers
from edgeunip.errors import ExportError
from edgeunip.runtimes.onnx_cpu import OnnxRuntime
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime
from edgeunip.train.heads import adaptive_pool
from edgeunip.train.recipe import HeadName, Recipe
from edgeunip.train.run import Run, TorchModel, build_model
from edgeunip.train.segmentor import Segmentor

SIZE = 64, 96
CLASSES = Classes(("background", "person", "vehicle"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))


def untrained(head: HeadName = "light", size: str = "tiny") -> tuple[Run, Segmentor]:
    recipe = Recipe(size=size, head=head, height=SIZE[0], width=SIZE[1], crop_height=48, crop_width=64, last_heads=16)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = build_model(recipe, CLASSES).eval()
    for name, value in model.named_parameters():
        if name.endswith("gamma"):
            value.data.uniform_(0.2, 2.0)  # LayerScale that matters
    return Run(Path("night"), recipe, CLASSES, None, {}), model


@pytest.fixture(scope="module")
def light() -> tuple[Run, Segmentor, onnx.ModelProto]:
    run, model = untrained()
    return run, model, graph.to_onnx(run, model)


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_the_graph_holds_nothing_a_fixed_size_makes_constant(light: tuple[Run, Segmentor, onnx.ModelProto]) -> None:
    found = kinds(light[2])
    assert not {"Shape", "Constant", "Expand", "BatchNormalization", "Gather", "RandomUniformLike"} & set(found)
    assert found.count("Resize") == 2, "the light head enlarges twice; the position table is a constant"
    assert found.count("LayerNormalization") == 24 and found.count("Softmax") == 12
    assert light[2].opset_import[0].version == 17


@pytest.mark.parametrize("head", ["light", "uper"])
def test_three_engines_one_model(head: HeadName) -> None:
    run, model = untrained(head)
    exported = graph.to_onnx(run, model)
    picture = np.random.default_rng(1).integers(0, 256, SIZE, np.uint8)
    wanted = TorchModel(model, run.recipe)(picture)
    assert np.abs(wanted).max() > 0.1, "logits of nothing would agree with anything"
    np.testing.assert_allclose(OnnxRuntime(serialise(exported))(picture), wanted, atol=1e-3)
    np.testing.assert_allclose(OpenVinoRuntime(graph.to_openvino(exported))(picture), wanted, atol=1e-3)


def test_the_same_model_gives_the_same_bytes(light: tuple[Run, Segmentor, onnx.ModelProto]) -> None:
    run, model, exported = light
    assert serialise(graph.to_onnx(run, model)) == serialise(exported)
    with torch.no_grad():
        other = untrained()[1]
        next(other.parameters()).add_(1e-3)
    assert serialise(graph.to_onnx(run, other)) != serialise(exported)


def test_layer_scale_is_in_the_weights_and_the_model_is_left_alone(
    light: tuple[Run, Segmentor, onnx.ModelProto],
) -> None:
    _, model, exported = light
    assert not any("ls1" in node.name or "ls2" in node.name for node in exported.graph.node)
    assert any(name.endswith("ls1.gamma") for name, _ in model.named_parameters())


def test_a_later_opset_and_an_older_one(light: tuple[Run, Segmentor, onnx.ModelProto]) -> None:
    run, model, exported = light
    picture = np.random.default_rng(2).integers(0, 256, SIZE, np.uint8)
    wanted = OnnxRuntime(serialise(exported))(picture)
    for opset, norms in ((16, 0), (19, 24)):
        other = graph.to_onnx(run, model, opset=opset)
        assert kinds(other).count("LayerNormalization") == norms
        np.testing.assert_allclose(OnnxRuntime(serialise(other))(picture), wanted, atol=1e-4)


def test_weighted_layers_are_the_models(light: tuple[Run, Segmentor, onnx.ModelProto]) -> None:
    names = [layer.name for layer in find_layers(light[2])]
    modules = {name for name, part in light[1].named_modules() if isinstance(part, (torch.nn.Linear, torch.nn.Conv2d))}
    assert len(names) == len(modules)
    assert {"backbone.blocks.0.attn.qkv", "backbone.blocks.11.mlp.fc2", "head.classify", "head.context"} <= set(names)


@pytest.mark.parametrize(
    ("node", "layer"),
    [
        ("/model/backbone/blocks.0/attn/qkv/MatMul", "backbone.blocks.0.attn.qkv"),
        ("/model/head/at_eighth/at_eighth.1/at_eighth.1.0/at_eighth.1.0.0/Conv", "head.at_eighth.1.0.0"),
        ("/model/head/classify/Conv", "head.classify"),
        ("/Sub", ""),
        ("", ""),
    ],
)
def test_layer_name(node: str, layer: str) -> None:
    assert layer_name(node) == layer


def test_a_resize_of_a_constant_is_refused() -> None:
    """Negative control of the check: a position table that is resized at run time, as an unbaked one would be."""
    table = helper.make_tensor("table", TensorProto.FLOAT, [1, 1, 2, 2], [1.0, 2.0, 3.0, 4.0])
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, 1, 4, 4])
    nodes = [
        helper.make_node("Resize", ["table", "", "", "sizes"], ["large"], name="/model/backbone/Resize", mode="cubic"),
        helper.make_node("Add", ["picture", "large"], ["logits"], name="/Add"),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in ("picture", "logits")]
    body = helper.make_graph(nodes, "g", value[:1], value[1:], [table, sizes])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ExportError, match=r"computes a Resize at run time.*: /model/backbone/Resize"):
        graph._check(model)


@pytest.mark.parametrize("side", [(15, 20), (16, 16), (2, 3)])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_adaptive_pool_is_torchs(side: tuple[int, int], size: int) -> None:
    level = torch.randn(2, 3, *side, dtype=torch.float64)
    torch.testing.assert_close(adaptive_pool(level, size), F.adaptive_avg_pool2d(level, size), rtol=0, atol=1e-12)


def test_float16_keeps_norms_and_ends(light: tuple[Run, Segmentor, onnx.ModelProto]) -> None:
    exported = light[2]
    half = to_float16(exported)
    kind = {value.name: value.type.tensor_type.elem_type for value in half.graph.value_info}
    kind |= {item.name: item.data_type for item in half.graph.initializer}
    for node in half.graph.node:
        wanted = {"MatMul": TensorProto.FLOAT16, "Conv": TensorProto.FLOAT16, "LayerNormalization": TensorProto.FLOAT}
        if node.op_type in wanted:
            assert kind[node.input[0]] == kind[node.input[1]] == wanted[node.op_type], node.name
    assert [value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)] == [2, 1]
    picture = np.random.default_rng(3).integers(0, 256, SIZE, np.uint8)
    wanted_logits = OnnxRuntime(serialise(exported))(picture)
    found = OnnxRuntime(serialise(half))(picture)
    assert 1e-5 < np.abs(found - wanted_logits).max() < 0.01 * np.abs(wanted_logits).max()
    assert serialise(to_float16(exported)) == serialise(half)


def test_recipes_of_another_size_share_the_weights() -> None:
    """The table of a crop's grid is resampled for the export size, whatever that is."""
    run, model = untrained()
    wide = replace(run, recipe=replace(run.recipe, height=96, width=128))
    picture = np.random.default_rng(4).integers(0, 256, (96, 128), np.uint8)
    found = OnnxRuntime(serialise(graph.to_onnx(wide, model)))(picture)
    np.testing.assert_allclose(found, TorchModel(model, wide.recipe)(picture), atol=1e-3)
