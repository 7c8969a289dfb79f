"""Counting of MACs against layers counted by hand; runs, bundles and model files side by side."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import nncf
import numpy as np
import openvino
import pytest
from openvino import opset13 as ops

from edgeunip import pack
from edgeunip.bundle import Bundle
from edgeunip.cli import main
from edgeunip.compress import compare_report, macs
from edgeunip.compress.compare import Comparison, Row, compare, measure, open_model, short_names
from edgeunip.compress.export import export
from edgeunip.errors import RunError, UsageError
from edgeunip.scenes import synthesise
from edgeunip.train import fit
from edgeunip.train import run as runs
from edgeunip.train.cost import cost
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run
from edgeunip.train.vit import SIZES, ViTSize

SMALL = ViTSize(dim=32, depth=2, heads=2, last_heads=4)
RECIPE = Recipe(steps=2, batch=2, warmup=1, height=64, width=80, crop_height=48, crop_width=64, threads=1)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", SMALL)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("scenes") / "set"
    synthesise(folder, 20, sensor="lepton", seed=3)
    return open_data(str(folder))


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit.train(RECIPE, data, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def built(run: Run, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return export(run, data, tmp_path_factory.mktemp("b") / "small.bundle", target="x86-cpu", say=quiet)


@pytest.fixture(scope="module")
def model_file(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A threshold between the first two classes, from elsewhere, as an OpenVINO file."""
    picture = ops.parameter([1, 1, 60, 80], np.float32, name="image")
    weights = np.zeros((len(data.classes), 1, 1, 1), np.float32)
    weights[1] = 1
    out = tmp_path_factory.mktemp("x") / "threshold.xml"
    openvino.save_model(openvino.Model([ops.convolution(picture, weights, *GEOMETRY)], [picture]), out)
    names = ", ".join(f'"{name}"' for name in data.classes.names)
    out.with_suffix(".toml").write_text(f'size = [60, 80]\nmean = 128\nkind = "logits"\nclasses = [{names}]\n')
    return out


GEOMETRY: tuple[Any, ...] = ([1, 1], [0, 0], [0, 0], [1, 1])


def quiet(text: str) -> None:
    """Say nothing."""


def graph(value: Any, picture: Any) -> openvino.Model:
    return openvino.Model([value], [picture])


