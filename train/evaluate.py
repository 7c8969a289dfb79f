"""One metric for every form of a model: a training run, or a bundle on any runtime."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from edgeunip import thermal
from edgeunip.classes import Classes
from edgeunip.errors import DataError
from edgeunip.train import slide
from edgeunip.train.augment import planes
from edgeunip.train.loader import Pictures

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""A model: picture of its input size, uint8 [H, W] (AGC) or [H, W, 3], to logits, float32 [classes, h, w]."""

Mode = Literal["whole", "slide"]


@dataclass(frozen=True)
class Score:
    """Accuracy over a split.

    Attributes:
        confusion: pixels by [truth, prediction], int64 [classes, classes]; ignored pixels are left out.
        names: of the classes.
        images: number of images.
    """

    confusion: NDArray[np.int64]
    names: tuple[str, ...]
    images: int

    @property
    def iou(self) -> dict[str, float | None]:
        """Intersection over union by class; None for a class that is neither in the labels nor predicted."""
        hit = np.diag(self.confusion).astype(np.float64)
        union = self.confusion.sum(0) + self.confusion.sum(1) - hit
        return {n: float(h / u) if u else None for n, h, u in zip(self.names, hit, union, strict=True)}

    @property
    def miou(self) -> float:
        """Mean of the classes' IoU, absent classes left out."""
        values = [value for value in self.iou.values() if value is not None]
        return sum(values) / len(values) if values else math.nan

    @property
    def accuracy(self) -> float:
        """Share of the valid pixels that are right."""
        total = int(self.confusion.sum())
        return int(np.trace(self.confusion)) / total if total else math.nan

    def to_json(self) -> dict[str, Any]:
        """Return miou, iou by class, accuracy (shares, 0..1) and the number of images."""
        return {"miou": self.miou, "iou": self.iou, "accuracy": self.accuracy, "images": self.images}


class Confusion:
    """Adds up the confusion matrix of class maps, through torchmetrics."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        # Only one rank scores: a matrix that is synchronised over the ranks would wait for the others for ever.
        self._matrix = MulticlassConfusionMatrix(
            len(classes), ignore_index=classes.ignore, validate_args=False, sync_on_compute=False
        )
        self._images = 0

    def add(self, prediction: Tensor, truth: Tensor) -> None:
        """Add one image: class indices [H, W] each."""
        self._matrix.update(prediction.flatten().long(), truth.flatten().long())
        self._images += 1

    def score(self) -> Score:
        """Return what has been added up.

        Raises:
            DataError: there is no pixel to score.
        """
        confusion = self._matrix.compute().numpy().astype(np.int64)
        if not confusion.any():
            raise DataError("No labelled pixel to score", where=f"{self._images} images")
        return Score(confusion, self.classes.names, self._images)


def evaluate(
    predict: Predict,
    pictures: Pictures,
    *,
    size: tuple[int, int],
    mode: Mode = "whole",
    progress: Callable[[int], None] | None = None,
) -> Score:
    """Score a model over samples, at the labels' own resolution.

    Args:
        predict: the model.
        pictures: the samples.
        size: (height, width) of the model's input, pixels.
        mode: ``whole`` resizes the picture to the input; ``slide`` averages overlapping windows of the picture.
        progress: told the number of images done.
    """
    return evaluate_probes(predict, pictures, size=size, mode=mode, progress=progress)[0]


def evaluate_probes(
    predict: Predict,
    pictures: Pictures,
    *,
    size: tuple[int, int],
    mode: Mode = "whole",
    probes: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[Score, ...]:
    """Score a model that gives ``probes`` segmentations at once, logits [probes * classes, h, w], as ``evaluate``."""
    confusions = [Confusion(pictures.data.classes) for _ in range(probes)]
    for index in range(len(pictures)):
        picture, label = pictures.read(index)
        logits = _whole(predict, picture, size) if mode == "whole" else _slide(predict, picture, size)
        for confusion, share in zip(confusions, logits.chunk(probes, dim=1), strict=True):
            ids = _resize(share, label.shape).max(1).indices[0]  # several times as fast as argmax on a CPU
            confusion.add(ids, torch.from_numpy(label))
        if progress:
            progress(index + 1)
    return tuple(confusion.score() for confusion in confusions)


def evaluate_deployed(predict: Predict, pictures: Pictures, *, size: tuple[int, int]) -> tuple[Score, Score]:
    """Score a model as :func:`evaluate` does, and the class maps as a stream shows them, with one call a picture.

    A stream decides at 1/4 of the input and enlarges the classes to the nearest pixel.
    """
    enlarged, streamed = Confusion(pictures.data.classes), Confusion(pictures.data.classes)
    for index in range(len(pictures)):
        picture, label = pictures.read(index)
        logits, truth = _whole(predict, picture, size), torch.from_numpy(label)
        enlarged.add(_resize(logits, label.shape).max(1).indices[0], truth)
        ids = logits.argmax(1, keepdim=True).float()
        streamed.add(F.interpolate(ids, size=label.shape, mode="nearest-exact")[0, 0], truth)
    return enlarged.score(), streamed.score()


def _whole(predict: Predict, picture: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(predict(thermal.fit(picture, *size)))[None]


def _slide(predict: Predict, picture: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Enlarge the picture until the input fits into it both ways, its aspect kept; then average windows."""
    shape = picture.shape[:2]
    scale = max(want / have for want, have in zip(size, shape, strict=True))
    height, width = (max(want, round(have * scale)) for want, have in zip(size, shape, strict=True))
    image = torch.from_numpy(planes(thermal.fit(picture, height, width)))[None]

    def window(cut: Tensor) -> Tensor:
        view = cut[0].movedim(0, -1).contiguous().numpy()
        return _resize(torch.from_numpy(predict(view if picture.ndim == 3 else view[..., 0]))[None], size)

    stride = round(size[0] * slide.STRIDE), round(size[1] * slide.STRIDE)
    return slide.average(window, image, size, stride)


def _resize(logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    return F.interpolate(logits, size=shape, mode="bilinear", align_corners=False)
