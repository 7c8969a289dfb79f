"""A kernel with one camera, spoken to as the real one is: by ioctl numbers and structures of bytes.

Its node is a semaphore of the real kernel's, up by one for every filled buffer, so that waiting for it is real, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import time
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeunip.devices.v4l2 import abi

CAPTURES = abi.CAP_CAPTURE | abi.CAP_STREAMING
METADATA = 0x0080_0000
PAGE = 4096


class Buffer:
    """Memory shared by the camera and its reader, and where it is: with the reader, queued or done."""

    def __init__(self, size: int, kernel: FakeKernel) -> None:
        self.data = bytearray(size)
        self.used = self.flags = self.sequence = self.stamp_ns = 0
        self._kernel = kernel

    def __getitem__(self, part: slice, /) -> bytes:
        return bytes(self.data[part])

    def close(self) -> None:
        self._kernel.mapped -= 1


class FakeKernel:
    """One camera.

    Attributes:
        fails: errors by request: it fails with that number as long as it stands here.
        storm: the node is always ready, and there is never a buffer.
        unplugged: the node is gone; ``lost_as`` is what its calls fail with then.
        calls: how often each request came.
    """

    def __init__(
        self,
        *,
        codes: Sequence[str] = ("Y16 ",),
        sizes: Sequence[tuple[int, int]] = ((120, 160),),
        interval: tuple[int, int] = (1, 25),
        padding: int = 0,
        can: int = CAPTURES,
        most_buffers: int = 32,
        gives: str | None = None,
        clock: int = abi.FLAG_CLOCK_MONOTONIC,
    ) -> None:
        self.codes, self.sizes, self.interval, self.padding = codes, sizes, interval, padding
        self.can, self.most_buffers, self.gives, self.clock = can, most_buffers, gives, clock
        self.fails: dict[int, int] = {}
        self.storm = self.unplugged = self.streaming = False
        self.lost_as = errno.EINVAL
        self.calls: Counter[int] = Counter()
        self.opened: list[str] = []
        self.mapped = self.sequence = 0
        self.code, (self.height, self.width) = codes[0], sizes[0]
        self.buffers: list[Buffer] = []
        self.queued: deque[int] = deque()
        self.done: deque[int] = deque()
        self.node = -1

    # The camera's side.

    @property
    def stride(self) -> int:
        return self.width * (1 if self.code in ("GREY", "NV12", "YU12") else 2) + self.padding

    @property
    def size(self) -> int:
        return self.stride * self.height * (3 if self.code in ("NV12", "YU12") else 2) // 2

    def expose(
        self,
        data: bytes | NDArray[np.generic] = b"",
        *,
        used: int | None = None,
        flags: int = 0,
        stamp_ns: int | None = None,
    ) -> None:
        """Fill the next buffer; without a free one the frame is lost."""
        sequence, self.sequence = self.sequence, (self.sequence + 1) & 0xFFFFFFFF
        if not (self.streaming and self.queued):
            return
        index = self.queued.popleft()
        buffer, raw = self.buffers[index], data if isinstance(data, bytes) else data.tobytes()
        buffer.data[: len(raw)] = raw
        buffer.used = (len(raw) or self.size) if used is None else used
        buffer.flags, buffer.sequence = flags | self.clock, sequence
        buffer.stamp_ns = time.monotonic_ns() if stamp_ns is None else stamp_ns
        self.done.append(index)
        os.eventfd_write(self.node, 1)

    def unplug(self, lost_as: int = errno.EINVAL) -> None:
        """Take the camera away: whoever waits for it is woken."""
        self.unplugged, self.lost_as = True, lost_as
        if self.node >= 0:
            os.eventfd_write(self.node, 1)

    def plug(self) -> None:
        self.unplugged = False

    # The reader's side.

    def exists(self, path: str) -> bool:
        return not self.unplugged

    def open(self, path: str) -> int:
        self.opened.append(path)
        if self.unplugged:
            raise _error(errno.ENOENT)
        self._fail(0)
        self.node = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.sequence = 0
        return self.node

    def close(self, node: int) -> None:
        os.close(node)
        self.streaming, self.node = False, -1
        self.buffers, self.queued, self.done = [], deque(), deque()

    def mmap(self, node: int, length: int, offset: int) -> Buffer:
        self.mapped += 1
        buffer = self.buffers[offset // PAGE]
        assert length == len(buffer.data)
        return buffer

    def poll(self, node: int, wake: int, timeout_s: float) -> bool:
        if self.storm:
            return True
        waiting = select.poll()
        waiting.register(node, select.POLLIN)
        waiting.register(wake, select.POLLIN)
        return any(who == node for who, _ in waiting.poll(timeout_s * 1000))

    def ioctl(self, node: int, request: int, argument: bytes) -> bytes:
        self.calls[request] += 1
        if self.unplugged:
            raise _error(self.lost_as)
        self._fail(request)
        assert len(argument) == (request >> 16) & 0x3FFF
        return {
            abi.QUERYCAP: self._querycap,
            abi.ENUM_FMT: self._enum_fmt,
            abi.ENUM_FRAMESIZES: self._enum_sizes,
            abi.ENUM_FRAMEINTERVALS: self._enum_intervals,
            abi.G_FMT: self._get_format,
            abi.S_FMT: self._set_format,
            abi.G_PARM: self._get_parm,
            abi.REQBUFS: self._reqbufs,
            abi.QUERYBUF: self._querybuf,
            abi.QBUF: self._qbuf,
            abi.DQBUF: self._dqbuf,
            abi.STREAMON: self._streamon,
            abi.STREAMOFF: self._streamoff,
        }[request](argument)

    def _fail(self, request: int) -> None:
        if request in self.fails:
            raise _error(self.fails[request])

    def _querycap(self, argument: bytes) -> bytes:
        can = abi.CAP_DEVICE_CAPS | CAPTURES | METADATA
        return abi.CAPABILITY.pack(b"uvcvideo", b"PureThermal\0junk", b"usb-1", 0x60100, can, self.can)

    def _enum_fmt(self, argument: bytes) -> bytes:
        index, kind, *_ = abi.FMTDESC.unpack(argument)
        if kind != 1 or index >= len(self.codes):
            raise _error(errno.EINVAL)
        return abi.FMTDESC.pack(index, kind, 0, b"a format", abi.code_number(self.codes[index]))

    def _enum_sizes(self, argument: bytes) -> bytes:
        index, code, *_ = abi.FRMSIZE.unpack(argument)
        if abi.code_text(code) not in self.codes or index >= len(self.sizes):
            raise _error(errno.EINVAL)
        height, width = self.sizes[index]
        return abi.FRMSIZE.pack(index, code, 1, width, height, 0, 0, 0, 0)

    def _enum_intervals(self, argument: bytes) -> bytes:
        index, code, width, height, *_ = abi.FRMIVAL.unpack(argument)
        if (height, width) not in self.sizes or index >= 1:
            raise _error(errno.EINVAL)
        return abi.FRMIVAL.pack(index, code, width, height, 1, *self.interval, 0, 0, 0, 0)

    def _get_format(self, argument: bytes) -> bytes:
        number = abi.code_number(self.gives or self.code)
        return abi.FORMAT.pack(1, self.width, self.height, number, 1, self.stride, self.size, *(0,) * 6)

    def _set_format(self, argument: bytes) -> bytes:
        _, width, height, number, *_ = abi.FORMAT.unpack(argument)
        assert not self.buffers, "a format is set before buffers are there"
        self.code = abi.code_text(number) if abi.code_text(number) in self.codes else self.codes[0]
        self.height, self.width = min(self.sizes, key=lambda size: abs(size[0] - height) + abs(size[1] - width))
        return self._get_format(argument)

    def _get_parm(self, argument: bytes) -> bytes:
        return abi.STREAMPARM.pack(1, abi.CAP_TIMEPERFRAME, 0, *self.interval)

    def _reqbufs(self, argument: bytes) -> bytes:
        count, kind, memory = abi.REQUESTBUFFERS.unpack(argument)
        assert (kind, memory) == (1, 1)
        assert count or not self.mapped, "buffers are freed before they are unmapped"
        self.buffers = [Buffer(self.size, self) for _ in range(min(count, self.most_buffers))]
        return abi.REQUESTBUFFERS.pack(len(self.buffers), kind, memory)

    def _querybuf(self, argument: bytes) -> bytes:
        return self._buffer(abi.BUFFER.unpack(argument)[0])

    def _qbuf(self, argument: bytes) -> bytes:
        index = abi.BUFFER.unpack(argument)[0]
        assert index not in self.queued and index not in self.done, "a buffer is queued twice"
        self.queued.append(index)
        return argument

    def _dqbuf(self, argument: bytes) -> bytes:
        if self.storm or not self.done:
            raise _error(errno.EAGAIN)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.node)
        return self._buffer(self.done.popleft())

    def _streamon(self, argument: bytes) -> bytes:
        self.streaming = True
        return argument

    def _streamoff(self, argument: bytes) -> bytes:
        self.streaming = False
        self.queued.clear()
        self.done.clear()
        return argument

    def _buffer(self, index: int) -> bytes:
        one = self.buffers[index]
        seconds, rest = divmod(one.stamp_ns, 1_000_000_000)
        return abi.BUFFER.pack(
            *(index, 1, one.used, one.flags, 1, seconds, rest // 1000),
            *(one.sequence, 1, index * PAGE, len(one.data)),
        )


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
