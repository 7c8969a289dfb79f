"""The kernel's V4L2 interface: request numbers and structures, for 64-bit and 32-bit ARM, x86 and RISC-V.

Names are those of ``linux/videodev2.h``, without ``VIDIOC_`` and ``V4L2_``. Two structures depend on the word size:
they hold a ``long`` time or a union with a pointer. On 32 bits the time is the 32-bit one, which every kernel takes.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

WORD = struct.calcsize("P")

CAPTURE, MMAP, FIELD_ANY = 1, 1, 0  # BUF_TYPE_VIDEO_CAPTURE, MEMORY_MMAP
CAP_CAPTURE, CAP_CAPTURE_MPLANE, CAP_STREAMING, CAP_DEVICE_CAPS = 0x1, 0x1000, 0x0400_0000, 0x8000_0000
CAP_TIMEPERFRAME = 0x1000
FLAG_ERROR = 0x40
FLAG_CLOCK_MASK, FLAG_CLOCK_MONOTONIC = 0xE000, 0x2000
SIZE_DISCRETE, INTERVAL_DISCRETE = 1, 1


def format_layout(word: int) -> struct.Struct:
    """``v4l2_format`` up to and with ``v4l2_pix_format``: type, then 12 numbers from width to xfer_func."""
    return struct.Struct("=I 4x 12I 152x" if word == 8 else "=I 12I 152x")


def buffer_layout(word: int) -> struct.Struct:
    """``v4l2_buffer``: index, type, bytesused, flags, field, time (s, us), sequence, memory, offset, length."""
    return struct.Struct("=5I 4x 2q 16x 2I I 4x I 12x" if word == 8 else "=5I 2i 16x 2I I I 8x")


CAPABILITY = struct.Struct("=16s 32s 32s 3I 12x")  # driver, card, bus_info, version, capabilities, device_caps
FMTDESC = struct.Struct("=3I 32s I 16x")  # index, type, flags, description, pixelformat
FRMSIZE = struct.Struct("=3I 6I 8x")  # index, pixel_format, type, then width, height or six limits
FRMIVAL = struct.Struct("=5I 6I 8x")  # index, pixel_format, width, height, type, then fractions
STREAMPARM = struct.Struct("=5I 184x")  # type, capability, capturemode, numerator, denominator
REQUESTBUFFERS = struct.Struct("=3I 8x")  # count, type, memory
FORMAT = format_layout(WORD)
BUFFER = buffer_layout(WORD)
INT = struct.Struct("=i")


def request(way: str, number: int, layout: struct.Struct) -> int:
    """Return the number of an ioctl that reads (``r``), writes (``w``) or does both (``rw``), seen from the user."""
    direction = ("w" in way) | ("r" in way) << 1
    return direction << 30 | layout.size << 16 | ord("V") << 8 | number


QUERYCAP = request("r", 0, CAPABILITY)
ENUM_FMT = request("rw", 2, FMTDESC)
G_FMT = request("rw", 4, FORMAT)
S_FMT = request("rw", 5, FORMAT)
REQBUFS = request("rw", 8, REQUESTBUFFERS)
QUERYBUF = request("rw", 9, BUFFER)
QBUF = request("rw", 15, BUFFER)
DQBUF = request("rw", 17, BUFFER)
STREAMON = request("w", 18, INT)
STREAMOFF = request("w", 19, INT)
G_PARM = request("rw", 21, STREAMPARM)
ENUM_FRAMESIZES = request("rw", 74, FRMSIZE)
ENUM_FRAMEINTERVALS = request("rw", 75, FRMIVAL)


class Buffer(NamedTuple):
    """A ``v4l2_buffer``: ``number`` is its index, ``stamp_ns`` its time stamp in nanoseconds."""

    number: int
    used: int
    flags: int
    stamp_ns: int
    sequence: int
    offset: int
    length: int


def pack_buffer(index: int) -> bytes:
    """Return the buffer with this index as the kernel takes it."""
    return BUFFER.pack(index, CAPTURE, 0, 0, FIELD_ANY, 0, 0, 0, MMAP, 0, 0)


def unpack_buffer(raw: bytes) -> Buffer:
    """Read a buffer as the kernel gives it."""
    index, _, used, flags, _, seconds, micros, sequence, _, offset, length = BUFFER.unpack(raw)
    return Buffer(index, used, flags, (seconds * 1_000_000 + micros) * 1000, sequence, offset, length)


def code_text(number: int) -> str:
    """Return a pixel format's four characters; ``-BE`` in place of bit 31, which marks big-endian variants."""
    text = bytes(byte & 0x7F for byte in number.to_bytes(4, "little")).decode("ascii")
    return f"{text.strip()}-BE" if number >> 31 else text


def code_number(text: str) -> int:
    """Return the number of a pixel format that :func:`code_text` wrote."""
    letters = text.removesuffix("-BE").ljust(4)[:4].encode("ascii")
    return int.from_bytes(letters, "little") | text.endswith("-BE") << 31


def name_text(raw: bytes) -> str:
    """Return a name out of a structure, without what no terminal should get."""
    text = raw.split(b"\0")[0].decode("utf-8", "replace").strip()
    return "".join(letter if letter.isprintable() else "?" for letter in text)
