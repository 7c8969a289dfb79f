"""Results as JSON lines: one line a frame, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from edgeunip.durable import Stream
from edgeunip.errors import SinkError
from edgeunip.frame import ClassStatistics, Result


class JsonlSink:
    """Writes one line a result to a file or to standard output."""

    def __init__(self, path: Path | None) -> None:
        """Open ``path``, replacing what it held; None is standard output.

        Raises:
            StorageError: it cannot be written.
        """
        self.name = "jsonl:-" if path is None else f"jsonl:{path}"
        self._file = None if path is None else Stream(path)

    def write(self, result: Result) -> None:
        """Write one line, in one piece, straight to the operating system.

        Raises:
            StorageError: no space, or the device failed.
            SinkError: the reader of standard output has gone.
        """
        line = (json.dumps(to_json(result), allow_nan=False, separators=(",", ":")) + "\n").encode()
        if self._file is None:
            _to_stdout(line)
        else:
            self._file.write(line)

    def close(self) -> None:
        """Force everything onto the disk and close. May be called twice."""
        if self._file is not None:
            self._file.close()


def to_json(result: Result) -> dict[str, Any]:
    """Return what a result says, without its pictures; what is unknown is None.

    Temperatures have two decimals, degC; ``area`` four, 0..1; ``age_ms`` one.
    """
    frame = result.frame
    return {
        "seq": frame.seq,
        "t_ns": frame.t_ns,
        "age_ms": _rounded(result.age_ms, 1),
        "state": frame.state.value,
        "dropped": result.dropped,
        "classes": {name: _statistics(found) for name, found in result.classes.items()},
    }


def _statistics(found: ClassStatistics) -> dict[str, Any]:
    return {
        "pixels": found.pixels,
        "area": _rounded(found.area, 4),
        "min_c": _rounded(found.min_c, 2),
        "mean_c": _rounded(found.mean_c, 2),
        "max_c": _rounded(found.max_c, 2),
        "hotspot": None if found.hotspot is None else list(found.hotspot),
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, digits)


def _to_stdout(line: bytes) -> None:
    try:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        # What is still buffered would fail once more when Python exits; let it go nowhere.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise SinkError("The reader of standard output has gone", where="jsonl:-") from error
    except OSError as error:
        raise SinkError("Standard output cannot be written", where="jsonl:-", why=error.strerror) from error
