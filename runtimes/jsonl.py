"""Results as JSON lines: one line a frame, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from edgeunip.durable import Stream
from edgeunip.errors import SinkClosedError, SinkError, StorageError, UsageError, storage_error
from edgeunip.frame import Result
from edgeunip.protocols import Sink
from edgeunip.runtimes.plain import plain
from edgeunip.runtimes.rotate import OPTIONS, UNLIMITED, Limits, Parts, place
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.spec import Spec

_BLOCK = 65536


def open_jsonl(spec: Spec, setting: Setting) -> Sink:
    """Open ``jsonl:FILE?minutes=10&mb=500&keep=20&free=1000``, or ``jsonl:-`` for standard output.

    Lines of a live camera are appended, its torn last line of an earlier run cut off; those of a file that is read
    replace what was there.

    Raises:
        UsageError: an unknown option, or one that standard output cannot have.
        StorageError, SinkError: the file cannot be written.
    """
    if spec.rest == "-":
        if spec.options:
            raise UsageError("Standard output has no options", where="jsonl:-")
        return StdoutSink()
    spec.known(OPTIONS)
    return JsonlSink(place(spec, setting, shared=True), limits=Limits.of(spec), live=setting.rate_hz is None)


class JsonlSink:
    """Writes one line a result to a file or its parts. Several threads may write."""

    def __init__(self, path: Path, *, limits: Limits = UNLIMITED, live: bool = False) -> None:
        """Open the first file.

        Args:
            path: the file.
            limits: of the parts.
            live: append; else replace.

        Raises:
            StorageError, SinkError: it cannot be written.
        """
        self.name = f"jsonl:{path}"
        self._lock = threading.Lock()
        self._parts = Parts(path, limits, live=live, append=True)
        self._begun_s = time.monotonic()
        try:
            _mend(self._parts.file)
        except BaseException:
            self._parts.close()
            raise

    def write(self, result: Result) -> None:
        """Write one line, in one piece, straight to the operating system.

        Raises:
            StorageError: no space, or the device failed; nothing of the line is left then.
            SinkError: the disk is nearly full.
        """
        line = to_line(result)
        with self._lock:
            self._parts.watch()
            if self._parts.is_due(time.monotonic() - self._begun_s):
                self._parts.next()
                self._begun_s = time.monotonic()
            _append(self._parts.file, line)
            self._parts.used = True

    def close(self) -> None:
        """Force everything onto the disk and close. May be called twice."""
        with self._lock:
            self._parts.close()


class StdoutSink:
    """Writes one line a result to standard output."""

    name = "jsonl:-"

    def write(self, result: Result) -> None:
        """Write one line.

        Raises:
            SinkClosedError: it was closed, or its reader has gone: neither comes back.
            SinkError: it cannot be written.
        """
        if sys.stdout is None:
            raise SinkClosedError("Standard output is closed", where=self.name)
        # Straight to the system: a thread that hangs in Python's own buffer would not let the process end.
        view = memoryview(to_line(result))
        try:
            sys.stdout.flush()
            while view:
                view = view[os.write(sys.stdout.fileno(), view) :]
        except BrokenPipeError as error:
            raise SinkClosedError("The reader of standard output has gone", where=self.name) from error
        except OSError as error:
            raise SinkError(
                "Standard output cannot be written", where=self.name, why=error.strerror or error
            ) from error

    def close(self) -> None:
        """Do nothing: standard output is not ours to close."""


def to_line(result: Result) -> bytes:
    """Return :func:`edgeunip.runtimes.plain.plain` of a result as one line."""
    return (json.dumps(plain(result), allow_nan=False, separators=(",", ":")) + "\n").encode()


def _append(file: Stream, line: bytes) -> None:
    """Write a line; where that fails, leave no part of one."""
    try:
        file.write(line)
    except StorageError:
        with contextlib.suppress(StorageError):  # the first error matters; who opens the file next mends it
            _mend(file)
        raise


def _mend(file: Stream) -> None:
    """Cut off what stands behind the last line break: a line that failed, or whose writer was killed.

    Raises:
        StorageError: the file cannot be read or cut.
    """
    try:
        if not file.path.is_file():
            return
        with file.path.open("rb") as reader:
            size = reader.seek(0, os.SEEK_END)
            whole = _end_of_lines(reader, size)
    except OSError as error:
        raise storage_error(error, file.path) from error
    if whole < size:
        file.truncate(whole)
        file.seek(whole)


def _end_of_lines(reader: BinaryIO, size: int) -> int:
    """Return the position behind the last line break, 0 where there is none."""
    end = size
    while end:
        start = max(0, end - _BLOCK)
        reader.seek(start)
        found = reader.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
