"""From a real, briefly trained run to bundles, through the real converter, quantiser and runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import openvino
import pytest

from edgeunip import bundle, thermal
from edgeunip.compress import calibration, export, graph, parity
from edgeunip.compress.qdq import rules
from edgeunip.compress.search import Budget
from edgeunip.compress.targets import TARGETS
from edgeunip.errors import BundleError, DataError, ExportError, InferenceError, UsageError
from edgeunip.frame import Frame
from edgeunip.runtimes.onnx_cpu import OnnxRuntime
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime
from edgeunip.runtimes.segment import Segmenter
from edgeunip.runtimes.verify import verify
from edgeunip.scenes import synthesise
from edgeunip.train import fit
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.evaluate import evaluate
from edgeunip.train.loader import Pictures
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run, TorchModel

INT8 = export.Int8(Budget(max_drop=100, min_speedup=0))  # untrained and tiny: nothing here is about gain
RECIPE = Recipe(steps=3, batch=2, warmup=1, height=64, width=80, crop_height=48, crop_width=64, threads=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    folder = tmp_path_factory.mktemp("scenes") / "set"
    synthesise(folder, 24, sensor="lepton", seed=3)
    return open_data(str(folder))


@pytest.fixture(scope="module")
def run(data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit.train(RECIPE, data, tmp_path_factory.mktemp("runs") / "small")


@pytest.fixture(scope="module")
def float32(run: Run, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    return export.export(run, data, tmp_path_factory.mktemp("f") / "f.bundle", target="x86-cpu", say=lambda _: None)


@pytest.fixture(scope="module")
def int8(run: Run, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> bundle.Bundle:
    out = tmp_path_factory.mktemp("q") / "q.bundle"
    return export.export(run, data, out, target="x86-cpu", int8=INT8, say=lambda _: None)


def operations(built: bundle.Bundle) -> list[str]:
    model = openvino.Core().read_model(built.path / "model.xml")
    return [operation.get_type_name() for operation in model.get_ordered_ops()]


def test_manifest(float32: bundle.Bundle, run: Run) -> None:
    manifest = bundle.load(float32.path).manifest
    assert (manifest.height, manifest.width) == (64, 80)
    assert (manifest.precision, manifest.runtime, manifest.target) == ("float32", "openvino", "x86-cpu")
    assert manifest.agc == run.recipe.agc_parameters()
    assert manifest.classes == run.classes
    assert manifest.radiometry == thermal.Linear(0.01, -273.15)
    assert manifest.calibration is None
    assert manifest.accuracy["float32"]["miou"] == pytest.approx(manifest.accuracy["torch"]["miou"], abs=2e-3)
    assert {"data", "versions", "machine", "recipe", "exporters"} <= manifest.provenance.keys()
    assert len(manifest.provenance["data"]["fingerprints"]["train"]) == 64


def test_the_graph_is_the_model(float32: bundle.Bundle, run: Run, data: DataSet) -> None:
    """The crop's position table is resampled to the export size: logits agree to float noise."""
    torch_model, runtime = TorchModel(run.model(), run.recipe), OpenVinoRuntime.from_bundle(float32)
    rng = np.random.default_rng(0)
    for _ in range(3):
        picture = rng.integers(0, 256, (64, 80), np.uint8)
        np.testing.assert_allclose(runtime(picture), torch_model(picture), atol=2e-3)


def test_no_bicubic_stays_in_the_graph(float32: bundle.Bundle) -> None:
    """The light head enlarges twice, bilinear; the position table adds no third resize."""
    assert sum(name == "Interpolate" for name in operations(float32)) == 2


def test_int8_is_int8(int8: bundle.Bundle, float32: bundle.Bundle) -> None:
    manifest = int8.manifest
    assert manifest.precision == "int8"
    assert operations(int8).count("FakeQuantize") > 50 and "FakeQuantize" not in operations(float32)
    assert {"torch", "float32", "int8"} <= manifest.accuracy.keys()
    assert manifest.calibration is not None
    assert manifest.calibration["source"] == "train split"
    assert manifest.calibration["images"] > 10 and len(manifest.calibration["sha256"]) == 64
    assert sum(manifest.calibration["histogram"]) == pytest.approx(1, abs=1e-4)
    assert int8.path.joinpath("model.bin").stat().st_size < 0.4 * float32.path.joinpath("model.bin").stat().st_size


def test_golden_sample_verifies_and_its_control_fails(int8: bundle.Bundle, tmp_path: Path) -> None:
    assert min(verify(int8.path).agreement) == 1.0
    golden = int8.golden()
    wrong = bundle.Golden(golden.counts, (golden.class_maps + 1) % len(int8.manifest.classes))
    files = {name: (int8.path / name).read_bytes() for name in int8.manifest.files}
    forged = bundle.save(tmp_path / "forged.bundle", int8.manifest, {**files, bundle.GOLDEN: wrong.to_bytes()})
    with pytest.raises(BundleError, match="golden"):
        verify(forged.path)


