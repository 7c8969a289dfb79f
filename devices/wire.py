"""Frames from another process: ``unix:/run/cam.sock``, for cameras that speak no V4L2.

A vendor's SDK, GigE Vision, a Lepton on SPI, a libusb driver: a small program of the user's listens on a UNIX stream
socket, and sends each frame that its camera gives to whoever is connected. A frame is a header of 60 bytes and the
pixels, all little-endian:

======  ====  =======================================================================================================
offset  type  field
======  ====  =======================================================================================================
0       4s    magic ``TFRM``
4       u16   version, 1
6       u16   flags: 1 the shutter is closed (FFC), 2 offsets settle after it, 4 the 8-bit values are the sensor's own
8       u64   sequence number of the frame, counted by the sender from 0; a frame it lost leaves a gap
16      u64   time of capture, nanoseconds on CLOCK_MONOTONIC; 0 where it is not known
24      u16   width in pixels
26      u16   height in pixels
28      u16   bits of a pixel, 8 to 16; above 8 each pixel takes two bytes
30      u16   0
32      f64   scale of degC = scale * counts + offset; 0 where counts are no temperature
40      f64   offset
48      u32   bytes of the pixels
52      u32   CRC-32 of the pixels
56      u32   CRC-32 of the header so far
60            the pixels, row after row
======  ====  =======================================================================================================

A sender that finds the socket full drops the frame: one that queues makes every mask late. It may send on after it
closed a connection; edgeunip comes back.
"""

from __future__ import annotations

import errno
import math
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from typing_extensions import Self

from edgeunip.budget import BUDGET, Budget
from edgeunip.devices import profiles
from edgeunip.devices.constancy import check_format
from edgeunip.devices.profiles import Profile
from edgeunip.errors import SourceError
from edgeunip.frame import Frame, State
from edgeunip.thermal import Counts, Linear

MAGIC, VERSION = b"TFRM", 1
FFC, SETTLING, RAW = 1, 2, 4
_FIELDS = struct.Struct("<4sHHQQHHHHddII")
_CRC = struct.Struct("<I")
HEADER = _FIELDS.size + _CRC.size
MOST_PIXELS = 4096 * 4096
_READ = 1 << 18
# Older than this, a time of capture is on another clock.
_CLOCK_NS = 10_000_000_000

_FAILURES = {
    errno.ENOENT: ("missing", "The camera's socket is not there", "Start the program that serves it."),
    errno.ECONNREFUSED: ("refused", "Nobody serves the camera's socket", "Start the program that serves it."),
    errno.ECONNRESET: ("reset", "The camera's program cut the connection", "Is it alive?"),
    errno.EACCES: ("permission", "You may not connect to the camera's socket", "Change its mode or its group."),
    errno.EAGAIN: ("busy", "The camera's socket takes no more connections", "Is its program alive?"),
}


@dataclass(frozen=True, eq=False)
class Message:
    """One frame on the wire; the fields as in the table above."""

    counts: Counts
    seq: int
    t_ns: int = 0
    flags: int = 0
    scale: float = 0.0
    offset: float = 0.0


def pack(message: Message) -> bytes:
    """Return a frame as it goes over the wire."""
    height, width = message.counts.shape
    size = message.counts.itemsize
    pixels = np.ascontiguousarray(message.counts.astype(f"<u{size}", copy=False)).tobytes()
    fields = _FIELDS.pack(
        MAGIC,
        VERSION,
        message.flags,
        message.seq,
        message.t_ns,
        width,
        height,
        8 * size,
        0,
        message.scale,
        message.offset,
        len(pixels),
        zlib.crc32(pixels),
    )
    return fields + _CRC.pack(zlib.crc32(fields)) + pixels


