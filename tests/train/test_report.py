"""The report of a run: files that open, of the right size, showing what they should."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.thermal import Agc
from edgeunip.train import report
from edgeunip.train.datasets import DataSet
from edgeunip.train.evaluate import Score
from edgeunip.train.loader import Pictures
from edgeunip.train.run import open_run

CLASSES = Classes(("ground", "wall", "person"), ((0, 200, 0), (60, 200, 0), (120, 200, 0)))


def read(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return np.asarray(image, np.uint8)


def test_the_files_of_a_run(whole_run: Path) -> None:
    folder = whole_run / "report"
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.png",
        "curves.png",
        "predictions.png",
        "score.json",
    ]
    assert read(folder / "predictions.png").shape == (3 * 64, 3 * 80, 3)  # three val images, three views each
    assert read(folder / "curves.png").shape[:2] == (440, 1100)
    height, width = read(folder / "confusion.png").shape[:2]
    assert (height, width) == (round(3.8 * 110), round(4.8 * 110))
    score = json.loads((folder / "score.json").read_text())
    last = json.loads((whole_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert score == last["val"]
    assert 0 <= score["miou"] <= 1
    assert score["images"] == 3


def test_predictions_show_picture_labels_and_guess(data: DataSet) -> None:
    """A predictor that sees walls everywhere; ignored pixels stay gray in both."""
    pictures = Pictures(data, data.split("val"), Agc())

    def walls(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = picture.shape
        logits = np.zeros((3, height // 4, width // 4), np.float32)
        logits[1] = 1
        return logits

    view = report.predictions(walls, pictures, (64, 80))
    assert (view.shape, view.dtype) == ((192, 240, 3), np.uint8)
    picture, label = pictures.read(0)
    plain, truth, guess = view[:64, :80], view[:64, 80:160], view[:64, 160:]
    np.testing.assert_array_equal(plain, picture[..., None].repeat(3, 2))
    same = (label == 0) | (label == 255)
    np.testing.assert_array_equal(truth[same], plain[same])
    assert (truth[~same] != plain[~same]).any(axis=1).mean() > 0.99
    np.testing.assert_array_equal(guess[label == 255], plain[label == 255])
    seen = label != 255
    expected = plain // 2 + np.array(data.classes.colours[1], np.uint8) // 2
    np.testing.assert_array_equal(guess[seen], expected[seen])
    walls_alone = label == 1
    np.testing.assert_array_equal(truth[walls_alone], guess[walls_alone])


def test_predictions_are_brought_to_the_models_size_and_limited_to_six(data: DataSet) -> None:
    pictures = Pictures(data, data.split("train"), Agc())
    shapes = set()

    def predict(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        shapes.add(picture.shape)
        return np.zeros((3, 8, 12), np.float32)

    assert report.predictions(predict, pictures, (32, 48)).shape == (6 * 32, 3 * 48, 3)
    assert shapes == {(32, 48)}


def test_tint() -> None:
    picture = np.full((1, 4), 100, np.uint8)
    ids = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(
        report.tint(picture, ids, CLASSES)[0], [[100] * 3, [80, 150, 50], [110, 150, 50], [100] * 3]
    )


def test_png_keeps_the_colours() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    decoded = cv2.imdecode(np.frombuffer(report.png(colours), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decoded[..., ::-1], colours)


def test_a_class_without_pixels(whole_run: Path, data: DataSet, tmp_path: Path, micro: None) -> None:
    """A row of the confusion matrix without a pixel is no division by zero, and None is null in the JSON."""
    run = open_run(whole_run)
    run = type(run)(tmp_path, run.recipe, run.classes, run.radiometry, run.provenance)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "lr": 0.1, "seconds": 1}\n')
    score = Score(np.array([[5, 1, 0], [0, 4, 0], [0, 0, 0]]), run.classes.names, 1)
    report.write(
        run, score, lambda picture: np.zeros((3, 16, 20), np.float32), Pictures(data, data.split("val"), Agc())
    )
    assert json.loads((tmp_path / "report" / "score.json").read_text())["iou"]["person"] is None
    assert read(tmp_path / "report" / "confusion.png").any()


@pytest.mark.parametrize("names", [("a",), tuple(f"a rather long class name {index}" for index in range(20))])
def test_a_confusion_matrix_of_any_size(names: tuple[str, ...], tmp_path: Path) -> None:
    score = Score(np.eye(len(names), dtype=np.int64), names, 1)
    (tmp_path / "c.png").write_bytes(report._confusion(score))
    assert min(read(tmp_path / "c.png").shape[:2]) >= 200
