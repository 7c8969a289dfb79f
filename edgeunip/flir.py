"""Radiometric FLIR JPEGs: the raw plane and the Planck constants inside.

FLIR spreads one binary file ("FFF") over the JPEG's APP1 segments. A directory in it lists records; record type 1 is
the raw plane (a plain array, or a PNG whose samples are byte-swapped), type 32 holds the camera's constants. Offsets
are those ExifTool documents.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edgeunip.errors import DataError
from edgeunip.thermal import Counts, Planck

_RAW_PLANE, _CAMERA = 1, 32
_KELVIN = 273.15


def is_radiometric(data: bytes) -> bool:
    """Tell whether an image file's bytes are a JPEG with FLIR segments."""
    return data.startswith(b"\xff\xd8") and b"\xff\xe1" in data[:65536] and any(True for _ in _segments(data))


def parse(data: bytes, path: Path) -> tuple[Counts, Planck]:
    """Return the raw plane, uint16 (H, W), and the constants of a radiometric JPEG.

    Raises:
        DataError: a record is missing or damaged; ``path`` is for the message.
    """
    try:
        records = _records(b"".join(part for _, part in sorted(_segments(data))))
        return _plane(records[_RAW_PLANE], path), _planck(records[_CAMERA])
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise DataError("The radiometric part of this FLIR JPEG is damaged", where=path, why=repr(error)) from error


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (number, content) of each FLIR APP1 segment."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if data[position + 1] == 0xE1 and body[:5] == b"FLIR\0" and len(body) > 8:
            yield body[6], body[8:]
        position += 2 + length


def _records(fff: bytes) -> dict[int, bytes]:
    if fff[:4] != b"FFF\0":
        raise ValueError("no FFF header")
    directory, count = struct.unpack_from(">II", fff, 24)
    found: dict[int, bytes] = {}
    for index in range(min(count, 256)):
        kind, _, _, _, offset, length = struct.unpack_from(">HHIIII", fff, directory + 32 * index)
        found.setdefault(kind, fff[offset : offset + length])
    return found


def _plane(record: bytes, path: Path) -> Counts:
    order = _order(record)
    width, height = struct.unpack_from(order + "HH", record, 2)
    body = record[32:]
    if body.startswith(b"\x89PNG"):
        image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint16 or image.shape != (height, width):
            raise DataError("The embedded raw plane cannot be decoded", where=path)
        return np.asarray(image.byteswap(), np.uint16)
    plane = np.frombuffer(body, order + "u2", count=width * height)
    return plane.reshape(height, width).astype(np.uint16)


def _planck(record: bytes) -> Planck:
    order = _order(record)

    def real(offset: int) -> float:
        return float(struct.unpack_from(order + "f", record, offset)[0])

    return Planck(
        r1=real(0x58),
        r2=real(0x30C),
        b=real(0x5C),
        f=real(0x60),
        o=float(struct.unpack_from(order + "i", record, 0x308)[0]),
        emissivity=real(0x20),
        distance_m=real(0x24),
        reflected_c=real(0x28) - _KELVIN,
        atmosphere_c=real(0x2C) - _KELVIN,
        humidity=real(0x3C),
        alpha1=real(0x70),
        alpha2=real(0x74),
        beta1=real(0x78),
        beta2=real(0x7C),
        x=real(0x80),
    )


def _order(record: bytes) -> str:
    """Return the record's byte order; its first 16 bits are 2 in the order the record is written in."""
    return "<" if struct.unpack_from("<H", record)[0] == 2 else ">"
