"""The edge between two threads of a stream: a bounded buffer that either waits or lets the oldest go, and counts."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Handover(Generic[Item]):
    """A bounded first-in first-out buffer. ``offered == taken + dropped + waiting`` at every moment.

    Attributes:
        offered: items put so far, refused ones included.
        taken: items got so far.
        dropped: items that nobody will get: pushed out by newer ones, discarded, or put after the close.
    """

    def __init__(self, capacity: int, *, newest: bool) -> None:
        """Start empty.

        Args:
            capacity: items it holds.
            newest: when full, drop the oldest item instead of waiting for room.
        """
        self._capacity, self._newest = capacity, newest
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self.closed = False
        self.offered = self.taken = self.dropped = 0

    def put(self, item: Item) -> None:
        """Add an item; when full, wait or drop the oldest. After the close the item is dropped."""
        with self._changed:
            self.offered += 1
            if not self._newest:
                self._changed.wait_for(lambda: self.closed or len(self._items) < self._capacity)
            if self.closed:
                self.dropped += 1
                return
            if len(self._items) == self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until there is an item, or no more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._items)

    def get(self, *, wait: bool = True) -> Item | None:
        """Return the oldest item, waiting for one; None once it is closed and empty, or empty without ``wait``."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self.closed or self._items)
            if not self._items:
                return None
            self.taken += 1
            self._changed.notify_all()
            return self._items.popleft()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until no more items will come; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self.closed, timeout_s)

    def close(self, *, discard: bool = False) -> None:
        """Take no more items; ``discard`` drops those that wait. May be called again, also to discard later."""
        with self._changed:
            self.closed = True
            if discard:
                self.dropped += len(self._items)
                self._items.clear()
            self._changed.notify_all()
