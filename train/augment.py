"""Random views of a picture and its label map. Every draw comes from the generator that is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

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
class View:
    """What part of a picture is seen, and how large.

    Attributes:
        size: (height, width) the whole picture is resized to, pixels.
        top, left: of the crop in it.
        crop: (height, width) of the crop; what lies beyond the picture is padding, at the right and bottom.
        mirrored: left and right change places, before the padding.
    """

    size: tuple[int, int]
    top: int
    left: int
    crop: tuple[int, int]
    mirrored: bool

    def cut(self, enlarged: NDArray[Pixel]) -> NDArray[Pixel]:
        """Cut the crop out of a picture of ``size``, [H, W] or [H, W, channels], without padding."""
        part = enlarged[self.top : self.top + self.crop[0], self.left : self.left + self.crop[1]]
        return part[:, ::-1] if self.mirrored else part

    def sample(self, values: NDArray[np.floating[Any]], stride: int) -> NDArray[np.float32]:
        """Sample a map of the whole picture where the crop's cells of ``stride`` pixels have their centres, bilinear.

        Args:
            values: [channels, h, w], over the whole picture at any resolution.
            stride: pixels of the crop a cell, which divides the crop's sides.

        Returns:
            float32 [channels, crop height / stride, crop width / stride]; padding repeats the picture's edge, see
            :meth:`inside`.
        """
        rows, columns = (self._places(axis, stride, values.shape[1 + axis]) for axis in (0, 1))
        return _between(_between(values, rows, axis=1), columns, axis=2)

    def inside(self, stride: int) -> NDArray[np.bool_]:
        """Tell the cells whose centres lie in the picture, [crop height / stride, crop width / stride]."""
        rows, columns = (self._centres(axis, stride) < self.size[axis] for axis in (0, 1))
        return rows[:, None] & columns

    def _places(self, axis: int, stride: int, cells: int) -> NDArray[np.float64]:
        """Return the crop's cell centres along an axis, in cells of a map that has ``cells`` of them; within it."""
        return np.clip(self._centres(axis, stride) / self.size[axis] * cells - 0.5, 0, cells - 1)

    def _centres(self, axis: int, stride: int) -> NDArray[np.float64]:
        """Return the crop's cell centres along an axis in pixels of the resized picture; padding lies beyond it."""
        centres = (np.arange(self.crop[axis] // stride, dtype=np.float64) + 0.5) * stride
        start = (self.top, self.left)[axis]
        if axis == 1 and self.mirrored:
            seen = min(self.crop[1], self.size[1] - self.left)
            return np.where(centres < seen, start + seen - centres, np.float64(self.size[1]))
        return start + centres


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
        view, seen = self.draw(label, rng)
        return self.show(picture, view, rng), seen

    def draw(self, label: Picture, rng: np.random.Generator) -> tuple[View, Picture]:
        """Draw a view by a picture's labels, uint8 [H, W]; return it, and the labels as it shows them."""
        factor = rng.uniform(self.recipe.scale_min, self.recipe.scale_max)
        size = max(1, round(self.height * factor)), max(1, round(self.width * factor))
        enlarged = cv2.resize(label, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT).view(np.uint8)
        top, left = self._corner(enlarged, rng)
        view = View(size, top, left, self.crop, mirrored=bool(rng.random() < 0.5))
        return view, self._pad(view.cut(enlarged), self.ignore)

    def show(self, picture: Picture, view: View, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return a view of a picture, distorted and normalised: float32 [channels, h, w]."""
        seen = view.cut(thermal.fit(picture, *view.size))
        normalised = (self._distort(seen, rng) - self.recipe.mean) / self.recipe.std
        return planes(self._pad(normalised.astype(np.float32), 0.0))

    def _corner(self, label: Picture, rng: np.random.Generator) -> tuple[int, int]:
        """Lay a crop around a pixel of a class drawn at random, or anywhere with no class filling three quarters."""
        focused = rng.random() < self.recipe.focus
        for _ in range(TRIES):
            top, left = self._around_a_class(label, rng) if focused else self._anywhere(label, rng)
            window = slice(top, top + self.crop[0]), slice(left, left + self.crop[1])
            if focused or _largest_share(label[window], self.ignore) < LARGEST_SHARE:
                break
        return top, left

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


def _between(values: NDArray[np.floating[Any]], places: NDArray[np.float64], *, axis: int) -> NDArray[np.float32]:
    """Interpolate linearly along an axis at fractional places."""
    below = np.minimum(places.astype(np.intp), values.shape[axis] - 1)
    above = np.minimum(below + 1, values.shape[axis] - 1)
    share = (places - below).astype(np.float32).reshape([-1 if at == axis else 1 for at in range(3)])
    first = values.take(below, axis).astype(np.float32)
    second = values.take(above, axis).astype(np.float32)
    return np.asarray(first + share * (second - first), np.float32)


def _largest_share(label: Picture, ignore: int) -> float:
    counts = np.bincount(label.ravel(), minlength=256)[:ignore]
    total = int(counts.sum())
    return float(counts.max()) / total if total and np.count_nonzero(counts) > 1 else 1.0
