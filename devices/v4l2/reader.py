"""One opening of a device node: the newest whole frame each time, with the driver's own number and time of capture.

Nobody waits in the kernel without a limit: the node never blocks, and closing wakes whoever waits for a frame.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from edgeunip.devices.profile import Profile
from edgeunip.devices.v4l2 import abi, formats
from edgeunip.devices.v4l2.abi import Buffer
from edgeunip.devices.v4l2.device import Device, PixelFormat
from edgeunip.devices.v4l2.faults import failure, gone
from edgeunip.devices.v4l2.kernel import Kernel
from edgeunip.errors import SourceError
from edgeunip.thermal import Counts

# One being read, one being filled, two for a consumer that is late.
_BUFFERS = 4
# A driver that says "ready" and then "nothing there" is asked again after this time, not at once.
_PAUSE_S = 0.02
# Older than this, a kernel time stamp is on another clock.
_CLOCK_NS = 10_000_000_000


class Taken(NamedTuple):
    """A frame on the wire: counts (H, W), its number from 0, the monotonic time of its capture."""

    counts: Counts
    seq: int
    t_ns: int


class Reader:
    """An open device. One thread works on it at a time; whoever leaves it last frees it, be it the one that closes.

    Attributes:
        path: the node, or a link to it.
        card: what the driver calls the device.
        layout: the frames on the wire.
        rate_hz: frames a second; None where the driver does not tell.
        damaged: frames that the driver marked as damaged, or that were not whole.
        skipped: frames passed over because newer ones had come.
    """

    def __init__(self, path: str, kernel: Kernel, *, profile: Profile | None = None) -> None:
        """Open the node and start its stream.

        Raises:
            SourceError: it is missing, busy, forbidden, no camera, or offers no format that is read.
        """
        self.path = path
        self.damaged = self.skipped = 0
        self._kernel = kernel
        self._node = os.path.realpath(path)
        self._number = Numbering()
        self._working = threading.Lock()
        self._stopped = threading.Event()
        self._device: Device | None = None
        self._packed = profile is not None and profile.packed
        try:
            self._wake = _Wake()
        except OSError as error:  # No descriptor is left.
            raise failure(error, path) from error
        with self._work():
            self._device = device = Device(path, kernel)
            self.card = _check(device, path)
            self.layout = _agree(device, path, profile)
            self.rate_hz = device.rate_hz()
            device.start(_BUFFERS)

    def wait(self, limit_s: float) -> None:
        """Wait for the first buffer that is filled.

        Raises:
            SourceError: none was, for ``limit_s``.
        """
        with self._work() as device:
            ready = device is None or device.poll(self._wake.fd, limit_s)
            if not ready and not self._stopped.is_set():
                raise self._silence(limit_s, 0)

    def take(self, limit_s: float) -> Taken | None:
        """Wait for the newest whole frame; None once closed.

        Raises:
            SourceError: the camera failed, went away, changed its format, or gave no whole frame for ``limit_s``.
        """
        end, damaged, late = time.monotonic() + limit_s, self.damaged, False
        with self._work() as device:
            while device is not None and not self._stopped.is_set():
                if (left_s := end - time.monotonic()) <= 0:
                    raise self._silence(limit_s, self.damaged - damaged)
                if not device.poll(self._wake.fd, left_s):
                    continue
                count, newest = self._drain(device)
                # With every buffer full the driver had none left to fill: even the newest may be old. Once is enough.
                late = count == device.buffers > 1 and not late
                if newest is not None and (taken := self._frame(device, *newest, late=late)) is not None:
                    return taken
                if not count:
                    self._stopped.wait(_PAUSE_S)
        return None

    def close(self, patience_s: float) -> None:
        """End the reading at once. The device is free when this returns, or as soon as the driver lets go of it."""
        self._stopped.set()
        self._wake.set()
        if self._working.acquire(timeout=patience_s):
            try:
                self._free()
            finally:
                self._working.release()

    @contextlib.contextmanager
    def _work(self) -> Iterator[Device | None]:
        """Have the device for oneself. It is freed after any error, and where it was closed meanwhile."""
        with self._working:
            try:
                yield self._device
            except BaseException as error:
                told = self._explain(error) if isinstance(error, OSError) else error
                self._free()
                if told is error:
                    raise
                raise told from error
            finally:
                if self._stopped.is_set():
                    self._free()

    def _free(self) -> None:
        device, self._device = self._device, None
        self._wake.close()
        if device is not None:
            device.close()

    def _explain(self, error: OSError) -> SourceError:
        vanished = self._device is not None and not self._kernel.exists(self._node)
        return gone(self.path) if vanished else failure(error, self.path)

    def _silence(self, limit_s: float, damaged: int) -> SourceError:
        if damaged:
            what, why, reason = "The camera gives only damaged frames", f"{damaged} in {limit_s:.1f} s", "damage"
        else:
            what, why, reason = "The camera gives no frame", f"for {limit_s:.1f} s", "silence"
        return SourceError(what, where=self.path, why=why, remedy="Plug it in again, and see: dmesg", reason=reason)

    def _drain(self, device: Device) -> tuple[int, tuple[Buffer, int] | None]:
        """Take every filled buffer; return how many, and the newest whole one with its number. The rest goes back."""
        newest: tuple[Buffer, int] | None = None
        for count in range(device.buffers):
            if (buffer := device.dequeue()) is None:
                return count, newest
            seq = self._number(buffer.sequence)
            if buffer.flags & abi.FLAG_ERROR or not formats.is_whole(buffer.used, self.layout):
                self.damaged += 1
                device.queue(buffer.number)
                continue
            if newest is not None:
                self.skipped += 1
                device.queue(newest[0].number)
            newest = buffer, seq
        return device.buffers, newest

    def _frame(self, device: Device, buffer: Buffer, seq: int, *, late: bool) -> Taken | None:
        """Copy a frame out of its buffer and hand that back; None if it is damaged or too late."""
        t_ns = capture_ns(buffer, time.monotonic_ns())
        data = b"" if late else device.read(buffer, buffer.used)
        device.queue(buffer.number)
        if late:
            self.skipped += 1
            return None
        counts = formats.counts(data, self.layout, packed=self._packed)
        if counts is None:
            self.damaged += 1
            return None
        height, width = counts.shape
        if (width, height) != (self.layout.width, self.layout.height):
            change = f"The frames change from {self.layout.width}x{self.layout.height} to {width}x{height}"
            raise SourceError(change, where=self.path, why=f"at frame {seq}", reason="format")
        return Taken(counts, seq, t_ns)


class Numbering:
    """Frame numbers from 0 out of the driver's 32-bit ones, which wrap, and which some drivers do not keep."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._seq = 0

    def __call__(self, number: int) -> int:
        """Return the number of the next buffer."""
        if self._last is not None:
            step = (number - self._last) & 0xFFFFFFFF
            self._seq += step if 0 < step < 1 << 31 else 1
        self._last = number
        return self._seq


