"""One open V4L2 device: formats, buffers, streaming. Every method raises ``OSError`` as the kernel does."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgeunip.devices.v4l2 import abi
from edgeunip.devices.v4l2.abi import Buffer
from edgeunip.devices.v4l2.kernel import Kernel, Mapping

# More entries than any list of a driver has: one that never ends must not hold us.
_LONGEST_LIST = 256


@dataclass(frozen=True)
class Capability:
    """What a node says of itself. ``captures``: frames can be had from it, by streaming of single planes."""

    driver: str
    card: str
    bus: str
    captures: bool
    why_not: str = ""


@dataclass(frozen=True)
class PixelFormat:
    """How frames stand in a buffer: ``code`` as :func:`edgeunip.devices.v4l2.abi.code_text`, ``stride`` in bytes."""

    code: str
    width: int
    height: int
    stride: int
    size: int


@dataclass(frozen=True)
class Size:
    """A frame size a camera offers, and the frames a second it offers there."""

    width: int
    height: int
    rates_hz: tuple[float, ...] = ()


class Device:
    """An open node. ``close`` gives everything back, in whatever state the device is."""

    def __init__(self, path: str, kernel: Kernel) -> None:
        self._kernel = kernel
        self._mappings: list[Mapping] = []
        self._requested = self._streaming = False
        self._node: int | None = kernel.open(path)

    @property
    def buffers(self) -> int:
        """How many buffers frames come in."""
        return len(self._mappings)

    def capability(self) -> Capability:
        """Return who the device is."""
        raw = self._ask(abi.QUERYCAP, bytes(abi.CAPABILITY.size))
        driver, card, bus, _, driver_can, node_can = abi.CAPABILITY.unpack(raw)
        can = node_can if driver_can & abi.CAP_DEVICE_CAPS else driver_can
        why = _why_not(can)
        return Capability(abi.name_text(driver), abi.name_text(card), abi.name_text(bus), not why, why)

    def codes(self) -> list[tuple[str, str]]:
        """Return (code, description) of the formats it offers."""
        answers = self._list(abi.ENUM_FMT, lambda index: abi.FMTDESC.pack(index, abi.CAPTURE, 0, b"", 0))
        fields = (abi.FMTDESC.unpack(answer) for answer in answers)
        return [(abi.code_text(number), abi.name_text(text)) for _, _, _, text, number in fields]

    def sizes(self, code: str) -> list[Size]:
        """Return the frame sizes of a format; of a continuous range the smallest and the largest."""
        number, found = abi.code_number(code), []
        zeros = (0,) * 6
        for answer in self._list(abi.ENUM_FRAMESIZES, lambda index: abi.FRMSIZE.pack(index, number, 0, *zeros)):
            _, _, kind, *values = abi.FRMSIZE.unpack(answer)
            if kind == abi.SIZE_DISCRETE:
                found.append((values[0], values[1]))
            else:
                found += [(values[0], values[3]), (values[1], values[4])]
                break  # a range is the whole list
        return [Size(width, height, self._rates(number, width, height)) for width, height in found]

    def get_format(self) -> PixelFormat:
        """Return the format that is set."""
        return self._format(abi.G_FMT, 0, 0, 0)

    def set_format(self, code: str, width: int, height: int) -> PixelFormat:
        """Ask for a format and return what the driver made of it."""
        return self._format(abi.S_FMT, abi.code_number(code), width, height)

    def rate_hz(self) -> float | None:
        """Return the frames a second that are set; None where the driver does not tell."""
        try:
            raw = self._ask(abi.G_PARM, abi.STREAMPARM.pack(abi.CAPTURE, 0, 0, 0, 0))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):  # the driver knows no rates
                return None
            raise
        _, capability, _, numerator, denominator = abi.STREAMPARM.unpack(raw)
        return _rate(numerator, denominator) if capability & abi.CAP_TIMEPERFRAME else None

    def start(self, count: int) -> None:
        """Get up to ``count`` buffers from the driver, hand them in empty, and start the stream."""
        raw = self._ask(abi.REQBUFS, abi.REQUESTBUFFERS.pack(count, abi.CAPTURE, abi.MMAP))
        self._requested = True
        granted = min(abi.REQUESTBUFFERS.unpack(raw)[0], count)
        if not granted:
            raise OSError(errno.ENOMEM, "the driver gives no buffers")
        for index in range(granted):
            buffer = abi.unpack_buffer(self._ask(abi.QUERYBUF, abi.pack_buffer(index)))
            self._mappings.append(self._kernel.mmap(self._open_node(), buffer.length, buffer.offset))
            self.queue(index)
        self._ask(abi.STREAMON, abi.INT.pack(abi.CAPTURE))
        self._streaming = True

    def poll(self, wake: int, timeout_s: float) -> bool:
        """Wait for a buffer, at most ``timeout_s``, or until ``wake`` can be read; tell whether there is news."""
        return self._kernel.poll(self._open_node(), wake, timeout_s)

    def dequeue(self) -> Buffer | None:
        """Take the oldest filled buffer; None where none is filled."""
        try:
            buffer = abi.unpack_buffer(self._ask(abi.DQBUF, abi.pack_buffer(0)))
        except BlockingIOError:
            return None
        if buffer.number >= len(self._mappings):
            raise OSError(errno.EIO, f"the driver gave buffer {buffer.number} of {len(self._mappings)}")
        return buffer

    def read(self, buffer: Buffer, size: int) -> bytes:
        """Copy the first ``size`` bytes out of a buffer that was taken."""
        return self._mappings[buffer.number][:size]

    def queue(self, index: int) -> None:
        """Hand a buffer back, to be filled anew."""
        self._ask(abi.QBUF, abi.pack_buffer(index))

    def close(self) -> None:
        """Stop the stream, free the buffers, close the node. May be called twice."""
        node, self._node = self._node, None
        if node is None:
            return
        # A device that is gone refuses all of this; the descriptor is free afterwards in any case.
        with contextlib.suppress(OSError):
            if self._streaming:
                self._kernel.ioctl(node, abi.STREAMOFF, abi.INT.pack(abi.CAPTURE))
        while self._mappings:
            self._mappings.pop().close()
        with contextlib.suppress(OSError):
            if self._requested:
                self._kernel.ioctl(node, abi.REQBUFS, abi.REQUESTBUFFERS.pack(0, abi.CAPTURE, abi.MMAP))
        with contextlib.suppress(OSError):
            self._kernel.close(node)

    def _open_node(self) -> int:
        if self._node is None:
            raise OSError(errno.EBADF, "the camera was closed")
        return self._node

    def _ask(self, request: int, argument: bytes) -> bytes:
        return self._kernel.ioctl(self._open_node(), request, argument)

    def _list(self, request: int, ask: Callable[[int], bytes]) -> Iterator[bytes]:
        """Yield the answers of an enumeration, which ends with EINVAL; of one the driver does not know, none."""
        for index in itertools.islice(itertools.count(), _LONGEST_LIST):
            try:
                yield self._ask(request, ask(index))
            except OSError as error:
                if error.errno == errno.EINVAL or (error.errno == errno.ENOTTY and request != abi.ENUM_FMT):
                    return
                raise

    def _rates(self, number: int, width: int, height: int) -> tuple[float, ...]:
        found: list[float | None] = []
        zeros = (0,) * 6
        answers = self._list(
            abi.ENUM_FRAMEINTERVALS, lambda index: abi.FRMIVAL.pack(index, number, width, height, 0, *zeros)
        )
        for answer in answers:
            _, _, _, _, kind, *values = abi.FRMIVAL.unpack(answer)
            found.append(_rate(values[0], values[1]))
            if kind != abi.INTERVAL_DISCRETE:
                found.append(_rate(values[2], values[3]))
                break
        return tuple(rate for rate in found if rate)

    def _format(self, request: int, number: int, width: int, height: int) -> PixelFormat:
        fields = [0] * 12
        fields[:4] = [width, height, number, abi.FIELD_ANY]
        answer = self._ask(request, abi.FORMAT.pack(abi.CAPTURE, *fields))
        _, width, height, number, _, stride, size, *_ = abi.FORMAT.unpack(answer)
        return PixelFormat(abi.code_text(number), width, height, stride, size)


def _why_not(can: int) -> str:
    if can & abi.CAP_CAPTURE:
        return "" if can & abi.CAP_STREAMING else "its driver does not stream"
    if can & abi.CAP_CAPTURE_MPLANE:
        return "its frames come in several planes"
    return "it is for something else, such as metadata"


def _rate(numerator: int, denominator: int) -> float | None:
    """Return the rate of an interval in fractions of a second; None where it makes no sense."""
    rate = denominator / numerator if numerator else 0.0
    return rate if 0 < rate <= 1000 else None
