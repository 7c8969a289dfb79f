"""One sink in its own thread: a slow or failing sink harms no other and never the camera."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from edgeunip.errors import EdgeunipError
from edgeunip.frame import Result
from edgeunip.protocols import Sink
from edgeunip.runtimes.handover import Handover

_CAPACITY = 4

logger = logging.getLogger(__name__)


class Delivery:
    """One result on its way to every sink; it counts as written once the first sink has taken it."""

    def __init__(self, result: Result, on_written: Callable[[], None]) -> None:
        self.result = result
        self._on_written = on_written
        self._once = threading.Lock()

    def written(self) -> None:
        """Tell that a sink has taken the result."""
        if self._once.acquire(blocking=False):
            self._on_written()


class Outlet:
    """A sink, its queue and its thread.

    Attributes:
        name: the sink's.
        queue: what waits for it. For a live source its oldest result gives way to a new one; else the stream waits.
        ended: whether everything is written and the sink is closed.
        error: why it ended early; None while it runs, and when it ended well.
    """

    def __init__(self, sink: Sink, *, live: bool, on_end: Callable[[Outlet], None]) -> None:
        self.name = sink.name
        self.queue: Handover[Delivery] = Handover(_CAPACITY, newest=live)
        self.ended = False
        self.error: Exception | None = None
        self._sink, self._on_end = sink, on_end
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        for step in (self._pump, self._sink.close):
            try:
                step()
            except Exception as error:
                self._failed(error)
        self.ended = True
        self._on_end(self)

    def _pump(self) -> None:
        try:
            while (delivery := self.queue.get()) is not None:
                self._sink.write(delivery.result)
                delivery.written()
        finally:
            self.queue.close(discard=True)

    def _failed(self, error: Exception) -> None:
        """Keep the first error; the stream decides what it means."""
        if self.error is not None:
            return
        self.error = error
        if isinstance(error, EdgeunipError):
            logger.error("The stream goes on without the sink %s. %s", self.name, error)
