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

from edgeunip import png
from edgeunip.errors import DataError, UsageError
from edgeunip.thermal import Counts, Planck

_RAW_PLANE, _CAMERA = 1, 32
_KELVIN = 273.15


def is_radiometric(data: bytes) -> bool:
    """Tell whether an image file's bytes are a JPEG with FLIR segments."""
    return data.startswith(b"\xff\xd8") and next(_segments(data), None) is not None


def parse(data: bytes, path: Path) -> tuple[Counts, Planck]:
    """Return the raw plane, uint16 (H, W), and the constants of a radiometric JPEG.

    Raises:
        DataError: a record is missing or damaged; ``path`` is for the message.
    """
    try:
        records = _records(_join(list(_segments(data))))
        return _plane(records[_RAW_PLANE]), _planck(records[_CAMERA])
    except (struct.error, KeyError, IndexError, ValueError, UsageError, cv2.error) as error:
        raise DataError("The radiometric part of this FLIR JPEG is damaged", where=path, why=repr(error)) from error


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number, number of the last, content) of each whole FLIR APP1 segment."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if data[position + 1] == 0xE1 and body[:5] == b"FLIR\0" and 8 < len(body) == length - 2:
            yield body[6], body[7], body[8:]
        position += 2 + length


def _join(segments: list[tuple[int, int, bytes]]) -> bytes:
    parts = {number: content for number, _, content in segments}
    last = segments[0][1]
    if len(parts) != len(segments) or set(parts) != set(range(last + 1)):
        raise ValueError(f"FLIR segments {sorted(number for number, _, _ in segments)} instead of 0..{last}")
    return b"".join(parts[number] for number in range(last + 1))


def _records(fff: bytes) -> dict[int, bytes]:
    if fff[:4] != b"FFF\0":
        raise ValueError("no FFF header")
    directory, count = struct.unpack_from(">II", fff, 24)
    found: dict[int, bytes] = {}
    for index in range(min(count, 256)):
        kind, _, _, _, offset, length = struct.unpack_from(">HHIIII", fff, directory + 32 * index)
        found.setdefault(kind, fff[offset : offset + length])
    return found


def _plane(record: bytes) -> Counts:
    order = _order(record)
    width, height = struct.unpack_from(order + "HH", record, 2)
    if not width or not height:
        raise ValueError(f"the raw plane is {width} x {height} pixels")
    body = record[32:]
    if body.startswith(png.SIGNATURE):
        return _png_plane(body, width, height)
    plane = np.frombuffer(body, order + "u2", count=width * height)
    return plane.reshape(height, width).astype(np.uint16)


def _png_plane(body: bytes, width: int, height: int) -> Counts:
    if not png.is_whole(body) or struct.unpack_from(">II", body, 16) != (width, height):
        raise ValueError("the raw plane's PNG is damaged or of another size")
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.shape != (height, width):
        raise ValueError("the raw plane's PNG is no 16-bit picture of one channel")
    return np.asarray(image.byteswap(), np.uint16)


def _planck(record: bytes) -> Planck:
    order = _order(record)

    def real(offset: int) -> float:
        return float(struct.unpack_from(order + "f", record, offset)[0])

    humidity = real(0x3C)
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
        humidity=humidity / 100 if humidity > 2 else humidity,  # some cameras store a percentage
        alpha1=real(0x70),
        alpha2=real(0x74),
        beta1=real(0x78),
        beta2=real(0x7C),
        x=real(0x80),
    )


def _order(record: bytes) -> str:
    """Return the record's byte order; its first 16 bits are 2 in the order the record is written in."""
    return "<" if struct.unpack_from("<H", record)[0] == 2 else ">"
