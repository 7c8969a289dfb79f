"""What a command says while it runs: one line a record on standard error, no credential in it, and no flood."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from edgeunip.errors import one_line
from edgeunip.redaction import clean

PERIOD_S = 10.0  # within which a line is said once
_VARIANTS = 5  # lines of one template within a period, however their values differ
_KINDS = 1000  # kinds of lines that are remembered
_WIDTH = 4000  # characters of a line
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

_DIGITS = re.compile(r"\d+")

logger = logging.getLogger(__name__)


def set_up(*, debug: bool = False) -> None:
    """Send every logger, warning and uncaught exception through one handler on standard error.

    Shown is what edgeunip says from INFO on, what other packages say from WARNING on.

    Args:
        debug: show whole tracebacks.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(debug=debug))
    root.setLevel(logging.WARNING)
    logging.getLogger("edgeunip").setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a record that cannot be shown must not print itself, arguments and all
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def traceback_of(error: BaseException) -> str:
    """Return an exception's traceback, without credentials."""
    return clean("".join(traceback.format_exception(type(error), error, error.__traceback__))).rstrip("\n")


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Standard error, whatever that is at the moment."""

    def __init__(self, *, debug: bool) -> None:
        super().__init__(sys.stderr)
        self._limit = RateLimit()
        self.addFilter(self._limit)
        self.setFormatter(Line(debug=debug, journal=_is_journal()))

    def close(self) -> None:
        """Say what was left out and not told yet. Called by logging when Python ends."""
        for text in self._limit.left_out():
            self._write(f"edgeunip: {_fold(clean(text))}")
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line in one piece."""
        self._write(self.format(record))

    def _write(self, line: str) -> None:
        if self.stream is None:  # started with standard error closed
            return
        with contextlib.suppress(OSError, ValueError):  # a terminal that has gone costs the line, not the stream
            over = "\r\x1b[K" if self.stream.isatty() else ""  # in the place of a status line
            self.stream.write(f"{over}{line}\n")
            self.stream.flush()


class Line(logging.Formatter):
    """A record as one line: control characters shown, credentials hidden.

    Args:
        debug: append the traceback, on lines of its own, instead of folding it into one place.
        journal: begin with the priority as systemd's journal reads it.
    """

    def __init__(self, *, debug: bool = False, journal: bool = False) -> None:
        super().__init__()
        self._debug, self._journal = debug, journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or with ``debug`` the lines."""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        text = f"edgeunip: {level}{_message(record)}"
        if record.exc_info and record.exc_info[1] is not None:
            text += f" ({_told(record.exc_info[1])})"
        if left_out := getattr(record, "left_out", 0):
            text += f" [{left_out} more like this were left out]"
        line = _fold(clean(text))
        if self._debug and record.exc_info and record.exc_info[1] is not None:
            line += f"\n{traceback_of(record.exc_info[1])}"
        return f"<{_PRIORITIES.get(record.levelno, 6)}>{line}" if self._journal else line


@dataclass
class _Kind:
    """What was said of one template since ``since_s``, and the last line that was not."""

    since_s: float
    shown: set[str] = field(default_factory=set)
    left_out: int = 0
    last: str = ""


class RateLimit(logging.Filter):
    """Lets a line through once in a period, and at most five that differ in their values only.

    Numbers in a line do not make it another one. The next line of its template says how many were left out.
    """

    def __init__(self, *, period_s: float = PERIOD_S, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._period_s, self._clock = period_s, clock
        self._kinds: OrderedDict[tuple[str, str], _Kind] = OrderedDict()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is shown; its ``left_out`` then says how many were not."""
        text = _message(record)[:_WIDTH]
        line = _DIGITS.sub("0", text)
        with self._lock:
            kind = self._kind((record.name, _DIGITS.sub("0", str(record.msg)[:_WIDTH])))
            if line in kind.shown or len(kind.shown) >= _VARIANTS:
                kind.left_out, kind.last = kind.left_out + 1, text
                return False
            kind.shown.add(line)
            record.left_out, kind.left_out = kind.left_out, 0
        return True

    def left_out(self) -> list[str]:
        """Return a line for every template of which something was left out and not told yet."""
        with self._lock:
            return [f"{kind.left_out} more, the last: {kind.last}" for kind in self._kinds.values() if kind.left_out]

    def _kind(self, key: tuple[str, str]) -> _Kind:
        now = self._clock()
        if key not in self._kinds:
            self._kinds[key] = _Kind(now)
            if len(self._kinds) > _KINDS:
                self._kinds.popitem(last=False)
        kind = self._kinds[key]
        if now - kind.since_s >= self._period_s:
            kind.since_s = now
            kind.shown.clear()
        return kind


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError) as error:  # a template that does not fit its values
        return f"{record.msg} ({error})"


def _told(error: BaseException) -> str:
    """Return an exception and where it came from, in one line."""
    places = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}" if places else ""  # noqa: PTH119
    return f"{type(error).__name__}: {error}{place}"


def _fold(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= _WIDTH else f"{shown[: _WIDTH - 4]} ..."


def _is_journal() -> bool:
    """Tell whether standard error is systemd's journal; a child may have inherited the word, but not the stream."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logger.critical("Unexpected error", exc_info=(kind, error, trace))


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None and not isinstance(told.exc_value, SystemExit):
        name = told.thread.name if told.thread else "a thread"
        error = (told.exc_type, told.exc_value, told.exc_traceback)
        logger.critical("Unexpected error in the thread %s", name, exc_info=error)


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    if told.exc_value is not None:
        error = (told.exc_type, told.exc_value, told.exc_traceback)
        logger.error("%s", told.err_msg or "Unexpected error while something was freed", exc_info=error)
