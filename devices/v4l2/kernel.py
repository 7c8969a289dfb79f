"""The calls into the kernel that a camera needs: one seam, so that tests can put a kernel of their own there."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
from pathlib import Path
from typing import Protocol


class Mapping(Protocol):
    """Memory shared with the driver."""

    def __getitem__(self, part: slice, /) -> bytes:
        """Copy a part of it."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


class Kernel(Protocol):
    """What opens and drives a device node. Every call raises ``OSError`` as the system does."""

    def open(self, path: str) -> int:
        """Open a node for reading without blocking; return its descriptor."""
        ...

    def close(self, node: int) -> None:
        """Close a descriptor."""
        ...

    def ioctl(self, node: int, request: int, argument: bytes) -> bytes:
        """Ask the driver; return ``argument`` as the driver left it."""
        ...

    def mmap(self, node: int, length: int, offset: int) -> Mapping:
        """Map a buffer for reading."""
        ...

    def poll(self, node: int, wake: int, timeout_s: float) -> bool:
        """Wait until ``node`` has news, ``wake`` can be read, or the time is over; tell whether ``node`` has."""
        ...

    def exists(self, path: str) -> bool:
        """Tell whether there is such a node."""
        ...


class Linux:
    """The running kernel."""

    def open(self, path: str) -> int:
        """Open a node for reading without blocking; return its descriptor."""
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self, node: int) -> None:
        """Close a descriptor."""
        os.close(node)

    def ioctl(self, node: int, request: int, argument: bytes) -> bytes:
        """Ask the driver; a signal of ours in between asks again."""
        while True:
            try:
                return fcntl.ioctl(node, request, argument)
            except InterruptedError:
                continue

    def mmap(self, node: int, length: int, offset: int) -> Mapping:
        """Map a buffer for reading."""
        return mmap.mmap(node, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)

    def poll(self, node: int, wake: int, timeout_s: float) -> bool:
        """Wait for ``node`` or ``wake``; an error or hang-up of the node is news as well."""
        waiting = select.poll()
        waiting.register(node, select.POLLIN)
        waiting.register(wake, select.POLLIN)
        return any(who == node for who, _ in waiting.poll(max(0.0, timeout_s) * 1000))

    def exists(self, path: str) -> bool:
        """Tell whether there is such a node."""
        return Path(path).exists()


LINUX = Linux()