def capture_ns(buffer: Buffer, now_ns: int) -> int:
    """Return the monotonic time of capture: the driver's stamp, unless it is on another clock."""
    monotonic = buffer.flags & abi.FLAG_CLOCK_MASK == abi.FLAG_CLOCK_MONOTONIC
    return buffer.stamp_ns if monotonic and 0 <= now_ns - buffer.stamp_ns <= _CLOCK_NS else now_ns


class _Wake:
    """Ends a wait in ``poll`` from another thread."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()

    def set(self) -> None:
        """End the wait, and every later one."""
        with self._lock:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Free it; nobody may be waiting. May be called twice."""
        with self._lock:
            fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _check(device: Device, path: str) -> str:
    """Return what the driver calls the device; refuse one that gives no frames."""
    able = device.capability()
    if able.captures:
        return able.card
    raise SourceError(
        "This device node captures no video",
        where=path,
        why=f"{able.card}: {able.why_not}",
        remedy="A camera often has a second node for metadata; try its other /dev/video node.",
    )


def _agree(device: Device, path: str, profile: Profile | None) -> PixelFormat:
    """Agree with the driver on a format."""
    code = formats.choose_format([code for code, _ in device.codes()], path, profile=profile)
    height, width = _size(device, code, profile)
    layout = device.set_format(code, width, height)
    if layout.code == code and layout.width and layout.height:
        return layout
    raise SourceError(
        f"The camera offers {code.strip()} and then gives {layout.code.strip()} {layout.width}x{layout.height}",
        where=path,
        remedy="Another program may have set its format; close it, or plug the camera in again.",
    )


def _size(device: Device, code: str, profile: Profile | None) -> tuple[int, int]:
    """Return (rows, columns): the profile's first that is offered, else its first; without any, what is set."""
    if profile is None or not (profile.sizes or profile.split):
        present = device.get_format()
        return present.height, present.width
    wanted = [*profile.sizes, *([profile.split] if profile.split else [])]
    offered = {(size.height, size.width) for size in device.sizes(code)}
    return next((size for size in wanted if size in offered), wanted[0])