class TestMacs:
    def floats(self, *shape: int) -> Any:
        return ops.parameter(list(shape), np.float32)

    def weights(self, *shape: int) -> Any:
        return np.random.default_rng(0).normal(size=shape).astype(np.float32)

    def test_convolution(self) -> None:
        """3x3 from 4 to 6 channels, 10x12 pixels, stride 2: 5 * 6 * 6 outputs, 4 * 9 each."""
        picture = self.floats(1, 4, 10, 12)
        made = ops.convolution(picture, self.weights(6, 4, 3, 3), [2, 2], [1, 1], [1, 1], [1, 1])
        assert macs.count(graph(made, picture)) == macs.Macs(5 * 6 * 6 * 4 * 9, 0)

    def test_depthwise(self) -> None:
        picture = self.floats(1, 4, 10, 12)
        made = ops.group_convolution(picture, self.weights(4, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1])
        assert macs.count(graph(made, picture)).total == 4 * 10 * 12 * 9

    def test_transposed(self) -> None:
        """Each of 4 * 10 * 12 values makes 6 channels of 2x2."""
        picture = self.floats(1, 4, 10, 12)
        made = ops.convolution_backprop_data(picture, self.weights(4, 6, 2, 2), [2, 2], None, [0, 0], [0, 0])
        assert macs.count(graph(made, picture)).total == 4 * 10 * 12 * 6 * 4

    def test_grouped_transposed(self) -> None:
        picture = self.floats(1, 4, 10, 12)
        made = ops.group_convolution_backprop_data(
            picture, self.weights(2, 2, 3, 2, 2), [2, 2], pads_begin=[0, 0], pads_end=[0, 0]
        )
        assert macs.count(graph(made, picture)).total == 4 * 10 * 12 * 3 * 4

    @pytest.mark.parametrize("transposed", [False, True])
    def test_product(self, transposed: bool) -> None:
        """Two heads, 7 queries and 5 keys of 3 values."""
        left = self.floats(1, 2, 3, 7) if transposed else self.floats(1, 2, 7, 3)
        made = ops.matmul(left, self.weights(1, 2, 3, 5), transposed, False)
        assert macs.count(graph(made, left)).total == 2 * 7 * 5 * 3

    def test_fused_attention(self) -> None:
        queries = self.floats(1, 2, 7, 4)
        made = ops.scaled_dot_product_attention(queries, self.weights(1, 2, 5, 4), self.weights(1, 2, 5, 6))
        assert macs.count(graph(made, queries)).total == 2 * 7 * 5 * (4 + 6)

    def test_the_model_is_what_its_layers_cost(self, run: Run, built: Bundle) -> None:
        """The count of torch's layers and that of the graph differ by constant pooling matrices alone."""
        layers = cost(run.recipe, run.classes)
        found = macs.count(openvino.Core().read_model(built.path / "model.xml"))
        expected = layers.macs + layers.attention_macs
        assert expected <= found.total < 1.05 * expected
        assert found.int8 == 0

    def test_int8_by_nncf_is_seen_and_what_stays_float_is_not(self) -> None:
        picture = self.floats(1, 4, 10, 12)
        first = ops.relu(ops.convolution(picture, self.weights(6, 4, 3, 3), *GEOMETRY))
        second = ops.convolution(first, self.weights(2, 6, 1, 1), *GEOMETRY)
        second.set_friendly_name("last")
        rng = np.random.default_rng(1)
        pictures = [rng.normal(size=(1, 4, 10, 12)).astype(np.float32) for _ in range(3)]
        scope = nncf.IgnoredScope(names=["last"])
        made = nncf.quantize(graph(second, picture), nncf.Dataset(pictures), subset_size=3, ignored_scope=scope)
        heavy, light = 6 * 8 * 10 * 4 * 9, 2 * 8 * 10 * 6
        assert macs.count(made) == macs.Macs(heavy + light, heavy)
        assert macs.count(made).int8_share == heavy / (heavy + light)

    def test_int8_by_q_and_dq_is_seen(self, tmp_path: Path) -> None:
        """Weights stored as bytes and an activation between Q and DQ, as an ONNX for TensorRT has them."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        names = {"w": np.ones((2, 3, 1, 1), np.int8), "s": np.float32(0.1), "z": np.int8(0)}
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
            helper.make_node("Conv", ["xf", "wf"], ["y"]),
            helper.make_node("Conv", ["y", "wf2"], ["out"]),
        ]
        tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in names.items()]
        tensors.append(numpy_helper.from_array(np.ones((1, 2, 1, 1), np.float32), "wf2"))
        ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, [1, 3, 4, 5]), ("out", 1, [1, 1, 4, 5]))]
        made = helper.make_graph(nodes, "qdq", ends[:1], ends[1:], tensors)
        assert TensorProto.FLOAT == 1
        onnx.save(
            helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "q.onnx"
        )
        found = macs.count(openvino.Core().read_model(tmp_path / "q.onnx"))
        assert found == macs.Macs(4 * 5 * (2 * 3 + 2), 4 * 5 * 2 * 3)

    def test_a_picture_of_bytes_alone_is_no_int8(self) -> None:
        picture = ops.parameter([1, 1, 10, 12], np.uint8)
        value = ops.multiply(ops.subtract(ops.convert(picture, "f32"), np.float32(97)), np.float32(0.02))
        assert macs.count(graph(ops.convolution(value, self.weights(2, 1, 3, 3), *GEOMETRY), picture)).int8 == 0


@pytest.fixture(scope="module")
def found(run: Run, built: Bundle, model_file: Path) -> Comparison:
    return compare([run.path, built.path, model_file], threads=1, seconds=0.1, say=quiet)


def test_run_bundle_and_file_are_measured_alike(found: Comparison, run: Run, built: Bundle, data: DataSet) -> None:
    first, second, third = found.rows
    assert [row.kind for row in found.rows] == ["run", "bundle", "external"]
    assert (second.target, second.precision, first.precision, third.precision) == ("x86-cpu", *["float32"] * 3)
    assert first.score == second.score, "one graph, one metric"
    (torch,) = runs.score(run, data, "test")
    assert first.score is not None and first.score["miou"] == pytest.approx(torch.miou, abs=2e-3)
    assert first.macs == second.macs > 1e6 and third.macs == 60 * 80 * len(data.classes)
    assert first.bytes == (run.path / "weights.safetensors").stat().st_size
    assert second.bytes == sum((built.path / name).stat().st_size for name in ("model.xml", "model.bin"))
    assert (third.height, third.width) == (60, 80)
    assert found.threads == 1 and found.data == data.source and first.engine.startswith("OpenVINO ")


def test_a_model_file_is_scored_by_the_metric(found: Comparison, data: DataSet) -> None:
    """The threshold's IoU, computed here from the pictures and labels themselves."""
    score = found.rows[2].score
    assert score is not None and score["images"] == len(data.split("test"))
    hit = union = 0
    for sample in data.split("test"):
        picture = cv2.resize(found_picture(data, sample), (80, 60), interpolation=cv2.INTER_AREA)
        label = data.read_label(sample)
        values = cv2.resize(picture.astype(np.float32) - 128, label.shape[::-1], interpolation=cv2.INTER_LINEAR)
        warm, truth, valid = values > 0, label == 1, label != data.classes.ignore
        hit += int((warm & truth & valid).sum())
        union += int(((warm | truth) & valid).sum())
    assert score["iou"][data.classes.names[1]] == pytest.approx(hit / union, abs=0.02)


def found_picture(data: DataSet, sample: Any) -> Any:
    return RECIPE.agc_parameters().picture(data.read_image(sample), data.radiometry)


