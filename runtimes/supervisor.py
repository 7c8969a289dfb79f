"""What systemd learns of a stream: that it runs, how it does, and that it still turns.

systemd passes a datagram socket in ``NOTIFY_SOCKET``, and in ``WATCHDOG_USEC`` how long it waits for a sign of life
before it kills and starts anew. A sign is given only while every camera's loop turns: a thread that merely lives
proves nothing. A loop turns while its camera is away, too; that is no reason to start anew.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Collection
from types import TracebackType

from typing_extensions import Self

from edgeunip.budget import BUDGET
from edgeunip.health import Board, Health
from edgeunip.redaction import clean

_STATUS_S = 5.0  # between two status lines where there is no watchdog
_LIMIT_S = BUDGET.stop_s / 8  # for one datagram, and for the thread at the end

logger = logging.getLogger(__name__)


def notify(*lines: str) -> bool:
    """Send ``NAME=value`` lines to the supervisor; returns whether there is one that took them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_LIMIT_S)
            sender.sendto("\n".join(lines).encode(), name)
    except OSError as error:
        logger.warning("The supervisor cannot be told how the stream does: %s", error.strerror or error)
        return False
    return True


def patience_s() -> float | None:
    """Return how long the supervisor waits for a sign of life, seconds; None where it does not."""
    own = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if own and text.isascii() and text.isdigit() and int(text) > 0 else None


class Watchdog:
    """Tells the supervisor that the stream is ready, how it does and, while every loop turns, that it lives.

        with Watchdog(board, cameras=names):
            ...  # the stream

    Does nothing without a supervisor.

    Args:
        board: where the loops note what they do.
        cameras: names of the loops that must turn. One that has not turned yet has as long as any other.
    """

    def __init__(self, board: Board, *, cameras: Collection[str]) -> None:
        self._board, self._cameras = board, frozenset(cameras)
        self._patience_s = patience_s()
        self._since_ns = time.monotonic_ns()
        self._ended = threading.Event()
        self._hung = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._since_ns = time.monotonic_ns()
        if notify("READY=1", "STATUS=starting"):
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            notify("STOPPING=1", "STATUS=ending")
            self._thread.join(_LIMIT_S)

    def hanging(self) -> list[str]:
        """Return the cameras whose loop has not turned for half of the supervisor's patience."""
        if self._patience_s is None:
            return []
        turned = {health.camera: health.progress_ns for health in self._board.read()}
        limit_ns = time.monotonic_ns() - round(self._patience_s / 2 * 1e9)
        return sorted(name for name in self._cameras if max(turned.get(name, 0), self._since_ns) < limit_ns)

    def _run(self) -> None:
        # A quarter, so that one sign may be lost.
        pause_s = _STATUS_S if self._patience_s is None else self._patience_s / 4
        while not self._ended.wait(pause_s):
            hanging = self.hanging()
            if hanging and not self._hung:
                logger.error("The loop of %s does not turn; the supervisor will start anew", ", ".join(hanging))
            self._hung = bool(hanging)
            signs = [] if hanging or self._patience_s is None else ["WATCHDOG=1"]
            notify(f"STATUS={status(self._board.read())}", *signs)


def status(healths: Collection[Health]) -> str:
    """Return in one line how the cameras and sinks do."""
    return "; ".join(_status(health) for health in healths) or "no camera yet"


def _status(health: Health) -> str:
    status, totals = health.status, health.totals
    parts = [f"{health.camera} {status.state.value}"]
    if status.message and not health.ok:
        parts.append(status.message)
    parts.append(f"{totals.written} written, {totals.skipped} skipped, {totals.lost} lost")
    parts += [f"{name} off" for name in totals.failed_sinks]
    return " ".join(clean(", ".join(parts)).split())
