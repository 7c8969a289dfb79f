"""One sink in its own thread: a slow, hanging or failing sink harms no other and never the camera."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgeunip.budget import BUDGET, Budget
from edgeunip.errors import SinkClosedError
from edgeunip.health import SinkStatus
from edgeunip.protocols import Buffered, Taker
from edgeunip.redaction import clean
from edgeunip.runtimes.handover import Handover

_CAPACITY = 4

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Port(Generic[Item]):
    """A sink or recorder that may be opened more than once.

    Attributes:
        name: for people; without credentials.
        open: opens it, called in the outlet's thread; None: it cannot be opened anew.
        first: as it was opened already; None: the thread opens it.
    """

    name: str
    open: Callable[[], Taker[Item]] | None
    first: Taker[Item] | None = None

    @classmethod
    def of(cls, taker: Taker[Item]) -> Port[Item]:
        """Return the port of one that is open; its first failure is its end."""
        return cls(taker.name, None, taker)


class Outlet(Generic[Item]):
    """A sink (of results) or a recorder (of frames), its queue and its thread.

    A live stream closes a sink that fails, says so, and opens it anew with growing pauses; what comes meanwhile is
    dropped and counted. For a file the first error is the sink's end, because every item matters. A sink that hangs
    holds up nothing but its own thread.

    Attributes:
        name: the port's.
        queue: what waits for it, each item with what to call once it is written. For a live source its oldest item
            gives way to a new one; else the stream waits.
        ended: whether everything is written and the sink is closed, or given up.
        error: what keeps it from running; None while it runs, and when it ended well. Live, it may pass.
    """

    def __init__(
        self,
        port: Port[Item],
        *,
        live: bool,
        on_end: Callable[[Outlet[Item]], None],
        capacity: int = _CAPACITY,
        budget: Budget = BUDGET,
    ) -> None:
        """Start the thread.

        Args:
            port: the sink.
            live: drop what it is too slow for, and open it anew, instead of waiting and ending.
            on_end: called in the thread, once, when ``ended``.
            capacity: items that may wait.
            budget: the time limits.
        """
        self.name = port.name
        self.queue: Handover[tuple[Item, Callable[[], None]]] = Handover(capacity, newest=live)
        self.ended = False
        self.error: Exception | None = None
        self._port, self._on_end, self._budget = port, on_end, budget
        self._first, self._again = port.first, port.open if live else None
        self._written = self._lost = self._failures = 0
        self._taker: Taker[Item] | None = None
        self._busy_since: float | None = None
        self._pause_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"sink {port.name}", daemon=True)
        self._thread.start()

    @property
    def status(self) -> SinkStatus:
        """How it does: ``queue.offered == written + dropped`` and what waits, the item in the sink's hands included."""
        error, busy_since, taker = self.error, self._busy_since, self._taker
        busy_s = 0.0 if busy_since is None else time.monotonic() - busy_since
        message = clean(str(error)) if error is not None else ""
        if busy_s > self._budget.sink_slow_s:
            message = f"Slow: it has taken nothing for {busy_s:.0f} s"
        running = not message
        if running and isinstance(taker, Buffered) and (trouble := taker.trouble) is not None:
            message = clean(str(trouble))
        dropped = self.queue.dropped + self._lost
        return SinkStatus(self.name, running, message, self._written, dropped, self._failures)

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._serve() and self._again is not None and not isinstance(self.error, SinkClosedError):
            if not self._wait():
                break
        self.queue.close(discard=True)
        self.ended = True
        self._on_end(self)

    def _serve(self) -> bool:
        """Open it and write until the queue ends; return whether all went well."""
        opened_s = time.monotonic()
        if not self._attempt(self._open, opened_s) or (taker := self._taker) is None:
            return False
        well = self._attempt(lambda: self._pump(taker), opened_s)
        self._taker = None
        return self._attempt(taker.close, opened_s, told=not well) and well

    def _open(self) -> None:
        self._taker, self._first = self._first, None
        if self._taker is None:
            if self._port.open is None:
                raise ValueError(f"The port {self.name} is neither open nor can it be opened")
            self._taker = self._port.open()

    def _attempt(self, step: Callable[[], None], opened_s: float, *, told: bool = False) -> bool:
        """Take one step; what goes wrong is told, unless its cause was ``told`` already."""
        self._busy_since = time.monotonic()
        try:
            step()
        except Exception as error:
            if not told:
                self._failed(error, opened_s)
            return False
        finally:
            self._busy_since = None
        return True

    def _pump(self, taker: Taker[Item]) -> None:
        self._busy_since = None
        while (delivery := self.queue.get()) is not None:
            item, written = delivery
            self._busy_since = time.monotonic()
            try:
                taker.write(item)
            except BaseException:
                self._lost += 1
                raise
            self._busy_since = None
            self._written += 1
            written()
            if self.error is not None:
                self.error = None
                logger.warning("The sink %s works again", self.name)

    def _failed(self, error: Exception, opened_s: float) -> None:
        """Note the error and how long to pause: longer each time, until the sink has done well for a while."""
        first_s, longest_s = self._budget.sink_retry_s
        did_well = self.error is None and time.monotonic() - opened_s > longest_s
        self._pause_s = min(2 * self._pause_s, longest_s) if self._pause_s and not did_well else first_s
        self.error = error
        self._failures += 1
        logger.error("The stream goes on without the sink %s. %s", self.name, error)

    def _wait(self) -> bool:
        """Pause; return False when the stream ends meanwhile."""
        return not self.queue.wait_closed(self._pause_s)
