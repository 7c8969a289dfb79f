"""Colour and depth through the path of thermal images."""

from __future__ import annotations

from pathlib import Path

import cv2
import dataset_trees
import numpy as np
import pytest
import torch
from dataset_trees import encode, put
from training import SPLITS, log, make_data, recipe, scene

from edgeunip import scoring
from edgeunip.compress import export
from edgeunip.errors import DataError, UsageError
from edgeunip.thermal import Agc
from edgeunip.train import check, fit, report
from edgeunip.train import run as runs
from edgeunip.train.augment import Augmentation, planes
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.evaluate import evaluate
from edgeunip.train.loader import Pictures
from edgeunip.train.run import TorchModel

HUES = np.array([[30, 90, 160], [120, 60, 20], [200, 210, 90]], np.uint8)  # by class; their gray levels are mixed


def stems() -> list[str]:
    return [f"{split}{index}" for split, count in SPLITS.items() for index in range(count)]


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = make_data(tmp_path_factory.mktemp("colour"))
    rng = np.random.default_rng(0)
    for seed, stem in enumerate(stems(), start=1):
        label = scene(seed)[1]
        image = HUES[np.where(label == 255, 1, label)] + rng.normal(0, 6, (*label.shape, 3))
        put(root / f"images/{stem}.png", encode(image.clip(0, 255).astype(np.uint8)[..., ::-1]))
    return open_data(str(root)).seen_as("rgb")


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    root = make_data(tmp_path_factory.mktemp("depth"))
    for seed, stem in enumerate(stems(), start=1):
        millimetres = scene(seed)[0].astype(np.uint16) * 40 + 500
        put(root / f"images/{stem}.png", encode(millimetres))
    return open_data(str(root)).seen_as("depth")


def pictures(data: DataSet, split: str = "val") -> Pictures:
    return Pictures(data, data.split(split), Agc())


def test_colours_are_read_red_first(colour: DataSet) -> None:
    picture, label = pictures(colour)[0]
    assert (picture.shape, picture.dtype) == ((64, 80, 3), np.uint8)
    np.testing.assert_allclose(picture[label == 0].mean(0), HUES[0], atol=1.5)


def test_a_gray_file_gives_three_equal_channels_and_alpha_is_dropped(tmp_path: Path) -> None:
    data = open_data(str(dataset_trees.folder(tmp_path))).seen_as("rgb")
    gray = data.read_image(data.split("train")[0])
    assert gray.shape == (12, 16, 3)
    assert (gray == gray[..., :1]).all()
    rgba = np.dstack([np.full((4, 5), value, np.uint8) for value in (1, 2, 3, 99)])
    assert data.decode_image(encode(rgba), Path("x.png"))[0, 0].tolist() == [3, 2, 1]
    with pytest.raises(DataError, match=r"^The colour image holds uint16; 8 bits a channel are read: x\.png$"):
        data.decode_image(encode(np.zeros((4, 5, 3), np.uint16)), Path("x.png"))


def test_mfnets_colours_are_its_first_three_channels(tmp_path: Path) -> None:
    rgbt = np.dstack([np.full((12, 16), value, np.uint8) for value in (3, 2, 1, 77)])  # as OpenCV orders them
    put(tmp_path / "images/00001D.png", encode(rgbt))
    put(tmp_path / "labels/00001D.png", encode(dataset_trees.label(*range(9))))
    for name in ("train", "val"):
        put(tmp_path / f"{name}.txt", b"00001D\n")
    data = open_data(f"mfnet:{tmp_path}")
    sample = data.split("train")[0]
    assert data.read_image(sample)[0, 0] == 77
    assert data.seen_as("rgb").read_image(sample)[0, 0].tolist() == [1, 2, 3]


def test_check_knows_colour(colour: DataSet) -> None:
    """The same images are a defect each where thermal counts are expected."""
    assert check.check(colour).defects == ()
    as_thermal = check.check(colour.seen_as("thermal")).defects
    assert len(as_thermal) == sum(SPLITS.values())
    assert {defect.kind for defect in as_thermal} == {"colour image"}


