"""Label files to class indices, exactly as they were saved.

A label is a PNG with one channel whose samples are class indices. Image libraries turn a palette PNG into colours and
stretch samples of fewer than 8 bits to 0..255; both would change the indices, so the PNG's header is read here and
the file is handed to the decoder as plain gray.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import DataError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY, _PALETTE = 0, 3


def decode(data: bytes, path: Path) -> NDArray[np.uint8]:
    """Decode a label PNG's bytes; ``path`` is for the message.

    Returns:
        The samples as stored, palette indices included, shape (H, W).

    Raises:
        DataError: empty, not a PNG, truncated, damaged, in colour, or of 16 bits.
    """
    chunks = _chunks(data, path)
    header = next(chunks)[1]
    depth, colour = header[8], header[9]
    if colour not in (_GRAY, _PALETTE):
        raise DataError("The label is in colour", where=path, remedy="Save class indices in one 8-bit channel.")
    if depth > 8:
        raise DataError("The label has 16 bits", where=path, remedy="Save class indices in one 8-bit channel.")
    pixels = b"".join(content for kind, content in chunks if kind == b"IDAT")
    gray = header[:9] + bytes([_GRAY]) + header[10:]
    plain = _SIGNATURE + _chunk(b"IHDR", gray) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return _indices(plain, path) // np.uint8(255 // (2**depth - 1))


def _indices(data: bytes, path: Path) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError("The label cannot be decoded", where=path, why=error) from error
    if image is None:
        raise DataError("The label cannot be decoded", where=path, why="its pixel data are damaged")
    return image.view(np.uint8)


def _chunks(data: bytes, path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of each chunk, IHDR first and IEND left out; every checksum is verified."""
    if not data:
        raise DataError("The label is empty (0 bytes)", where=path)
    if not data.startswith(_SIGNATURE):
        raise DataError(
            "The label is not a PNG", where=path, remedy="Save class indices as 8-bit PNG; JPEG alters them."
        )
    kind, position = b"", len(_SIGNATURE)
    while kind != b"IEND":
        if position + 12 > len(data):
            raise DataError("The label is truncated", where=path)
        length = int.from_bytes(data[position : position + 4], "big")
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            raise DataError("The label is truncated", where=path)
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise DataError("The label cannot be decoded", where=path, why="checksum wrong: the file is damaged")
        if position == len(_SIGNATURE) and (kind != b"IHDR" or length != 13):
            raise DataError("The label cannot be decoded", where=path, why="no PNG header")
        yield kind, data[position + 8 : end]
        position = end + 4


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
