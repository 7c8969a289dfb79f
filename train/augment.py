"""Random views of a picture and its label map. Every draw comes from the generator that is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip import thermal
from edgeunip.train.recipe import Recipe

Picture = NDArray[np.uint8]
Pixel = TypeVar("Pixel", np.float32, np.uint8)
LARGEST_SHARE = 0.75
TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """UNIP's fine-tuning augmentation in its order: scale, crop, flip, photometric distortion, pad.

    Attributes:
        height, width: the model's input size, which the scale factors refer to, pixels.
        crop: (height, width) of the result, pixels.
        ignore: label of padded pixels.
        recipe: ranges and shares.
    """

    height: int
    width: int
    crop: tuple[int, int]
    ignore: int
    recipe: Recipe

    def __call__(
        self, picture: Picture, label: Picture, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], Picture]:
        """Return a view of a picture, uint8 [H, W] or [H, W, 3], and its labels, uint8 [H, W].

        Returns:
            The normalised picture, float32 [channels, h, w], and the labels, uint8 [h, w], of the crop's size.
        """
        picture, label = self._scale(picture, label, rng)
        picture, label = self._crop(picture, label, rng)
        if rng.random() < 0.5:
            picture, label = picture[:, ::-1], label[:, ::-1]
        normalised = (self._distort(picture, rng) - self.recipe.mean) / self.recipe.std
        return planes(self._pad(normalised.astype(np.float32), 0.0)), self._pad(label, self.ignore)

    def _scale(self, picture: Picture, label: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
        factor = rng.uniform(self.recipe.scale_min, self.recipe.scale_max)
        size = max(1, round(self.width * factor)), max(1, round(self.height * factor))
        enlarged = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT)
        return thermal.fit(picture, size[1], size[0]), enlarged.view(np.uint8)

    def _crop(self, picture: Picture, label: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
        """Cut a crop: around a pixel of a class drawn at random, or anywhere with no class filling three quarters."""
        focused = rng.random() < self.recipe.focus
        for _ in range(TRIES):
            top, left = self._around_a_class(label, rng) if focused else self._anywhere(label, rng)
            window = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
            if focused or _largest_share(label[window], self.ignore) < LARGEST_SHARE:
                break
        return picture[window], label[window]

    def _anywhere(self, label: Picture, rng: np.random.Generator) -> tuple[int, int]:
        slack = [max(0, have - want) for have, want in zip(label.shape, self.crop, strict=True)]
        return int(rng.integers(slack[0] + 1)), int(rng.integers(slack[1] + 1))

    def _around_a_class(self, label: Picture, rng: np.random.Generator) -> tuple[int, int]:
        present = np.flatnonzero(np.bincount(label.ravel(), minlength=256)[: self.ignore])
        if present.size == 0:
            return self._anywhere(label, rng)
        pixels = np.flatnonzero(label.ravel() == rng.choice(present))
        row, column = divmod(int(rng.choice(pixels)), label.shape[1])
        corner = (row - int(rng.integers(self.crop[0])), column - int(rng.integers(self.crop[1])))
        limits = [max(0, have - want) for have, want in zip(label.shape, self.crop, strict=True)]
        return min(max(corner[0], 0), limits[0]), min(max(corner[1], 0), limits[1])

    def _distort(self, picture: Picture, rng: np.random.Generator) -> NDArray[np.float32]:
        """Shift the brightness and change the contrast, each for half of the pictures; of all channels alike.

        Each saturates at 0 and 255, as in the reference: the model sees no gray level that a camera cannot give it.
        """
        values = picture.astype(np.float32)
        if rng.random() < 0.5:
            shift = rng.uniform(-self.recipe.brightness, self.recipe.brightness)
            values = np.clip(values + np.float32(shift), 0, 255)
        if rng.random() < 0.5:
            gain = 1 + rng.uniform(-self.recipe.contrast, self.recipe.contrast)
            values = np.clip(values * np.float32(gain), 0, 255)
        return values

    def _pad(self, array: NDArray[Pixel], value: float) -> NDArray[Pixel]:
        rows, columns = (want - have for have, want in zip(array.shape[:2], self.crop, strict=True))
        if not (rows or columns):
            return array
        return np.pad(array, [(0, rows), (0, columns), (0, 0)][: array.ndim], constant_values=value)


def planes(picture: NDArray[Pixel]) -> NDArray[Pixel]:
    """Lay a picture [H, W] or [H, W, channels] out as planes [channels, H, W], contiguous."""
    return np.ascontiguousarray(np.atleast_3d(picture).transpose(2, 0, 1))


def _largest_share(label: Picture, ignore: int) -> float:
    counts = np.bincount(label.ravel(), minlength=256)[:ignore]
    total = int(counts.sum())
    return float(counts.max()) / total if total and np.count_nonzero(counts) > 1 else 1.0