def test_bundle_and_run_score_alike(float32: bundle.Bundle, run: Run, data: DataSet) -> None:
    pictures = Pictures(data, data.split("test"), run.recipe.agc_parameters())
    torch_score = evaluate(TorchModel(run.model(), run.recipe), pictures, size=run.size)
    bundle_score = evaluate(OpenVinoRuntime.from_bundle(float32), pictures, size=run.size)
    differing = np.abs(torch_score.confusion - bundle_score.confusion).sum() / 2
    assert differing < 1e-3 * torch_score.confusion.sum()


def test_one_preprocessing(run: Run, data: DataSet, float32: bundle.Bundle) -> None:
    """Training, calibration and stream see the same picture, bit for bit."""
    sample = data.split("train")[0]
    counts = data.read_image(sample)
    trained, _ = Pictures(data, [sample], run.recipe.agc_parameters())[0]
    calibrated = calibration.from_training_split(run, data).pictures[0]
    streamed = Segmenter(float32.manifest).prepare(Frame(counts, 0, 0, radiometry=data.radiometry))
    np.testing.assert_array_equal(streamed.picture, trained)
    np.testing.assert_array_equal(streamed.model_picture, calibrated)
    np.testing.assert_array_equal(calibrated, thermal.fit(trained, *run.size))
    assert trained.std() > 10, "negative control: a blank picture would equal anything"


def test_same_run_same_bundle(float32: bundle.Bundle, run: Run, data: DataSet, tmp_path: Path) -> None:
    again = export.export(run, data, tmp_path / "again.bundle", target="x86-cpu", say=lambda _: None)
    assert again.digest == float32.digest


