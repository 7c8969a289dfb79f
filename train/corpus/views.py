"""Random views of a picture without labels. Every draw comes from the generator that is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

Picture = NDArray[np.uint8]
TRIES = 10


@dataclass(frozen=True)
class RandomResizedCrop:
    """The pre-training augmentation: a random part of the picture, resized to a square, flipped half of the time.

    Attributes:
        size: of the result, pixels.
        scale: smallest and largest area of the part, as a share of the picture's.
        ratio: smallest and largest width over height of the part.
        flip: share of the views that are mirrored.
    """

    size: int = 224
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __call__(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Return a view, uint8 [size, size], of a picture, uint8 [H, W]."""
        top, left, height, width = self.box(picture.shape[0], picture.shape[1], rng)
        view = resize(picture[top : top + height, left : left + width], self.size)
        return view[:, ::-1] if rng.random() < self.flip else view

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a part of a picture of ``height`` x ``width`` pixels: (top, left, height, width).

        Where ten draws do not fit into the picture, its centre is taken, cut to the ratios allowed.
        """
        for _ in range(TRIES):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        w = min(width, max(1, round(height * self.ratio[1])))
        h = min(height, max(1, round(width / self.ratio[0])))
        return (height - h) // 2, (width - w) // 2, h, w


def resize(picture: Picture, size: int) -> Picture:
    """Resize a picture, uint8 [H, W], to [size, size], bicubic and antialiased (a = -0.5, as Pillow and torchvision).

    OpenCV's bicubic aliases; torch's 8-bit kernel is the fastest of those that do not, about twice as fast as Pillow.
    It clips to black and white between the two axes, as Pillow does, though not always the same axis first.
    """
    if picture.shape == (size, size):
        return picture
    tensor = torch.from_numpy(np.ascontiguousarray(picture))[None, None]
    resized = functional.interpolate(tensor, (size, size), mode="bicubic", antialias=True, align_corners=False)
    result: Picture = resized[0, 0].numpy()
    return result
