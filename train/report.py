"""The report of a run: prediction pictures, curves, confusion matrix."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from edgeunip import durable, thermal
from edgeunip.classes import Classes
from edgeunip.train.augment import Picture
from edgeunip.train.evaluate import Predict, Score
from edgeunip.train.loader import Pictures
from edgeunip.train.run import Run

PICTURES = 6


def write(run: Run, score: Score, predict: Predict, pictures: Pictures) -> None:
    """Fill ``report/`` of a run: ``predictions.png``, ``curves.png``, ``confusion.png``, ``score.json``."""
    folder = run.path / "report"
    durable.write_bytes(folder / "predictions.png", png(predictions(predict, pictures, run.size)))
    durable.write_bytes(folder / "curves.png", _curves(run.path / "metrics.jsonl"))
    durable.write_bytes(folder / "confusion.png", _confusion(score))
    durable.write_json(folder / "score.json", score.to_json())


def predictions(predict: Predict, pictures: Pictures, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw rows of (picture, labels, prediction) for samples spread over the set; RGB uint8."""
    rows = []
    for index in np.linspace(0, len(pictures) - 1, min(PICTURES, len(pictures))).astype(int):
        picture, label = pictures.read(int(index))
        picture, label = thermal.fit(picture, *size), _nearest(label, size)
        guess = _nearest(predict(picture).argmax(0).astype(np.uint8), size)
        guess[label == pictures.data.classes.ignore] = pictures.data.classes.ignore
        views = [_colours(picture), *(tint(picture, ids, pictures.data.classes) for ids in (label, guess))]
        rows.append(np.concatenate(views, axis=1))
    return np.concatenate(rows, axis=0)


def tint(picture: Picture, ids: Picture, classes: Classes) -> NDArray[np.uint8]:
    """Lay the class colours over a picture, half transparent; class 0 and ignored pixels stay as they are; RGB."""
    plain = _colours(picture)
    colour = classes.palette()[ids]
    shown = ((ids != 0) & (ids != classes.ignore))[..., None]
    return np.where(shown, plain // 2 + colour // 2, plain).astype(np.uint8)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Encode an RGB picture."""
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _colours(picture: Picture) -> NDArray[np.uint8]:
    """Return a picture [H, W] or [H, W, 3] as RGB."""
    return np.broadcast_to(np.atleast_3d(picture), (*picture.shape[:2], 3))


def _nearest(ids: Picture, size: tuple[int, int]) -> Picture:
    return np.asarray(cv2.resize(ids, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _curves(path: Path) -> bytes:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [line for line in lines if "loss" in line]
    scores = [line for line in lines if "val" in line]
    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    left.plot([line["step"] for line in losses], [line["loss"] for line in losses])
    left.set(title="training loss", xlabel="step")
    right.plot([line["step"] for line in scores], [100 * line["val"]["miou"] for line in scores], marker="o")
    right.set(title="val mIoU, %", xlabel="step")
    return encode(figure)


def _confusion(score: Score) -> bytes:
    share = score.confusion / np.maximum(score.confusion.sum(1, keepdims=True), 1)
    side = 2 + 0.6 * len(score.names)
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    axes.imshow(share, vmin=0, vmax=1, cmap="magma")
    ticks = range(len(score.names))
    axes.set_xticks(ticks, score.names, rotation=45, ha="right")
    axes.set_yticks(ticks, score.names)
    axes.set(title="share of a class's pixels, %", xlabel="predicted", ylabel="labelled")
    for row in ticks:
        for column in ticks:
            shade = "black" if share[row, column] > 0.6 else "white"
            text = f"{100 * share[row, column]:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=shade, fontsize=8)
    return encode(figure)


def encode(figure: Figure) -> bytes:
    """Draw a figure as PNG."""
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