def test_unknown_modality(colour: DataSet) -> None:
    with pytest.raises(UsageError, match=r"^Unknown modality: rbg\. Did you mean rgb\?$"):
        colour.seen_as("rbg")


def test_augmentation_treats_all_channels_alike(colour: DataSet) -> None:
    """Three equal channels stay equal, and each is what the one channel alone becomes."""
    picture, label = pictures(colour)[0]
    gray = picture[..., 1]
    augment = Augmentation(64, 80, (96, 64), 255, recipe(focus=0))
    for seed in range(20):
        one, labels = augment(gray, label, np.random.default_rng(seed))
        three, same = augment(np.dstack([gray] * 3), label, np.random.default_rng(seed))
        assert (one.shape, three.shape) == ((1, 96, 64), (3, 96, 64))
        np.testing.assert_array_equal(labels, same)
        np.testing.assert_allclose(three, np.repeat(one, 3, axis=0), atol=1e-6)
    hues, _ = augment(picture, label, np.random.default_rng(0))
    assert np.abs(hues[0] - hues[2]).max() > 0.5


def test_planes() -> None:
    assert planes(np.zeros((2, 3), np.uint8)).shape == (1, 2, 3)
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert planes(image).flags.c_contiguous
    assert planes(image)[2, 1, 3] == image[1, 3, 2]


@pytest.mark.usefixtures("micro")
def test_slide_equals_whole_where_one_window_fits(colour: DataSet) -> None:
    torch.manual_seed(0)
    asked = fit.resolve(recipe(modality="rgb"), colour)
    predict = TorchModel(runs.build_model(asked, colour.classes).eval(), asked)
    whole, slid = (evaluate(predict, pictures(colour), size=(64, 80), mode=mode) for mode in ("whole", "slide"))
    np.testing.assert_array_equal(whole.confusion, slid.confusion)
    evaluate(predict, pictures(colour), size=(48, 48), mode="slide")


@pytest.mark.usefixtures("micro")
def test_an_rgb_run(colour: DataSet, tmp_path: Path) -> None:
    """Train, resume-proof provenance, report, eval; no export."""
    run = fit.train(recipe(modality="rgb", lr=3e-3), colour.seen_as("thermal"), tmp_path / "run")
    model = run.model()
    assert model.backbone.channels == 3
    assert model(torch.zeros(1, 3, 64, 80)).shape == (1, 3, 16, 20)
    losses = [line["loss"] for line in log(run.path) if "loss" in line]
    assert losses[-1] < losses[0]
    drawn = cv2.imread(str(run.path / "report/predictions.png"))
    assert drawn.shape == (3 * 64, 3 * 80, 3)
    np.testing.assert_array_equal(drawn[:64, :80, ::-1], pictures(colour)[0][0])
    assert run.data().modality == "rgb"
    found = scoring.score(run.path, None, splits=None, split="test", mode="whole")
    assert found["images"] == 3 and 0 < found["miou"] <= 1
    with pytest.raises(UsageError) as told:
        export.export(run, run.data(), tmp_path / "bundle", target="x86-cpu")
    why = "it was trained on colour images, and bundles are for cameras of one channel"
    assert str(told.value) == f"The run cannot be exported: {run.path} ({why})"


@pytest.mark.usefixtures("micro")
def test_a_depth_run_is_a_thermal_run_with_another_word(
    depth: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "write", lambda *_: None)
    runs_of = [fit.train(recipe(modality=modality), depth, tmp_path / modality) for modality in ("depth", "thermal")]
    assert [run.recipe.modality for run in runs_of] == ["depth", "thermal"]
    first, second = ((run.path / "weights.safetensors").read_bytes() for run in runs_of)
    assert first == second
    picture, _ = pictures(depth)[0]
    assert (picture.shape, picture.dtype, int(picture.min()), int(picture.max())) == ((64, 80), np.uint8, 0, 255)
