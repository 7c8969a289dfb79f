"""An image file's bytes to the gray picture that pre-training sees, whatever the file holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeunip import flir, images
from edgeunip.errors import DataError
from edgeunip.thermal import Agc, Counts

AGC = Agc(mode="percentile")  # of 16-bit counts; 8 bits are taken as they are, as in the published pre-training


@dataclass(frozen=True)
class Image:
    """A decoded image.

    Attributes:
        counts: its gray plane, uint8 or uint16 [H, W], white border cut.
        channels: of the file.
    """

    counts: Counts
    channels: int

    def picture(self) -> NDArray[np.uint8]:
        """Return the gray picture, uint8 [H, W]."""
        return self.counts.view(np.uint8) if self.counts.dtype == np.uint8 else AGC.picture(self.counts)


def decode(data: bytes, path: Path, *, crop: int = 0) -> Image:
    """Decode an image file's bytes; ``path`` is for the message, ``crop`` is cut from each side, pixels.

    A JPEG gives its luma plane, a radiometric FLIR JPEG its raw plane, other colour files ITU-R 601 luma; an alpha
    channel is passed over. The picture is as stored: an orientation tag does not turn it.

    Raises:
        DataError: the file is damaged, neither 8 nor 16 bits deep, or nothing is left within the border.
    """
    counts, channels = _gray(data, path)
    height, width = counts.shape
    if 2 * crop >= min(height, width):
        raise DataError(f"Nothing is left within a border of {crop} pixels", where=path, why=f"{width}x{height}")
    return Image(counts[crop : height - crop, crop : width - crop], channels)


def _gray(data: bytes, path: Path) -> tuple[Counts, int]:
    if flir.is_radiometric(data):
        return flir.parse(data, path)[0], 1
    if data.startswith(b"\xff\xd8"):
        return images.decode_luma(data, path), _components(data)
    planes = _depth(images.decode_channels(data, path), path)
    if planes.ndim == 2:
        return planes, 1
    if planes.shape[2] not in (3, 4):
        raise DataError(f"The image has {planes.shape[2]} channels; 1, 3 or 4 are read", where=path)
    return _luma(planes), planes.shape[2]


def _depth(image: NDArray[np.generic], path: Path) -> Counts:
    if image.dtype == np.uint8:
        return image.view(np.uint8)
    if image.dtype == np.uint16:
        return image.view(np.uint16)
    raise DataError(f"The image holds {image.dtype}; 8 or 16 bits are read", where=path)


def _luma(planes: Counts) -> Counts:
    """Mix blue, green and red by ITU-R 601, in 1/65536 and rounded as Pillow's "L" is; alpha is passed over."""
    blue, green, red = (planes[..., channel].astype(np.uint32) for channel in range(3))
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return luma.astype(np.uint8) if planes.dtype == np.uint8 else luma.astype(np.uint16)


def _components(data: bytes) -> int:
    """Return the number of components a JPEG's frame header states, 1 where there is none to be found."""
    position = 2
    while position + 10 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[position + 9]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big") if marker != 0xFF else 1
    return 1
