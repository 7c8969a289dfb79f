"""Scores of predictors whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dataset_trees import encode, put
from numpy.typing import NDArray
from training import recipe

from edgeunip.classes import Classes
from edgeunip.errors import DataError
from edgeunip.thermal import Agc
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.evaluate import Confusion, evaluate, evaluate_deployed
from edgeunip.train.loader import Pictures
from edgeunip.train.run import TorchModel, open_run

NAMES = ("a", "b", "c", "d")
STRIPES = np.array([0, 1, 2, 1, 0], np.uint8).repeat(16)[None].repeat(64, 0)  # class d is nowhere
IGNORED_ROWS = 8


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """Three images of stripes whose gray is 60 times the class; the top rows are ignored."""
    root = tmp_path_factory.mktemp("stripes")
    label = STRIPES.copy()
    label[:IGNORED_ROWS] = 255
    for split in ("train", "val", "test"):
        put(root / f"{split}.txt", "\n".join(f"{split}{index}" for index in range(3)).encode())
        for index in range(3):
            put(root / "images" / f"{split}{index}.png", encode(60 * STRIPES + np.uint8(index)))
            put(root / "labels" / f"{split}{index}.png", encode(label))
    classes = [{"name": name, "rgb": [0, 0, 0]} for name in NAMES]
    put(root / "classes.json", json.dumps({"classes": classes}).encode())
    return PlainPictures(open_data(str(root)))


class PlainPictures(Pictures):
    """Shows the model the counts themselves, so that a predictor can know the class from the gray."""

    def __init__(self, data: DataSet) -> None:
        super().__init__(data, data.split("val"), Agc())

    def read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        sample = self.samples[index]
        return self.data.read_image(sample).astype(np.uint8), self.data.read_label(sample)


class Oracle:
    """Tells the class of each 4 x 4 block from its gray; ``wrong_rows`` at the top are told to be class d."""

    def __init__(self, *, wrong_rows: int = 0, never: int | None = None) -> None:
        self.wrong_rows, self.never, self.shapes = wrong_rows, never, set[tuple[int, ...]]()

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert picture.dtype == np.uint8
        self.shapes.add(picture.shape)
        height, width = picture.shape
        blocks = picture.reshape(height // 4, 4, width // 4, 4).mean((1, 3))
        ids = np.clip(np.round(blocks / 60), 0, 3).astype(int)
        if self.never is not None:
            ids[ids == self.never] = 0
        ids[: self.wrong_rows // 4] = 3
        return np.moveaxis(np.eye(4, dtype=np.float32)[ids], -1, 0)


def test_a_perfect_predictor(stripes: Pictures) -> None:
    oracle, steps = Oracle(), list[int]()
    score = evaluate(oracle, stripes, size=(64, 80), progress=steps.append)
    assert score.iou == {"a": 1.0, "b": 1.0, "c": 1.0, "d": None}
    assert (score.miou, score.accuracy, score.images) == (1.0, 1.0, 3)
    assert score.confusion.sum() == 3 * (64 - IGNORED_ROWS) * 80
    assert score.confusion.dtype == np.int64
    assert oracle.shapes == {(64, 80)}
    assert steps == [1, 2, 3]


def test_the_picture_is_brought_to_the_model(stripes: Pictures) -> None:
    oracle = Oracle()
    assert evaluate(oracle, stripes, size=(128, 160)).miou == pytest.approx(1.0)
    assert oracle.shapes == {(128, 160)}


def test_ignored_pixels_count_for_nothing(stripes: Pictures) -> None:
    """The predictor is wrong there: in 8 of 64 rows nothing happens, in 16 eight rows are mistakes.

    Between 1/4 maps bilinear enlarging moves a border by nothing: both sides are certain.
    """
    assert evaluate(Oracle(wrong_rows=IGNORED_ROWS), stripes, size=(64, 80)).miou == 1.0
    score = evaluate(Oracle(wrong_rows=16), stripes, size=(64, 80))
    assert score.accuracy == pytest.approx(48 / 56)
    assert score.iou["d"] == 0.0  # predicted, though nowhere to be found: it counts
    assert score.miou == pytest.approx((3 * 48 / 56 + 0) / 4)


def test_a_class_that_is_never_predicted(stripes: Pictures) -> None:
    """Class c, 16 of 80 columns, is taken for a, which has 32."""
    score = evaluate(Oracle(never=2), stripes, size=(64, 80))
    assert score.iou == {"a": pytest.approx(32 / 48), "b": 1.0, "c": 0.0, "d": None}
    assert score.accuracy == pytest.approx(64 / 80)
    assert score.confusion[2, 0] == 3 * 56 * 16
    told = score.to_json()
    assert told["iou"]["d"] is None
    assert told["images"] == 3
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_slide(stripes: Pictures) -> None:
    """A window of 32 x 32 over pictures brought to 32 x 40: two windows each, the same answer."""
    oracle = Oracle()
    score = evaluate(oracle, stripes, size=(32, 32), mode="slide")
    assert oracle.shapes == {(32, 32)}
    assert score.accuracy == 1.0
    calls = list[int]()

    def counted(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(1)
        return oracle(picture)

    evaluate(counted, stripes, size=(32, 32), mode="slide")
    assert len(calls) == 2 * 3
    wrong = evaluate(Oracle(wrong_rows=4), stripes, size=(32, 32), mode="slide")  # 4 of 32 rows are 8 of 64: ignored
    assert wrong.accuracy == pytest.approx(1.0, abs=0.005)  # where three classes meet, enlarging rounds a corner


def test_whole_squeezes_where_slide_does_not(stripes: Pictures) -> None:
    """Negative control: squeezed into 32 x 32 a stripe is 6.4 columns, and the blocks no longer fit."""
    assert evaluate(Oracle(), stripes, size=(32, 32)).accuracy < 0.99


def test_streamed(stripes: Pictures) -> None:
    """Decided at a quarter, enlarged to the nearest: of a perfect predictor the same."""
    assert evaluate_deployed(Oracle(), stripes, size=(64, 80))[1].miou == 1.0
    _, wrong = evaluate_deployed(Oracle(wrong_rows=16), stripes, size=(64, 80))
    assert wrong.accuracy == pytest.approx(48 / 56)


def test_streamed_is_coarser_than_enlarged_logits(stripes: Pictures) -> None:
    """Soft logits of a slanted border: enlarged before the decision they follow it, after it they are steps."""

    def soft(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows, columns = np.mgrid[0:16, 0:20]
        slope = (columns - rows).astype(np.float32)
        return np.stack([slope, -slope, slope - 9, slope - 9])

    maps = [score.confusion for score in evaluate_deployed(soft, stripes, size=(64, 80))]
    assert np.array_equal(maps[0], evaluate(soft, stripes, size=(64, 80)).confusion)
    assert not np.array_equal(*maps)
    assert np.abs(maps[0] - maps[1]).sum() < 0.1 * maps[0].sum()


def test_nothing_to_score() -> None:
    confusion = Confusion(Classes(NAMES, ((0, 0, 0),) * 4))
    confusion.add(torch.zeros(4, 4), torch.full((4, 4), 255))
    with pytest.raises(DataError, match=r"^No labelled pixel to score: 1 images$"):
        confusion.score()


def test_a_torch_model_as_a_predictor(whole_run: Path, data: DataSet, micro: None) -> None:
    """The model as trained, its normalisation before it."""
    run = open_run(whole_run)
    model = run.model()
    predict = TorchModel(model, run.recipe)
    picture = np.random.default_rng(0).integers(0, 256, (64, 80), np.uint8)
    logits = predict(picture)
    assert (logits.shape, logits.dtype) == ((3, 16, 20), np.float32)
    image = (torch.from_numpy(picture).float() - recipe().mean) / recipe().std
    with torch.inference_mode():
        np.testing.assert_array_equal(logits, model(image[None, None])[0].numpy())
    again = evaluate(predict, Pictures(data, data.split("val"), Agc()), size=run.size)
    assert again.to_json() == json.loads((whole_run / "report" / "score.json").read_text())
