"""From a real, briefly trained run to bundles, through the real converter, quantiser and runtime."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import openvino
import pytest

from edgeunip import bundle, thermal
from edgeunip.compress import export, graph, quantise
from edgeunip.errors import BundleError, DataError, ExportError, UsageError
from edgeunip.frame import Frame
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
    return export.export(run, data, out, target="x86-cpu", int8=True, say=lambda _: None)


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
    assert {"data", "versions", "machine", "recipe", "openvino"} <= manifest.provenance.keys()
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
    calibrated = quantise.from_training_split(run, data).pictures[0]
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
    exported = graph.to_openvino(run, run.model())
    pictures = Pictures(data, data.split("val"), run.recipe.agc_parameters())
    honest = TorchModel(run.model(), run.recipe)

    def shifted(picture: np.ndarray) -> np.ndarray:
        return np.roll(honest(picture), 1, axis=0)

    with pytest.raises(ExportError, match="agrees with the model on"):
        export._check_parity(shifted, exported, pictures, run.size)


class TestCalibrationFolder:
    def write(self, folder: Path, pictures: list[np.ndarray]) -> Path:
        folder.mkdir()
        for index, picture in enumerate(pictures):
            cv2.imwrite(str(folder / f"{index:03}.png"), picture)
        return folder

    def test_real_pictures_are_taken(self, run: Run, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        frames = [rng.integers(29000, 31000, (120, 160), np.uint16) for _ in range(12)]
        found = quantise.from_folder(run, self.write(tmp_path / "set", frames))
        assert len(found.pictures) == 12 and found.pictures[0].shape == (64, 80)
        expected = thermal.fit(run.recipe.agc_parameters().picture(frames[0]), 64, 80)
        np.testing.assert_array_equal(found.pictures[0], expected)

    def test_too_few(self, run: Run, tmp_path: Path) -> None:
        folder = self.write(tmp_path / "few", [np.zeros((64, 80), np.uint8)] * 3)
        with pytest.raises(DataError, match=r"Too little to calibrate on.*3 images.*at least 10"):
            quantise.from_folder(run, folder)
        with pytest.raises(DataError, match="no such folder"):
            quantise.from_folder(run, tmp_path / "absent")

    def test_constant_pictures(self, run: Run, tmp_path: Path) -> None:
        folder = self.write(tmp_path / "gray", [np.full((64, 80), 7, np.uint8)] * 10)
        exported = graph.to_openvino(run, run.model())
        with pytest.raises(DataError, match="all of one gray"):
            quantise.int8(exported, quantise.from_folder(run, folder))
