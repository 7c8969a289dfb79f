"""Any folder of images as an encoder's input: found in a fixed order, read as 8 bits, brought to a size, normalised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeunip import flir, images
from edgeunip.errors import DataError, UsageError, near
from edgeunip.train.augment import Picture
from edgeunip.train.corpus import pictures as gray
from edgeunip.train.corpus import sources

Normalise = Literal["thermal", "imagenet"]

_MEAN_STD: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "thermal": ((0.3801,) * 3, (0.1871,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes an encoder's input.

    Attributes:
        channels: of the encoder, 1 or 3. Three get the gray picture three times, unless ``rgb``.
        patch: side of a patch, pixels.
        size: (height, width): the picture is scaled, its aspect kept, and its centre cut out. None for the picture's
            own size, cut to whole patches.
        normalise: ``thermal``: mean 0.3801, std 0.1871 of 0..1 (UNIP's infrared images); ``imagenet``: ImageNet's.
        rgb: keep the colours of colour images.

    Raises:
        UsageError: a value is none of those, or the size is no whole number of patches.
    """

    channels: int
    patch: int
    size: tuple[int, int] | None
    normalise: str = "thermal"
    rgb: bool = False

    def __post_init__(self) -> None:
        known = get_args(Normalise)
        if self.normalise not in known:
            raise UsageError("Unknown normalisation", where=self.normalise, remedy=near(self.normalise, known))
        if self.rgb and self.channels != 3:
            raise UsageError("The model takes one channel; it cannot be given colours")
        if self.size and (min(self.size) < self.patch or any(side % self.patch for side in self.size)):
            where = "x".join(map(str, self.size))
            raise UsageError(f"The size must be whole patches of {self.patch} pixels", where=where)


def parse_size(text: str) -> tuple[int, int]:
    """Read ``HEIGHTxWIDTH``, pixels.

    Raises:
        UsageError: it is something else.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and len(side) < 6 for side in sides):
        raise UsageError("Not an image size", where=text, remedy="Write HEIGHTxWIDTH in pixels, or native.")
    return int(sides[0]), int(sides[1])


def find(folder: Path) -> list[Path]:
    """Return all images below a folder, sorted by path; of a labelled data set its images, never its labels.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError("No such folder of images", where=folder)
    labelled = (folder / "images").is_dir() and (folder / "labels").is_dir()
    (source,) = sources.plain(folder / "images" if labelled else folder)
    return sources.listing(source)[1]


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return ``count`` of the paths, evenly spread from the first to the last; all where there are no more.

    Raises:
        UsageError: ``count`` is below 1.
    """
    if count < 1:
        raise UsageError("At least one image is needed", where=count)
    picked = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[index] for index in picked]


def read(path: Path, *, rgb: bool = False) -> NDArray[np.uint8]:
    """Read an image as 8 bits: [H, W], or [H, W, 3] of a colour image with ``rgb``.

    16 bits, radiometric FLIR files included, go through the AGC; 8 bits stay as they are; colour becomes luma, as in
    pre-training.

    Raises:
        DataError: the file cannot be read, or is neither 8 nor 16 bits.
    """
    data = images.read_bytes(path)
    if rgb and not flir.is_radiometric(data):
        image = images.decode_channels(data, path)
        if image.ndim == 3 and image.dtype == np.uint8:
            return np.ascontiguousarray(image.view(np.uint8)[..., 2::-1])
    return gray.decode(data, path).picture()


def cover(picture: Picture, height: int, width: int) -> Picture:
    """Scale a picture [H, W] or [H, W, 3], aspect kept, until it covers (height, width); return the centre."""
    scale = max(height / picture.shape[0], width / picture.shape[1])
    sides = max(height, round(picture.shape[0] * scale)), max(width, round(picture.shape[1] * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = picture if sides == picture.shape[:2] else cv2.resize(picture, sides[::-1], interpolation=method)
    return _centre(np.asarray(scaled, np.uint8), height, width)


def _centre(picture: Picture, height: int, width: int) -> Picture:
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def fit(picture: Picture, how: Preparation, path: Path) -> Picture:
    """Bring a picture to the size of a preparation; ``path`` is for the message.

    Raises:
        DataError: it is smaller than a patch.
    """
    if min(picture.shape[:2]) < how.patch:
        shape = "x".join(map(str, picture.shape[:2]))
        raise DataError(f"The image has {shape} pixels, less than a patch of {how.patch}", where=path)
    if how.size:
        return cover(picture, *how.size)
    height, width = (side - side % how.patch for side in picture.shape[:2])
    return _centre(picture, height, width)


def as_tensor(pictures: Sequence[Picture], how: Preparation) -> Tensor:
    """Normalise pictures of one size, [H, W] or [H, W, 3]; float32 [B, channels, H, W]."""
    stacked = torch.from_numpy(np.stack([np.atleast_3d(picture) for picture in pictures]))
    scaled = stacked.permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values) for values in _MEAN_STD[how.normalise])
    if how.channels == 1:
        mean, std = mean.mean().reshape(1), std.mean().reshape(1)
    return (scaled - mean.reshape(-1, 1, 1)) / std.reshape(-1, 1, 1)


def batches(
    paths: Sequence[Path], how: Preparation, refused: Callable[[Path, DataError], None], *, patches: int = 2048
) -> Iterator[Tensor]:
    """Yield the images as normalised batches; neighbours of one size share a batch.

    Args:
        paths: the images.
        how: their preparation.
        refused: told each image that cannot be used; it is left out.
        patches: in a batch, at most; one image at least.
    """
    waiting: list[Picture] = []
    for path in paths:
        try:
            picture = fit(read(path, rgb=how.rgb), how, path)
        except DataError as error:
            refused(path, error)
            continue
        area = (len(waiting) + 1) * picture.shape[0] * picture.shape[1]
        if waiting and (area > patches * how.patch**2 or waiting[0].shape != picture.shape):
            yield as_tensor(waiting, how)
            waiting = []
        waiting.append(picture)
    if waiting:
        yield as_tensor(waiting, how)
