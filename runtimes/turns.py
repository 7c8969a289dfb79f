"""Turns at a thing that only a few may use at once, in the order they asked: no camera starves another."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """``places`` may be inside at once; who waits longest is next. A semaphore lets whoever runs push in."""

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            gate = threading.Lock()
            gate.acquire()
            self._waiting.append(gate)
        gate.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
