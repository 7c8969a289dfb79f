"""Results of several workers, put back into the order of their frames."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class InOrder(Generic[Item]):
    """Hands on what workers finish, by place, one call at a time; None stands for a place that failed."""

    def __init__(self, hand_on: Callable[[Item], None]) -> None:
        self._hand_on = hand_on
        self._lock = threading.Lock()
        self._done: dict[int, Item | None] = {}
        self._next = 0

    def put(self, place: int, item: Item | None) -> int:
        """Hand on this item and those that waited for it; return how many places are through by it."""
        with self._lock:
            self._done[place] = item
            before = self._next
            while self._next in self._done:
                ready = self._done.pop(self._next)
                self._next += 1
                if ready is not None:
                    self._hand_on(ready)
            return self._next - before
