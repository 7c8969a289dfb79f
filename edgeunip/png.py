"""Whether a PNG is whole, checked before a decoder sees it.

OpenCV's decoder believes a damaged length or size: a file of a hundred bytes then takes gigabytes and seconds.
"""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG"

_MAX_PIXELS = 1 << 26


def is_whole(data: bytes) -> bool:
    """Tell whether every chunk up to the end marker is there with its right CRC, and the size is a picture's."""
    view, position = memoryview(data), 8
    if not 0 < _number(view, 16) * _number(view, 20) <= _MAX_PIXELS:
        return False
    while position + 12 <= len(view):
        end = position + 12 + _number(view, position)
        if end > len(view) or zlib.crc32(view[position + 4 : end - 4]) != _number(view, end - 4):
            return False
        if bytes(view[position + 4 : position + 8]) == b"IEND":
            return True
        position = end
    return False


def _number(view: memoryview, position: int) -> int:
    return int.from_bytes(view[position : position + 4], "big")
