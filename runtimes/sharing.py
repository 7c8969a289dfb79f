"""One sink of several cameras: a JSON file, a page, a broker. Each camera's stream writes to a lease of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from edgeunip.errors import EdgeunipError, SinkError
from edgeunip.protocols import Buffered, Taker

Item = TypeVar("Item")


class Shared(Generic[Item]):
    """Opens a sink for the first lease, and closes it with the last one, or when one finds it broken."""

    def __init__(self, name: str, open_sink: Callable[[], Taker[Item]]) -> None:
        self.name = name
        self._open = open_sink
        self._lock = threading.Lock()
        self._sink: Taker[Item] | None = None
        self._leases: set[_Lease[Item]] = set()

    def lease(self) -> Taker[Item]:
        """Return a sink to write to; where the shared one is closed, it is opened first.

        Raises:
            SinkError, StorageError: it cannot be opened.
        """
        with self._lock:
            if self._sink is None:
                self._sink = self._open()
                self.name = self._sink.name
            lease = _Lease(self, self._sink)
            self._leases.add(lease)
            return lease

    def write(self, lease: _Lease[Item], item: Item) -> None:
        """Write for one lease; a failure closes the sink for all, and each opens its lease anew."""
        with self._lock:
            if lease.sink is not self._sink:
                raise SinkError("The sink was closed after a failure of another camera's stream", where=self.name)
            try:
                lease.sink.write(item)
            except BaseException:
                sink, self._sink = self._sink, None
                self._leases.clear()
                with contextlib.suppress(EdgeunipError):  # the first error matters
                    sink.close()
                raise

    def close(self, lease: _Lease[Item]) -> None:
        """Give a lease back."""
        with self._lock:
            self._leases.discard(lease)
            if self._sink is not None and self._sink is lease.sink and not self._leases:
                sink, self._sink = self._sink, None
                sink.close()


class _Lease(Generic[Item]):
    """One camera's share of a sink."""

    def __init__(self, shared: Shared[Item], sink: Taker[Item]) -> None:
        self.name = sink.name
        self.sink = sink
        self._shared = shared

    @property
    def trouble(self) -> Exception | None:
        return self.sink.trouble if isinstance(self.sink, Buffered) else None

    def write(self, item: Item, /) -> None:
        self._shared.write(self, item)

    def close(self) -> None:
        self._shared.close(self)
