"""TensorRT's rules: a valid graph breaks none, and breaking each by hand is noticed and named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from qdq_graphs import attention, graph, pictures

from edgeunip.compress.qdq import rules
from edgeunip.compress.qdq.quantise import Options, quantise
from edgeunip.errors import ExportError


def valid(**options: str) -> ModelProto:
    return quantise(attention(), pictures(), Options(**options)).model  # type: ignore[arg-type]


def find(model: ModelProto, name: str) -> NodeProto:
    return next(entry for entry in model.graph.node if entry.name == name)


def put(model: ModelProto, name: str, values: NDArray) -> None:
    """Replace or add a constant."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def pair_on(model: ModelProto, tensor: str, *takers: str) -> None:
    """Quantise a tensor in the way of some nodes, with parameters that are right."""
    put(model, "s", np.float32(0.1))
    put(model, "z", np.int8(0))
    quantise_, dequantise = (
        helper.make_node("QuantizeLinear", [tensor, "s", "z"], ["bad_q"], name="bad/Q"),
        helper.make_node("DequantizeLinear", ["bad_q", "s", "z"], ["bad_dq"], name="bad/DQ"),
    )
    for taker in takers:
        entry = find(model, taker)
        entry.input[[*entry.input].index(tensor)] = "bad_dq"
    nodes = [*model.graph.node]
    first = min((i for i, entry in enumerate(nodes) if entry.name in takers), default=len(nodes))
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:first], quantise_, dequantise, *nodes[first:]])


def opset(model: ModelProto) -> None:
    model.opset_import[0].version = 16


def ir_version(model: ModelProto) -> None:
    model.ir_version = 11


def domain(model: ModelProto) -> None:
    find(model, "/model/mlp/mlp.1/Erf").domain = "com.microsoft"