def test_unknown_target_names_the_known(run: Run, data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown target: x86-gpu.*x86-cpu"):
        export.export(run, data, tmp_path / "b.bundle", target="x86-gpu")
    assert not list(tmp_path.iterdir())


def test_parity_gate_refuses_another_model(run: Run, data: DataSet) -> None:
    exported = graph.to_onnx(run, run.model())
    pictures = Pictures(data, data.split("val"), run.recipe.agc_parameters())
    shown = [thermal.fit(pictures.read(index)[0], *run.size) for index in range(2)]
    honest = TorchModel(run.model(), run.recipe)
    found = parity.check(honest, exported, shown)
    assert [engine.engine for engine in found] == ["onnxruntime", "openvino"]
    assert all(engine.agreement == 1.0 and engine.difference < 1e-4 for engine in found)

    def shifted(picture: np.ndarray) -> np.ndarray:
        return np.roll(honest(picture), 1, axis=0)

    with pytest.raises(ExportError, match=r"is not the model on onnxruntime: .* of the pixels agree"):
        parity.check(shifted, exported, shown)
    with pytest.raises(ExportError, match=r"a logit differs by"):
        parity.check(lambda picture: honest(picture) * np.float32(1.1), exported, shown)


class TestCalibrationFolder:
    def write(self, folder: Path, pictures: list[np.ndarray]) -> Path:
        folder.mkdir()
        for index, picture in enumerate(pictures):
            cv2.imwrite(str(folder / f"{index:03}.png"), picture)
        return folder

    def test_real_pictures_are_taken(self, run: Run, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        frames = [rng.integers(29000, 31000, (120, 160), np.uint16) for _ in range(12)]
        found = calibration.from_folder(run, self.write(tmp_path / "set", frames))
        assert len(found.pictures) == 12 and found.pictures[0].shape == (64, 80)
        expected = thermal.fit(run.recipe.agc_parameters().picture(frames[0]), 64, 80)
        np.testing.assert_array_equal(found.pictures[0], expected)

    def test_too_few(self, run: Run, tmp_path: Path) -> None:
        folder = self.write(tmp_path / "few", [np.zeros((64, 80), np.uint8)] * 3)
        with pytest.raises(DataError, match=r"Too little to calibrate on.*3 images.*at least 10"):
            calibration.from_folder(run, folder)
        with pytest.raises(DataError, match="no such folder"):
            calibration.from_folder(run, tmp_path / "absent")

    def test_constant_pictures(self, run: Run, tmp_path: Path) -> None:
        folder = self.write(tmp_path / "gray", [np.full((64, 80), 7, np.uint8)] * 10)
        with pytest.raises(DataError, match="all of one gray"):
            calibration.from_folder(run, folder)


def build(run: Run, data: DataSet, out: Path, target: str, **asked: Any) -> bundle.Bundle:
    return export.export(run, data, out, target=target, say=lambda _: None, **asked)


@pytest.mark.parametrize(
    ("target", "runtime", "precision"),
    [
        ("onnx", "onnxruntime", "float32"),
        ("jetson-orin", "tensorrt", "float16"),
        ("jetson-xavier", "tensorrt", "float32"),
    ],
)
def test_onnx_targets(run: Run, data: DataSet, tmp_path: Path, target: str, runtime: str, precision: str) -> None:
    built = build(run, data, tmp_path / "o.bundle", target)
    assert (built.manifest.runtime, built.manifest.precision) == (runtime, precision)
    assert set(built.manifest.files) == {"golden.npz", "model.onnx"}
    model = onnx.load(built.path / "model.onnx")
    told = json.loads({entry.key: entry.value for entry in model.metadata_props}["edgeunip"])
    assert told["name"] == run.path.name and told["classes"] == run.classes.to_json()
    assert "files" not in told
    assert model.opset_import[0].version == TARGETS[target].opset
    halves = sum(item.data_type == onnx.TensorProto.FLOAT16 for item in model.graph.initializer)
    assert (halves > 50) == (precision == "float16")
    assert built.manifest.accuracy[precision]["miou"] == pytest.approx(
        built.manifest.accuracy["torch"]["miou"], abs=5e-3
    )


def test_jetson_int8_is_q_dq(run: Run, data: DataSet, tmp_path: Path) -> None:
    built = build(run, data, tmp_path / "j.bundle", "jetson-orin", int8=INT8)
    model = onnx.load(built.path / "model.onnx")
    assert rules.violations(model) == []
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") > 50
    quantisation = built.manifest.quantisation
    assert quantisation is not None and quantisation["method"] == "qdq"
    assert set(quantisation["layers"].values()) == {"int8", "float16"}
    assert quantisation["layers"]["backbone.blocks.3.attn.qkv"] == "int8"
    assert built.manifest.capability["speed"] == "int8 against float: left to the device"
    report = json.loads((tmp_path / "j.export.json").read_text())
    assert report["bundle"] == built.digest and report["attempts"][0]["speedup"] is None
    judged = verify(built.path)
    assert judged.runtime.endswith("CPU, in place of tensorrt") and min(judged.agreement) == 1.0
    with pytest.raises(InferenceError, match=r"The bundle is for jetson-orin: this edgeunip has no runtime 'tensorrt'"):
        open_runtime(built)


def test_arm_is_float16(run: Run, data: DataSet, tmp_path: Path) -> None:
    built = build(run, data, tmp_path / "a.bundle", "arm-cpu")
    assert built.manifest.precision == "float16" and min(verify(built.path).agreement) > 0.99
    with pytest.raises(UsageError, match=r"arm-cpu has no int8.*Leave out --int8"):
        build(run, data, tmp_path / "b.bundle", "arm-cpu", int8=INT8)


def test_onnx_bundle_runs_and_verifies(run: Run, data: DataSet, tmp_path: Path) -> None:
    built = build(run, data, tmp_path / "o.bundle", "onnx")
    assert min(verify(built.path).agreement) == 1.0
    picture = np.random.default_rng(0).integers(0, 256, (64, 80), np.uint8)
    np.testing.assert_allclose(
        OnnxRuntime.from_bundle(built)(picture), TorchModel(run.model(), run.recipe)(picture), atol=2e-3
    )
    with pytest.raises(InferenceError, match=r"The model takes uint8 \(64, 80\), the picture is uint8 \(32, 32\)"):
        OnnxRuntime.from_bundle(built)(picture[:32, :32])


def test_int8_that_gains_nothing_is_refused_or_left_out(run: Run, data: DataSet, tmp_path: Path) -> None:
    asked = export.Int8(Budget(max_drop=100, min_speedup=1e6))
    with pytest.raises(ExportError, match=r"No int8 within the budget.*1e\+06 times float.*times as fast as float"):
        build(run, data, tmp_path / "b.bundle", "x86-cpu", int8=asked)
    assert not list(tmp_path.iterdir())
    built = build(run, data, tmp_path / "b.bundle", "x86-cpu", int8=replace(asked, on_miss="float"))
    assert built.manifest.precision == "float32" and built.manifest.quantisation is None


def test_int8_twice_is_the_same_bundle(int8: bundle.Bundle, run: Run, data: DataSet, tmp_path: Path) -> None:
    assert build(run, data, tmp_path / "again.bundle", "x86-cpu", int8=INT8).digest == int8.digest


def test_what_is_no_bundle_is_not_replaced(run: Run, data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(BundleError, match="Will not replace what is no bundle"):
        build(run, data, tmp_path / "mine", "x86-cpu")
