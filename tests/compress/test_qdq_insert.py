"""Q/DQ pairs on graphs small enough to know every scale, and the bound that rounding obeys on any graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, helper
from qdq_graphs import attention, constants, graph, kinds, node, run

from edgeunip.compress.qdq.insert import SMALLEST_SCALE, insert, to_int8, weight_scales
from edgeunip.compress.qdq.layers import end_layers, find_layers, select
from edgeunip.errors import UsageError


def eye(size: int = 16) -> NDArray[np.float32]:
    return np.diag(np.arange(1, size + 1)).astype(np.float32)


def linear(kind: str = "MatMul", weight: NDArray[np.float32] | None = None, **attributes: int) -> ModelProto:
    made = node(kind, ["x", "w"], ["y"], name=f"/model/fc/{kind}", **attributes)
    return graph([made], {"w": eye() if weight is None else weight}, [4, 16])


class TestScales:
    def test_matmul(self) -> None:
        model = linear()
        made = insert(model, find_layers(model), {"x": 12.7})
        values = constants(made)
        assert kinds(made) == ["QuantizeLinear", "DequantizeLinear"] * 2 + ["MatMul"]
        assert values["x_scale"] == np.float32(0.1) and values["x_scale"].shape == ()
        assert values["x_zero_point"].dtype == np.int8 and values["x_zero_point"] == 0
        np.testing.assert_array_equal(values["w_axis1_scale"], np.arange(1, 17, dtype=np.float32) / np.float32(127))
        np.testing.assert_array_equal(values["w_axis1_zero_point"], np.zeros(16, np.int8))
        assert [entry.attribute[0].i for entry in made.graph.node if "w" in entry.input[0]] == [1, 1]

    @pytest.mark.parametrize("transposed", [0, 1])
    def test_gemm_axis_follows_the_transposition(self, transposed: int) -> None:
        weight = np.arange(1, 16 * 32 + 1, dtype=np.float32).reshape(16, 32)
        model = linear("Gemm", weight.T.copy() if transposed else weight, transB=transposed)
        (layer,) = find_layers(model)
        made = constants(insert(model, [layer], {"x": 1.0}))
        assert layer.axis == 1 - transposed
        expected = weight.max(0) / np.float32(127)
        np.testing.assert_array_equal(made[f"w_axis{layer.axis}_scale"], expected)

    def test_conv_by_output_channel_and_transposed_conv_at_once(self) -> None:
        weight = np.zeros((2, 2, 1, 1), np.float32)
        weight[0, 0], weight[1, 1] = 127, -254
        for kind, scales in (("Conv", [1, 2]), ("ConvTranspose", 2)):
            model = graph([node(kind, ["x", "w"], ["y"], name="/c/Conv")], {"w": weight}, [1, 2, 3, 3])
            made = constants(insert(model, find_layers(model), {"x": 1.0}))
            found = next(value for name, value in made.items() if name.startswith("w") and name.endswith("scale"))
            np.testing.assert_array_equal(found, np.array(scales, np.float32))

    def test_dead_channels_get_a_positive_scale(self) -> None:
        weight = np.zeros((16, 16), np.float32)
        np.testing.assert_array_equal(weight_scales(weight, 1), np.full(16, SMALLEST_SCALE, np.float32))
        model = linear(weight=weight)
        made = insert(model, find_layers(model), {"x": 0.0})
        assert constants(made)["x_scale"] == np.float32(SMALLEST_SCALE)
        assert not run(made, np.ones((4, 16), np.float32)).any()


class TestPairs:
    def model(self) -> ModelProto:
        nodes = [
            node("Relu", ["x"], ["r"], name="/Relu"),
            node("MatMul", ["r", "a"], ["ra"], name="/a/MatMul"),
            node("MatMul", ["r", "b"], ["rb"], name="/b/MatMul"),
            node("Add", ["ra", "rb"], ["sum"], name="/Add"),
            node("Add", ["sum", "r"], ["y"], name="/Add_1"),
        ]
        return graph(nodes, {"a": eye(), "b": eye()[::-1].copy()}, [4, 16])

    def test_one_pair_for_all_layers_of_a_tensor_and_float_for_the_rest(self) -> None:
        model = self.model()
        made = insert(model, find_layers(model), {"r": 2.0})
        assert kinds(made).count("QuantizeLinear") == 3
        data = {entry.name: list(entry.input) for entry in made.graph.node}
        assert data["/a/MatMul"][0] == data["/b/MatMul"][0] == "r_dequantised"
        assert data["/Add_1"] == ["sum", "r"]

    def test_layers_left_out_keep_the_float_tensor(self) -> None:
        model = self.model()
        made = insert(model, select(find_layers(model), {"b"}), {"r": 2.0})
        data = {entry.name: list(entry.input) for entry in made.graph.node}
        assert data["/b/MatMul"] == ["r", "b"] and kinds(made).count("QuantizeLinear") == 2

    def test_a_shared_weight_has_one_pair(self) -> None:
        nodes = [
            node("MatMul", ["x", "w"], ["h"], name="/a/MatMul"),
            node("MatMul", ["h", "w"], ["y"], name="/a/MatMul_1"),
        ]
        model = graph(nodes, {"w": eye()}, [4, 16])
        layers = find_layers(model)
        assert [layer.name for layer in layers] == ["a", "a#2"]
        assert kinds(insert(model, layers, {"x": 1.0, "h": 1.0})).count("QuantizeLinear") == 3

    def test_int8_weights_compute_the_same_in_a_quarter_of_the_bytes(self) -> None:
        model = linear(weight=np.random.default_rng(0).normal(0, 1, (16, 512)).astype(np.float32))
        plain, small = (insert(model, find_layers(model), {"x": 3.0}, weights=form) for form in ("float32", "int8"))
        x = np.random.default_rng(1).normal(0, 1, (4, 16)).astype(np.float32)
        np.testing.assert_array_equal(run(plain, x), run(small, x))
        assert constants(small)["w_axis1_int8"].dtype == np.int8 and "w" not in constants(small)
        assert small.ByteSize() < 0.45 * plain.ByteSize()

    def test_the_model_given_is_left_alone(self) -> None:
        model = linear()
        before = model.SerializeToString(deterministic=True)
        first, second = (insert(model, find_layers(model), {"x": 1.0}) for _ in range(2))
        assert model.SerializeToString(deterministic=True) == before
        assert first.SerializeToString() == second.SerializeToString()


class TestLayers:
    def test_found_in_order_without_attention_products(self) -> None:
        model = attention()
        layers = find_layers(model)
        names = ["embed", "attn.q", "attn.k", "attn.v", "attn.proj", "mlp.0", "mlp.2", "classify"]
        assert [layer.name for layer in layers] == names
        assert end_layers(model, layers) == {"embed", "classify"}

    def test_narrow_matrices_are_left_out(self) -> None:
        model = graph([node("MatMul", ["x", "w"], ["y"], name="/pool/MatMul")], {"w": np.ones((20, 6), "f4")}, [4, 20])
        assert find_layers(model) == []

    def test_a_constant_times_a_tensor_is_none(self) -> None:
        made = node("MatMul", ["w", "x"], ["y"], name="/pool/MatMul")
        assert find_layers(graph([made], {"w": eye()}, [16, 16])) == []

    @pytest.mark.parametrize(
        "scope, name",
        [("/model/head/fuse/fuse.1/fuse.1.0/Conv", "head.fuse.1.0"), ("node_conv2d", "node_conv2d")],
    )
    def test_a_layer_is_named_by_its_module_or_its_node(self, scope: str, name: str) -> None:
        weights = {"w": np.ones((16, 1, 3, 3), "f4")}
        made = graph([node("Conv", ["x", "w"], ["y"], name=scope)], weights, [1, 1, 8, 8])
        assert [layer.name for layer in find_layers(made)] == [name]

    def test_unknown_layer_names_the_near(self) -> None:
        with pytest.raises(UsageError, match=r"No such layer to keep in float: mlp.1.*mlp"):
            select(find_layers(attention()), {"mlp.1"})


@st.composite
def layer_graphs(draw: st.DrawFn) -> tuple[ModelProto, NDArray[np.float32], NDArray[np.float32]]:
    """A layer of random kind, sizes, groups and strides; its weight and data."""
    kind = draw(st.sampled_from(["MatMul", "Conv", "ConvTranspose"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "MatMul":
        rows, columns = draw(st.integers(16, 24)), draw(st.integers(16, 24))
        shape, data, attributes = (rows, columns), (3, rows), {}
    else:
        groups, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
        side, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        channels = (inputs * groups, outputs) if kind == "ConvTranspose" else (outputs * groups, inputs)
        shape, data = (*channels, side, side), (1, inputs * groups, 5, 6)
        attributes = {"group": groups, "strides": [stride, stride]}
    spread = 10.0 ** rng.uniform(-2, 2, shape[:1] + (1,) * (len(shape) - 1))
    weight = (rng.normal(0, 1, shape) * spread).astype(np.float32)
    x = rng.standard_t(3, data).astype(np.float32)
    model = graph([node(kind, ["x", "w"], ["y"], name=f"/layer/{kind}", **attributes)], {"w": weight}, data)
    return model, weight, x


def with_weight(model: ModelProto, weight: NDArray[np.float32]) -> ModelProto:
    layer = model.graph.node[0]
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in layer.attribute}
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return graph([node(layer.op_type, ["x", "w"], ["y"], name="/layer/any", **attributes)], {"w": weight}, shape)


def bound(model: ModelProto, weight: NDArray[np.float32], x: NDArray[np.float32], step: float) -> NDArray:
    """What half a step of rounding in every weight and value can add up to."""
    (layer,) = find_layers(model)
    scales = weight_scales(weight, layer.axis)
    shape = [-1 if i == layer.axis else 1 for i in range(weight.ndim)]
    half_weight = np.broadcast_to(scales.reshape(shape) / 2, weight.shape).astype(np.float32)
    half_x = np.full_like(x, step / 2)
    return run(with_weight(model, half_weight), np.abs(x) + half_x) + run(with_weight(model, np.abs(weight)), half_x)


@settings(max_examples=40, deadline=None)
@given(layer_graphs(), st.sampled_from(["float32", "int8"]))
def test_rounding_stays_within_its_bound(found: tuple[ModelProto, NDArray, NDArray], form: str) -> None:
    model, weight, x = found
    reach = float(np.abs(x).max())
    made = insert(model, find_layers(model), {"x": reach}, weights=form)  # type: ignore[arg-type]
    wanted, allowed = run(model, x), bound(model, weight, x, reach / 127)
    assert np.all(np.abs(run(made, x) - wanted) <= allowed * (1 + 1e-4) + 1e-6)


def test_the_bound_refuses_a_range_too_small_and_a_wrong_axis() -> None:
    rng = np.random.default_rng(0)
    weight = (rng.normal(0, 1, (16, 16)) * 10 ** rng.uniform(-2, 2, 16)).astype(np.float32)
    model, x = linear(weight=weight), rng.normal(0, 1, (4, 16)).astype(np.float32)
    wanted, allowed = run(model, x), bound(model, weight, x, float(np.abs(x).max()) / 127)
    clipped = insert(model, find_layers(model), {"x": float(np.abs(x).max()) / 3})
    assert np.any(np.abs(run(clipped, x) - wanted) > allowed)
    scales = weight_scales(weight, 0)
    rounded = to_int8(weight, scales, 0) * scales[:, None]
    assert np.any(np.abs(x @ rounded - wanted) > allowed)