def dynamic(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def external(model: ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w1")
    tensor.data_location = TensorProto.EXTERNAL


def q_without_dq(model: ModelProto) -> None:
    nodes = [entry for entry in model.graph.node if entry.name != "n/DequantizeLinear"]
    for entry in nodes:
        entry.input[:] = ["n" if name == "n_dequantised" else name for name in entry.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def dq_without_q(model: ModelProto) -> None:
    find(model, "n/DequantizeLinear").input[0] = "n"


def scales_differ(model: ModelProto) -> None:
    put(model, "other", np.float32(1))
    find(model, "n/DequantizeLinear").input[1] = "other"


def float_weight_behind_dq(model: ModelProto) -> None:
    find(model, "w1_axis1/DequantizeLinear").input[0] = "w1"


def unsigned(model: ModelProto) -> None:
    put(model, "n_zero_point", np.uint8(0))


def zero_point(model: ModelProto) -> None:
    put(model, "n_zero_point", np.int8(3))


def no_zero_point(model: ModelProto) -> None:
    for name in ("n/QuantizeLinear", "n/DequantizeLinear"):
        del find(model, name).input[2]


def sizes_differ(model: ModelProto) -> None:
    put(model, "w1_axis1_zero_point", np.int8(0))


def negative_scale(model: ModelProto) -> None:
    put(model, "n_scale", np.float32(-0.1))


def infinite_scale(model: ModelProto) -> None:
    put(model, "w1_axis1_scale", np.full(16, np.inf, np.float32))


def activation_by_channel(model: ModelProto) -> None:
    put(model, "r_scale", np.ones(16, np.float32))
    put(model, "r_zero_point", np.zeros(16, np.int8))


def weight_by_input_channel(model: ModelProto) -> None:
    for name in ("w1_axis1/QuantizeLinear", "w1_axis1/DequantizeLinear"):
        find(model, name).attribute[0].i = 0


def weight_by_tensor(model: ModelProto) -> None:
    put(model, "w1_axis1_scale", np.float32(1))
    put(model, "w1_axis1_zero_point", np.int8(0))


def weight_alone(model: ModelProto) -> None:
    find(model, "/model/mlp/mlp.0/MatMul").input[0] = "r"


def picture(model: ModelProto) -> None:
    pair_on(model, "float", "/Sub")


def attention_query(model: ModelProto) -> None:
    pair_on(model, "q", "/model/attn/MatMul")


def attention_key(model: ModelProto) -> None:
    pair_on(model, "k", "/model/attn/Transpose")


def softmax_input(model: ModelProto) -> None:
    pair_on(model, "product", "/model/attn/Softmax")


def softmax_output(model: ModelProto) -> None:
    pair_on(model, "shares", "/model/attn/MatMul_1")


def norm_input(model: ModelProto) -> None:
    pair_on(model, "t", "/model/norm/LayerNormalization")


def residual(model: ModelProto) -> None:
    pair_on(model, "o", "/model/Add")


def unused(model: ModelProto) -> None:
    pair_on(model, "o")


BREAKERS: dict[Callable[[ModelProto], None], tuple[str, str]] = {
    opset: ("opset", "model"),
    ir_version: ("IR version", "model"),
    domain: ("domain", "/model/mlp/mlp.1/Erf"),
    dynamic: ("static shape", "x"),
    external: ("external data", "w1"),
    q_without_dq: ("pair", "n/QuantizeLinear"),
    dq_without_q: ("pair", "n/DequantizeLinear"),
    scales_differ: ("pair", "n/DequantizeLinear"),
    float_weight_behind_dq: ("type", "w1_axis1/DequantizeLinear"),
    unsigned: ("type", "n/QuantizeLinear"),
    zero_point: ("zero point", "n/QuantizeLinear"),
    no_zero_point: ("parameters", "n/QuantizeLinear"),
    sizes_differ: ("parameters", "w1_axis1/QuantizeLinear"),
    negative_scale: ("scale", "n/QuantizeLinear"),
    infinite_scale: ("scale", "w1_axis1/QuantizeLinear"),
    activation_by_channel: ("activation scale", "/model/mlp/mlp.0/MatMul"),
    weight_by_input_channel: ("weight axis", "/model/mlp/mlp.0/MatMul"),
    weight_by_tensor: ("weight axis", "/model/mlp/mlp.0/MatMul"),
    weight_alone: ("half", "/model/mlp/mlp.0/MatMul"),
    picture: ("picture", "bad/Q"),
    attention_query: ("attention", "bad/Q"),
    attention_key: ("attention", "bad/Q"),
    softmax_input: ("softmax", "bad/DQ"),
    softmax_output: ("softmax", "bad/Q"),
    norm_input: ("layer norm", "bad/DQ"),
    residual: ("placement", "bad/DQ"),
    unused: ("placement", "bad/DQ"),
}


@pytest.mark.parametrize("form", ["float32", "int8"])
def test_a_quantised_graph_breaks_none(form: str) -> None:
    assert rules.violations(valid(weights=form)) == []


@pytest.mark.parametrize("breaker", BREAKERS, ids=lambda breaker: breaker.__name__)
def test_each_rule_is_noticed_when_broken(breaker: Callable[[ModelProto], None]) -> None:
    model = valid()
    breaker(model)
    rule, where = BREAKERS[breaker]
    found = rules.violations(model)
    assert (rule, where) in {(violation.rule, violation.node) for violation in found}, [str(one) for one in found]


def test_a_transposed_convolution_takes_one_scale() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="x/Q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], name="x/DQ"),
        helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"], name="w/Q", axis=1),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], name="w/DQ", axis=1),
        helper.make_node("ConvTranspose", ["xd", "wd"], ["y"], name="/up/ConvTranspose"),
    ]
    values = {"s": np.float32(1), "z": np.int8(0), "ws": np.ones(2, "f4"), "wz": np.zeros(2, "i1")}
    values["w"] = np.ones((2, 2, 1, 1), "f4")
    found = rules.violations(graph(nodes, values, [1, 2, 3, 3]))
    assert ("weight axis", "/up/ConvTranspose") in {(violation.rule, violation.node) for violation in found}


def test_check_names_rule_node_and_number() -> None:
    model = valid()
    rules.check(model)
    zero_point(model)
    with pytest.raises(ExportError, match=r"breaks 2 of TensorRT's rules, first 'zero point': n/Quant.*not 0"):
        rules.check(model)


def test_an_older_opset_is_let_pass_where_asked_for() -> None:
    model = valid()
    opset(model)
    rules.check(model, least_opset=13)
