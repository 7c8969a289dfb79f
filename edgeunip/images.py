"""Still images on disk to raw counts, 8 or 16 bits, never converted from one to the other."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip import flir, png
from edgeunip.errors import DataError
from edgeunip.thermal import Counts, Radiometry

Depth = TypeVar("Depth", NDArray[np.uint8], NDArray[np.uint16])

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")

_MAGIC = (b"\x89PNG", b"\xff\xd8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")


def read_counts(path: Path) -> tuple[Counts, Radiometry | None]:
    """Read one thermal image.

    A radiometric FLIR JPEG gives its embedded raw plane and Planck constants; any other file gives its single
    channel. A colour file whose channels are equal is taken as gray (many tools write gray so).

    Returns:
        Counts, shape (H, W), uint8 or uint16, and the radiometry, None where the file has none.

    Raises:
        DataError: the file is missing, empty, truncated, in (false) colour, or of another depth.
    """
    return parse(read_bytes(path), path)


def read_bytes(path: Path, noun: str = "image") -> bytes:
    """Read a whole file, called ``noun`` in messages. A pipe or a device in its place is refused, never waited for.

    Raises:
        DataError: the file is missing, unreadable or not a regular file; its ``__cause__`` is the ``OSError``, if any.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"The {noun} cannot be read", where=path, why="not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"The {noun} cannot be read", where=path, why=error.strerror) from error


def parse(data: bytes, path: Path) -> tuple[Counts, Radiometry | None]:
    """Decode an image file's bytes as :func:`read_counts` does; ``path`` is for the message."""
    if flir.is_radiometric(data):
        return flir.parse(data, path)
    return decode(data, path), None


def decode(data: bytes, path: Path) -> Counts:
    """Decode the single channel of an image file's bytes; ``path`` is for the message."""
    image = decode_channels(data, path)
    if image.dtype == np.uint8:
        return _gray(image.view(np.uint8), path)
    if image.dtype == np.uint16:
        return _gray(image.view(np.uint16), path)
    raise DataError(f"The image holds {image.dtype}; 8 or 16 bits are read", where=path)


def decode_channels(data: bytes, path: Path) -> NDArray[np.generic]:
    """Decode an image file's bytes as they are: shape (H, W), or (H, W, channels) with the channels as BGR or BGRA.

    Raises:
        DataError: the bytes are none of PNG, JPEG, TIFF and BMP, or truncated, or damaged.
    """
    return _decode(data, path, cv2.IMREAD_UNCHANGED)


def decode_luma(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode the luma plane of a JPEG file's bytes, shape (H, W): colour in it is never computed.

    Raises:
        DataError: as :func:`decode_channels`.
    """
    return _decode(data, path, cv2.IMREAD_GRAYSCALE).view(np.uint8)


def _decode(data: bytes, path: Path, form: int) -> NDArray[np.generic]:
    if not data:
        raise DataError("The image is empty (0 bytes)", where=path)
    if not data.startswith(_MAGIC):  # OpenCV knows a dozen more formats; no thermal camera writes them
        raise DataError("The image cannot be decoded", where=path, why="neither PNG, JPEG, TIFF nor BMP")
    if is_truncated(data):
        raise DataError("The image is truncated", where=path)
    if data.startswith(png.SIGNATURE) and not png.is_whole(data):
        raise DataError("The image cannot be decoded", where=path, why="damaged")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), form | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DataError("The image cannot be decoded", where=path, why=error) from error
    if image is None:
        raise DataError("The image cannot be decoded", where=path, why="unknown format or damaged")
    return image


def is_truncated(data: bytes) -> bool:
    """Tell whether a PNG or JPEG ends before its end marker: decoders often fill the rest with gray in silence."""
    if data.startswith(png.SIGNATURE):
        return b"IEND" not in data[-16:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-4096:]
    return False


def _gray(image: Depth, path: Path) -> Depth:
    if image.ndim == 2:
        return image
    first, rest = image[..., 0], image[..., 1:3]
    if not (rest == first[..., None]).all():
        raise DataError(
            "The image is in colour; thermal counts have one channel",
            where=path,
            remedy="A false-colour picture cannot be turned back into counts; use the camera's raw files.",
        )
    return first.copy()