def test_speeds_are_ratios_of_the_same_rounds(found: Comparison) -> None:
    assert found.rows[0].speed == 1.0
    assert min(row.behind for row in found.rows) == 1.0
    for row in found.rows:
        assert 0 < row.median_ms <= row.p90_ms
    assert found.rows[2].behind == 1.0, "one 1x1 convolution is faster than a ViT"


def test_rounds_hold_calls_of_every_model() -> None:
    """A graph of 64 times the work takes visibly longer, whichever comes first."""

    def product(size: int) -> openvino.Model:
        picture = ops.parameter([1, 1, size, size], np.uint8)
        return graph(ops.matmul(value := ops.convert(picture, "f32"), value, False, True), picture)

    rounds = measure([product(64), product(512)], threads=1, seconds=0.02)
    assert len(rounds) == 10 and all(len(calls) >= 3 for one in rounds for calls in one)
    assert all(np.median(fast) < np.median(slow) for fast, slow in rounds)


def test_without_data_files_are_timed_alone(model_file: Path) -> None:
    made = compare([model_file], threads=1, seconds=0.05, say=quiet)
    assert made.rows[0].score is None and made.data == ""
    assert "mIoU" not in compare_report.describe(made)
    assert compare_report.plot(made)[1:4] == b"PNG"


def test_a_file_for_speed_only_stands_beside_scored_ones(run: Run, model_file: Path, tmp_path: Path) -> None:
    speed = tmp_path / "speed.xml"
    for suffix in (".xml", ".bin"):
        speed.with_suffix(suffix).write_bytes(model_file.with_suffix(suffix).read_bytes())
    adapter = tmp_path / "other.toml"
    adapter.write_text('size = [60, 80]\nkind = "none"\n')
    made = compare([run.path, speed], threads=1, seconds=0.05, adapter=adapter, say=quiet)
    assert [row.score is None for row in made.rows] == [False, True]
    assert "speed" not in compare_report.describe(made).split("IoU, %  ")[-1]


def test_a_packed_bundle_is_that_bundle(built: Bundle, tmp_path: Path) -> None:
    packed = tmp_path / "small.edgeunip"
    pack.pack(built.path, packed)
    loose, tight = compare([built.path, packed], threads=1, seconds=0.05, say=quiet).rows
    assert tight.score == loose.score and tight.bytes == loose.bytes and tight.kind == "bundle"


def test_other_classes_are_refused(run: Run, data: DataSet) -> None:
    names = ("udder", *data.classes.names[1:])
    other = replace(data, classes=replace(data.classes, names=names))
    with pytest.raises(UsageError, match=r"other classes than the data set: .*small.*the data set has udder"):
        compare([run.path], other, seconds=0.05, say=quiet)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Not a training run"):
        open_model(tmp_path)


def test_names_are_as_long_as_they_must() -> None:
    paths = [Path("/a/x/seed-0"), Path("/a/y/seed-0"), Path("/a/y/edge-s.bundle"), Path("/m/yolo.onnx")]
    assert short_names(paths) == ["x/seed-0", "y/seed-0", "edge-s", "yolo"]
    assert short_names([Path("/a/x"), Path("/a/x")]) == ["x", "x"]


def test_the_report(found: Comparison, tmp_path: Path) -> None:
    compare_report.write(tmp_path, found)
    assert json.loads((tmp_path / "compare.json").read_text())["rows"][0]["macs"] == found.rows[0].macs
    rows = list(csv.DictReader(io.StringIO((tmp_path / "compare.csv").read_text())))
    assert [float(row["median_ms"]) for row in rows] == [row.median_ms for row in found.rows]
    assert "| threshold |" in (tmp_path / "compare.md").read_text()
    page = (tmp_path / "compare.html").read_text()
    assert "threshold" in page and 'src="data:image/png;base64,' in page and "http" not in page
    picture = cv2.imdecode(np.frombuffer((tmp_path / "compare.png").read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape[1] > 800


def test_models_close_together_can_be_drawn() -> None:
    """Six models within a point and a few milliseconds: there is a place for each name, or it overlaps."""
    score = {"miou": 0.7, "iou": {"a": 0.7}, "images": 3}
    row = Row("a", "run", "", "float32", 64, 80, score, 10, 11, 1, 1, 1, 1, 0.0, "engine")
    rows = [
        replace(row, name=f"model-{at}", median_ms=10 + at / 5, precision=p)
        for at in range(3)
        for p in ("float32", "int8")
    ]
    assert compare_report.plot(Comparison(tuple(rows), "d", "test", 2, "cpu"))[1:4] == b"PNG"


def test_the_command(
    model_file: Path, built: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", built.path, model_file, "--threads", "1", "--seconds", "0.05", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["edgeunip", *map(str, words), "--json", str(tmp_path / "figures.json")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "mIoU, %" in shown and "threshold" in shown
    assert len(json.loads((tmp_path / "figures.json").read_text())["rows"]) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"compare.{end}" for end in ("csv", "html", "json", "md", "png")
    }


def test_the_command_tells_a_wrong_file_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgeunip", "compare", str(tmp_path / "absent.onnx")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"edgeunip: No such model file: {tmp_path / 'absent.onnx'}\n"
