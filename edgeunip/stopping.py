"""How signals end a stream: the first in order, the second at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_HUNG_UP = b"edgeunip: SIGHUP: nothing is reloaded; restart edgeunip to change its settings\n"


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event; the second one ends the process at once.

    SIGHUP says that nothing is reloaded; where there was a terminal it means that this has gone, and ends like the
    others. One that is ignored already (``nohup``) stays so.
    """
    event = threading.Event()
    ends = {signal.SIGINT, signal.SIGTERM}
    hung_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    if hung_up and sys.stderr is not None and sys.stderr.isatty():
        ends.add(signal.SIGHUP)

    def ask(number: int, _: FrameType | None) -> None:
        event.set()
        for one in ends:
            signal.signal(one, signal.SIG_DFL)

    def say(number: int, _: FrameType | None) -> None:
        # Not through logging or sys.stderr: this thread may be in the middle of writing to them.
        if sys.stderr is not None:
            with contextlib.suppress(OSError):
                os.write(2, _HUNG_UP)

    handlers = {number: ask for number in ends}
    if hung_up:
        handlers.setdefault(signal.SIGHUP, say)
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End the process now that every file is closed.

    Python would take each object of the model and the engine apart first: on a busy device half a second and more, out
    of the two that a stream has to end.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)
