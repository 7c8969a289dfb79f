"""A model that merges its patches, exported: static, the position table baked, the same logits in every runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeunip.classes import Classes
from edgeunip.compress import graph
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime
from edgeunip.train import run as runs
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run, TorchModel
from edgeunip.train.vit import SIZES, ViTSize

CLASSES = Classes(("a", "b", "c"), ((0, 0, 0),) * 3)


def exported(merge: int, size: tuple[int, int]) -> tuple[TorchModel, onnx.ModelProto]:
    """An untrained model of a 64x80 position table, and its graph at another size."""
    sides = {"height": size[0], "width": size[1], "crop_height": 64, "crop_width": 80}
    recipe = Recipe(size="tiny", merge=merge, last_heads=4, **sides)
    run = Run(Path("runs/none"), recipe, CLASSES, None, {})
    model = runs.build_model(recipe, CLASSES).eval()
    return TorchModel(model, recipe), graph.to_onnx(run, model)


@pytest.mark.parametrize("size", [(64, 96), (80, 112), (16, 48)])
def test_every_runtime_gives_the_same_logits(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """On even and odd grids; a grid of one row has nothing to merge across."""
    monkeypatch.setitem(SIZES, "tiny", ViTSize(dim=32, depth=4, heads=2, last_heads=4))
    model, made = exported(2, size)
    picture = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    wanted = model(picture)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {graph.INPUT: picture[None, None]})[0][0]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    np.testing.assert_allclose(OpenVinoRuntime(graph.to_openvino(made))(picture), wanted, atol=2e-5)


def test_the_graph_is_static(monkeypatch: pytest.MonkeyPatch) -> None:
    """The merge adds one pooling and one resize to the light head's two; an odd grid adds its doubled lines."""
    monkeypatch.setitem(SIZES, "tiny", ViTSize(dim=32, depth=4, heads=2, last_heads=4))
    _, plain = exported(0, (80, 112))
    _, merged = exported(2, (80, 112))
    kinds = [[node.op_type for node in made.graph.node] for made in (plain, merged)]
    assert [found.count("Resize") for found in kinds] == [2, 3]
    assert [found.count("AveragePool") for found in kinds] == [0, 1]
    assert not {"Shape", "If", "Loop"} & set(kinds[1])
    softmax = {node.output[0] for node in merged.graph.node if node.op_type == "Softmax"}
    shapes = {
        tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in merged.graph.value_info
        if value.name in softmax
    }
    assert shapes == {(1, 2, 36, 36), (1, 2, 13, 13), (1, 4, 13, 13)}