class Parser:
    """Takes frames out of a stream of bytes, however it is cut, and finds back into step after damage.

    Attributes:
        damaged: frames that were torn or whose checksum was wrong, and runs of bytes that belong to no frame.
    """

    def __init__(self, where: object) -> None:
        self.damaged = 0
        self._where = where
        self._buffer = bytearray()
        self._in_step = True

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the frames that are whole with these bytes.

        Raises:
            SourceError: the sender speaks another version, or a whole header makes no sense.
        """
        self._buffer += data
        while self._find_header():
            size = HEADER + self._size()
            if len(self._buffer) < size:
                return
            message = self._unpack(size)
            if message is None:
                # The next frame may begin within this one's bytes, if it was torn.
                self._skip(1, damage=True)
                continue
            del self._buffer[:size]
            self._in_step = True
            yield message

    def _find_header(self) -> bool:
        """Put a whole, sound header at the start of the buffer; False while more bytes are needed."""
        while True:
            start = self._buffer.find(MAGIC)
            if start < 0:
                # The magic itself may be cut.
                start = max(0, len(self._buffer) - len(MAGIC) + 1)
                while start < len(self._buffer) and not MAGIC.startswith(self._buffer[start:]):
                    start += 1
            if start:
                self._skip(start, damage=self._in_step)
            if len(self._buffer) < HEADER:
                return False
            if _CRC.unpack_from(self._buffer, _FIELDS.size)[0] == zlib.crc32(self._buffer[: _FIELDS.size]):
                return True
            self._skip(1, damage=self._in_step)

    def _skip(self, count: int, *, damage: bool) -> None:
        del self._buffer[:count]
        self.damaged += damage
        self._in_step = False

    def _size(self) -> int:
        """Return the bytes of the pixels that the header announces.

        Raises:
            SourceError: see :meth:`feed`.
        """
        _, version, _, _, _, width, height, bits, _, scale, offset, size, _ = _FIELDS.unpack_from(self._buffer)
        if version != VERSION:
            raise SourceError(f"The sender speaks version {version}, not {VERSION}", where=self._where, reason="format")
        pixels = width * height
        if not (8 <= bits <= 16 and 0 < pixels <= MOST_PIXELS and size == pixels * (2 if bits > 8 else 1)):
            why = f"{width}x{height} with {bits} bits in {size} bytes"
            raise SourceError("The sender's frames make no sense", where=self._where, why=why, reason="format")
        if not (math.isfinite(scale) and math.isfinite(offset) and scale >= 0):
            why = f"scale {scale}, offset {offset}"
            raise SourceError("The sender's temperatures make no sense", where=self._where, why=why, reason="format")
        return int(size)

    def _unpack(self, end: int) -> Message | None:
        """Return the frame at the start of the buffer; None if its pixels are damaged."""
        _, _, flags, seq, t_ns, width, height, bits, _, scale, offset, _, crc = _FIELDS.unpack_from(self._buffer)
        pixels = bytes(memoryview(self._buffer)[HEADER:end])
        if zlib.crc32(pixels) != crc:
            return None
        counts: Counts = np.frombuffer(pixels, "<u2" if bits > 8 else np.uint8).reshape(height, width)
        if bits > 8:
            counts = counts.astype(np.uint16, copy=False)
        return Message(counts, seq, t_ns, flags, scale, offset)


class WireCamera:
    """The camera that a program serves at the UNIX socket ``path``.

    Attributes:
        raw: the sender says that its 8-bit values are the sensor's own.
    """

    live = True
    skipped = 0

    def __init__(self, path: str, *, profile: Profile | None = None, budget: Budget = BUDGET) -> None:
        self.name = f"unix:{path}"
        self.rate_hz: float | None = None
        self.raw = False
        self._path, self._profile, self._budget = path, profile, budget
        self._parser = Parser(self.name)
        self._reading = threading.Lock()
        self._socket: socket.socket | None = None

    @property
    def damaged(self) -> int:
        """Frames of this opening that came torn or with a wrong checksum."""
        return self._parser.damaged

    def __enter__(self) -> Self:
        self._parser = Parser(self.name)
        try:
            self._socket = self._connect()
        except OSError as error:
            raise self._failure(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._socket = self._socket, None
        if connection is None:
            return
        try:
            connection.shutdown(socket.SHUT_RDWR)  # Ends a read in another thread.
        except OSError as failure:
            if failure.errno != errno.ENOTCONN:  # The sender was first.
                raise self._failure(failure) from failure
        finally:
            with self._reading:
                connection.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame.

        Raises:
            SourceError: the sender ended, fell silent, changed its format, or sends what is no frame.
        """
        connection, first = self._socket, None
        while connection is not None and (data := self._read(connection)) is not None:
            for message in self._parser.feed(data):
                if self._socket is not connection:
                    return
                self.raw = bool(message.flags & RAW)
                frame = self._frame(message)
                first = first or frame
                check_format(frame, first, self.name)
                yield frame

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self._budget.open_s)
            connection.connect(self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self, connection: socket.socket) -> bytes | None:
        """Return what has come; None once closed."""
        with self._reading:
            if self._socket is not connection:
                return None
            try:
                data = connection.recv(_READ)
            except OSError as error:
                if self._socket is not connection:
                    return None
                raise self._failure(error) from error
        if data:
            return data
        if self._socket is not connection:
            return None
        raise SourceError("The camera's program ended the connection", where=self.name, reason="end")

    def _frame(self, message: Message) -> Frame:
        state = State.FFC if message.flags & FFC else State.SETTLING if message.flags & SETTLING else State.LIVE
        own = Linear(message.scale, message.offset) if message.scale else None
        now = time.monotonic_ns()
        t_ns = message.t_ns if 0 <= now - message.t_ns <= _CLOCK_NS else now
        return profiles.frame(
            self._profile,
            message.counts,
            seq=message.seq,
            t_ns=t_ns,
            where=self.name,
            radiometry=own,
            state=state,
        )

    def _failure(self, error: OSError) -> SourceError:
        if isinstance(error, TimeoutError):
            limit_s = self._budget.open_s
            return SourceError(
                "The camera's program is silent", where=self.name, why=f"{limit_s:g} s", reason="silence"
            )
        kind = ("error", "The camera's socket failed", "Is its program alive?")
        reason, what, remedy = _FAILURES.get(error.errno or 0, kind)
        return SourceError(what, where=self.name, why=error.strerror or error, remedy=remedy, reason=reason)
