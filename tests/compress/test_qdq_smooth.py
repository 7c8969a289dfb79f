"""SmoothQuant leaves the float graph what it was, and makes it easier to quantise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto
from qdq_graphs import constants, graph, kinds, node, run

from edgeunip.compress.qdq.insert import insert
from edgeunip.compress.qdq.layers import find_layers
from edgeunip.compress.qdq.smooth import smooth, smoothable, smoothing_factors

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (8, 16)).astype(np.float32)


def weights() -> dict[str, NDArray[np.float32]]:
    """A norm whose channel 3 reaches thirty times as far as the others, and two layers behind it."""
    scale = RNG.uniform(0.5, 1, 16).astype(np.float32)
    scale[3] = 30
    made = {name: RNG.normal(0, 0.3, (16, 32)).astype(np.float32) for name in ("a", "b")}
    return {"scale": scale, "bias": RNG.normal(0, 0.1, 16).astype(np.float32), **made, "bt": made["b"].T.copy()}


def normed(*, spelled_out: bool = False, gemm: bool = False, taken: bool = False) -> ModelProto:
    values = weights() | {"two": np.float32(2), "tiny": np.float32(1e-5)}
    norm = [node("LayerNormalization", ["x", "scale", "bias"], ["n"], name="/norm/LayerNormalization")]
    if spelled_out:
        norm = [
            node("ReduceMean", ["x"], ["mean"], axes=[-1]),
            node("Sub", ["x", "mean"], ["d"]),
            node("Pow", ["d", "two"], ["p"]),
            node("ReduceMean", ["p"], ["v"], axes=[-1]),
            node("Add", ["v", "tiny"], ["ve"]),
            node("Sqrt", ["ve"], ["deviation"]),
            node("Div", ["d", "deviation"], ["unit"]),
            node("Mul", ["unit", "scale"], ["scaled"]),
            node("Add", ["scaled", "bias"], ["n"]),
        ]
    second = node("Gemm", ["n", "bt"], ["nb"], name="/b/Gemm", transB=1) if gemm else node("MatMul", ["n", "b"], ["nb"])
    nodes = [*norm, node("MatMul", ["n", "a"], ["na"], name="/a/MatMul"), second, node("Add", ["na", "nb"], ["y"])]
    if taken:
        nodes.append(node("Relu", ["n"], ["r"]))
    outputs = ["y", "r"] if taken else ["y"]
    return graph(nodes, values, [8, 16], outputs)


def peaks(model: ModelProto) -> NDArray[np.float32]:
    shown = ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.add().name = "n"
    return np.abs(run(shown, X, output=1)).max(0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("options", [{}, {"spelled_out": True}, {"gemm": True}])
def test_the_float_graph_computes_what_it_did(options: dict[str, bool], alpha: float) -> None:
    model = normed(**options)
    groups = smoothable(model, find_layers(model))
    assert [(group.tensor, len(group.layers)) for group in groups] == [("n", 2)]
    smoothed = smooth(model, groups, {"n": peaks(model)}, alpha)
    wanted = run(model, X)
    np.testing.assert_allclose(run(smoothed, X), wanted, atol=1e-5 * np.abs(wanted).max())
    assert kinds(smoothed) == kinds(model)
    assert not np.array_equal(constants(smoothed)["a"], constants(model)["a"]), "negative control: something changed"


def test_alpha_1_makes_channels_reach_alike() -> None:
    model = normed()
    found = peaks(smooth(model, smoothable(model, find_layers(model)), {"n": peaks(model)}, 1.0))
    np.testing.assert_allclose(found, 1, rtol=1e-5)
    assert peaks(model).max() > 10 * np.median(peaks(model))


def test_factors_are_those_of_the_paper_and_1_for_dead_channels() -> None:
    found = smoothing_factors(np.array([4, 9, 0, 5], "f4"), np.array([1, 4, 2, 0], "f4"), 0.5)
    np.testing.assert_allclose(found, [2, 1.5, 1, 1])


def test_int8_gains_by_it() -> None:
    model = normed()
    wanted = run(model, X)
    smoothed = smooth(model, smoothable(model, find_layers(model)), {"n": peaks(model)}, 0.5)
    errors = []
    for candidate in (model, smoothed):
        made = insert(candidate, find_layers(candidate), {"n": float(peaks(candidate).max())})
        errors.append(float(np.abs(run(made, X) - wanted).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_a_norm_that_others_take_too_is_left_alone() -> None:
    model = normed(taken=True)
    assert smoothable(model, find_layers(model)) == []
