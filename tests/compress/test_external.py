"""Models from elsewhere: hand-made ONNX through the adapter, one clear line for each wrong entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeunip.compress import external
from edgeunip.errors import EdgeunipError, UsageError
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime

SIZE = (8, 12)
GOOD: dict[str, Any] = {
    "size": [8, 12], "channels": 3, "mean": [10.0, 20.0, 30.0], "std": [2.0, 4.0, 5.0], "input": "image",
    "output": "logits", "kind": "logits", "classes": ["ground", "cow"],
}  # fmt: skip


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    shape: list[Any],
    outputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, NDArray[Any]] | None = None,
    kind: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "hand-made",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_adapter(path: Path, values: dict[str, Any]) -> Path:
    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return f"[{', '.join(map(text, value))}]"
        return f'"{value}"' if isinstance(value, str) else repr(value)

    path.write_text("".join(f"{key} = {text(value)}\n" for key, value in values.items()))
    return path


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    """A model whose logits are the first two of its three normalised channels."""
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, 0] = weights[1, 1] = 1
    conv = helper.make_node("Conv", ["image", "w"], ["logits"])
    outputs = {"logits": (TensorProto.FLOAT, [1, 2, *SIZE])}
    path = write_model(tmp_path / "m.onnx", [conv], shape=[1, 3, *SIZE], outputs=outputs, constants={"w": weights})
    write_adapter(tmp_path / "m.toml", GOOD)
    return path


def picture() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


def test_a_gray_picture_becomes_three_normalised_channels(channels: Path) -> None:
    found = OpenVinoRuntime(external.load(channels).graph(("ground", "cow")))(picture())
    gray = picture().astype(np.float32)
    np.testing.assert_allclose(found, np.stack([(gray - 10) / 2, (gray - 20) / 4]), rtol=1e-5, atol=1e-4)


def test_classes_are_put_into_the_order_of_the_data_set(channels: Path) -> None:
    plain = OpenVinoRuntime(external.load(channels).graph(("ground", "cow")))(picture())
    turned = OpenVinoRuntime(external.load(channels).graph(("cow", "ground")))(picture())
    np.testing.assert_array_equal(turned, plain[::-1])


def test_a_class_named_twice_takes_the_larger_logit(channels: Path) -> None:
    weights = np.zeros((3, 3, 1, 1), np.float32)
    for index in range(3):
        weights[index, index] = 1
    conv = helper.make_node("Conv", ["image", "w"], ["logits"])
    outputs = {"logits": (TensorProto.FLOAT, [1, 3, *SIZE])}
    write_model(channels, [conv], shape=[1, 3, *SIZE], outputs=outputs, constants={"w": weights})
    write_adapter(channels.with_suffix(".toml"), GOOD | {"classes": ["cow", "ground", "cow"]})
    found = OpenVinoRuntime(external.load(channels).graph(("ground", "cow")))(picture())
    gray = picture().astype(np.float32)
    theirs = np.stack([(gray - 10) / 2, (gray - 20) / 4, (gray - 30) / 5])
    np.testing.assert_allclose(found, [theirs[1], np.maximum(theirs[0], theirs[2])], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shape", [[1, *SIZE], [1, 1, *SIZE]])
def test_a_class_map_of_whole_numbers(tmp_path: Path, shape: list[int]) -> None:
    """The picture is the class map itself; an index beyond the last class counts as the last."""
    nodes = [
        helper.make_node("Cast", ["image"], ["ids"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["ids", "shape"], ["map"]),
    ]
    outputs = {"map": (TensorProto.INT64, shape)}
    path = write_model(
        tmp_path / "m.onnx", nodes, shape=[1, 1, *SIZE], outputs=outputs, constants={"shape": np.array(shape)}
    )
    values = {"size": list(SIZE), "kind": "class-map", "classes": ["cow", "ground", "cow"]}
    write_adapter(tmp_path / "m.toml", values)
    ids = np.resize(np.array([0, 1, 2, 9], np.uint8), SIZE)
    found = OpenVinoRuntime(external.load(path).graph(("ground", "cow")))(ids)
    expected = np.array([1, 0, 1, 1])[np.minimum(ids, 3)]
    np.testing.assert_array_equal(found.argmax(0), expected)
    assert set(np.unique(found)) == {0.0, 1.0}


def test_channels_last_and_half_precision(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["image"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["logits"], to=TensorProto.FLOAT),
    ]
    outputs = {"logits": (TensorProto.FLOAT, [1, 3, *SIZE])}
    path = write_model(tmp_path / "m.onnx", nodes, shape=[1, *SIZE, 3], outputs=outputs, kind=TensorProto.FLOAT16)
    values = GOOD | {"layout": "NHWC", "dtype": "float16", "mean": 0.0, "std": 2.0, "classes": ["a", "b", "c"]}
    write_adapter(tmp_path / "m.toml", values)
    found = OpenVinoRuntime(external.load(path).graph(("a", "b", "c")))(picture())
    np.testing.assert_array_equal(found, np.stack([picture() / np.float32(2)] * 3))


def test_moving_shapes_are_fixed_by_the_adapter(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["image"], ["logits"])
    outputs = {"logits": (TensorProto.FLOAT, ["n", 3, "h", "w"])}
    path = write_model(tmp_path / "m.onnx", [node], shape=["n", 3, "h", "w"], outputs=outputs)
    write_adapter(tmp_path / "m.toml", GOOD | {"kind": "none"})
    model = external.load(path).graph(None)
    assert [int(side) for side in model.inputs[0].get_shape()] == [1, 1, *SIZE]
    assert [int(side) for side in model.outputs[0].get_shape()] == [1, 3, *SIZE]


def test_openvino_files_are_read_too_and_their_weights_count(channels: Path, tmp_path: Path) -> None:
    openvino.save_model(external.load(channels).graph(("ground", "cow")), tmp_path / "ir.xml", compress_to_fp16=False)
    values = {"size": list(SIZE), "dtype": "uint8", "kind": "logits", "classes": ["ground", "cow"]}
    write_adapter(tmp_path / "ir.toml", values)
    again = external.load(tmp_path / "ir.xml")
    assert again.bytes == sum((tmp_path / name).stat().st_size for name in ("ir.xml", "ir.bin"))
    first, second = (OpenVinoRuntime(one.graph(("ground", "cow"))) for one in (external.load(channels), again))
    np.testing.assert_array_equal(first(picture()), second(picture()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": [8]}, r"adapter's size cannot be \[8\].*Give \[height, width\]"),
        ({"size": [8, -1]}, r"adapter's size cannot be \[8, -1\]"),
        ({"size": None}, r"lacks an entry: .*size"),
        ({"channels": 2}, "channels cannot be 2.*Give 1 or 3"),
        ({"layout": "CHW"}, "layout cannot be 'CHW'.*NCHW, NHWC"),
        ({"dtype": "int8"}, "dtype cannot be 'int8'.*float32, float16, uint8"),
        ({"mean": [1.0, 2.0]}, r"mean cannot be \[1.0, 2.0\].*one a channel"),
        ({"mean": "gray"}, "mean cannot be 'gray'"),
        ({"std": 0.0}, "std cannot be 0.0.*positive"),
        ({"agc": "auto"}, "agc cannot be 'auto'.*percentile"),
        ({"kind": "boxes"}, "kind cannot be 'boxes'.*logits, class-map, none"),
        ({"kind": None}, "lacks an entry: .*kind"),
        ({"classes": []}, r"classes cannot be \[\]"),
        ({"classes": None}, "lacks an entry: .*classes"),
        ({"sizes": [8, 12]}, "Unknown adapter entry: .*sizes.*Did you mean size"),
        ({"input": "picture"}, "no such input: .*picture.*image"),
        ({"output": "mask"}, "no such output: .*mask.*It has 1: logits"),
        ({"output": 3}, "no such output: .*3"),
        ({"channels": 1, "mean": 0.0, "std": 1.0}, r"input is \[1,3,8,12\], the adapter's \[1, 1, 8, 12\]"),
        ({"size": [16, 12]}, r"input is \[1,3,8,12\], the adapter's \[1, 3, 16, 12\]"),
        ({"dtype": "float16"}, "input is of float32, the adapter says float16"),
        ({"dtype": "uint8"}, "uint8 takes no mean and std"),
    ],
)
def test_every_wrong_entry_is_one_line(channels: Path, change: dict[str, Any], message: str) -> None:
    values = {key: value for key, value in (GOOD | change).items() if value is not None}
    write_adapter(channels.with_suffix(".toml"), values)
    with pytest.raises(UsageError, match=message) as told:
        external.load(channels)
    assert "\n" not in str(told.value) and "m.toml" in str(told.value)


def test_classes_and_shapes_are_held_to_the_data_set(channels: Path) -> None:
    with pytest.raises(UsageError, match=r"adapter's classes are others.*the data set has ground, udder"):
        external.load(channels).graph(("ground", "udder"))
    write_adapter(channels.with_suffix(".toml"), GOOD | {"classes": ["ground", "cow", "cow"]})
    with pytest.raises(UsageError, match=r"Logits must be \[1, 3, h, w\].*\[1, 2, 8, 12\]"):
        external.load(channels).graph(("ground", "cow"))
    write_adapter(channels.with_suffix(".toml"), GOOD | {"kind": "class-map"})
    with pytest.raises(UsageError, match=r"class map must be .*\[1, 2, 8, 12\]"):
        external.load(channels).graph(("ground", "cow"))


def test_files_that_are_not_there_or_damaged(channels: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such model file"):
        external.load(tmp_path / "absent.onnx")
    (tmp_path / "m.toml").rename(tmp_path / "other.toml")
    with pytest.raises(UsageError, match=r"no adapter: .*m.onnx.*Write m.toml or give --adapter"):
        external.load(channels)
    assert external.load(channels, tmp_path / "other.toml").adapter.classes == ("ground", "cow")
    (tmp_path / "m.toml").write_text("size = [")
    with pytest.raises(UsageError, match="adapter is no TOML"):
        external.load(channels)
    write_adapter(tmp_path / "m.toml", GOOD)
    channels.write_bytes(b"not a model")
    with pytest.raises(UsageError, match="OpenVINO cannot read the model"):
        external.load(channels)


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


@given(st.dictionaries(st.sampled_from([*GOOD, "agc", "dtype", "layout", "x"]), st.one_of(scalars, st.lists(scalars))))
def test_any_values_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    import tomli_w

    path = tmp_path_factory.mktemp("a") / "a.toml"
    plain = {
        key: [one for one in value if one is not None] if isinstance(value, list) else value
        for key, value in (GOOD | values).items()
        if value is not None
    }
    path.write_text(tomli_w.dumps(plain), encoding="utf-8", newline="")
    try:
        found = external.read_adapter(path)
    except EdgeunipError as error:
        assert "\n" not in str(error)
    else:
        assert len(found.mean) == len(found.std) == found.channels
