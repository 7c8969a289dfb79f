"""The files of one sink: which name comes next, when it is time for it, which old ones go, and room left on the disk.

A part is called ``NAME-YYYYmmdd-HHMMSS.EXT``. Names only ever grow: where the clock has jumped back, the newest name
gets a number behind it, so that the oldest part is always the first by name.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from edgeunip.durable import Stream
from edgeunip.errors import SinkError, StorageError, UsageError, storage_error
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.spec import Spec, positive

OPTIONS = ("minutes", "mb", "keep", "free")

_RESERVE_MB = 200.0  # of a live camera that nobody may be looking at
_WATCH_S = 1.0  # between two looks at the disk
_MARGIN = 1.1  # more room than the reserve to begin with, so that a sink does not stop and go
_MB = 1_000_000


@dataclass(frozen=True)
class Limits:
    """How long and how large files may grow.

    Attributes:
        minutes: length of a part; None: no limit.
        megabytes: size of a part; None: no limit.
        keep: parts that are kept; None: all.
        free: megabytes that stay free on the disk; None: 200 of a live camera, else none.
    """

    minutes: float | None = None
    megabytes: float | None = None
    keep: int | None = None
    free: float | None = None

    @classmethod
    def of(cls, spec: Spec) -> Limits:
        """Read a sink's options ``minutes``, ``mb``, ``keep``, ``free``.

        Raises:
            UsageError: a value is none.
        """
        return cls(
            spec.option("minutes", positive, None),
            spec.option("mb", positive, None),
            spec.option("keep", _count, None),
            spec.option("free", _amount, None),
        )

    @property
    def rotates(self) -> bool:
        """Whether there are parts, and old ones may go where room is short."""
        return (self.minutes, self.megabytes, self.keep) != (None, None, None)


UNLIMITED = Limits()


class Parts:
    """The files of one sink, one after the other.

    Without limits there is one file, ``path`` itself. Of a live camera nothing that exists is replaced: where ``path``
    holds something, a part beside it is written.

    Attributes:
        file: the one that is being written.
        used: whether it holds anything, for its writer to set; a part that does not is removed when it is closed.
    """

    def __init__(self, path: Path, limits: Limits = UNLIMITED, *, live: bool = False, append: bool = False) -> None:
        """Open the first file.

        Args:
            path: the name, of which those of the parts are made.
            limits: of the parts.
            live: nobody may be looking: nothing is replaced, and the disk is not filled.
            append: of a live camera's single file: go on with what ``path`` holds.

        Raises:
            StorageError: it cannot be written.
            SinkError: the disk is nearly full.
        """
        self._path, self._limits, self._live, self._append = path, limits, live, append
        self._identity: tuple[int, int] | None = None
        self._look_s = 0.0
        self.used = False
        self._reserve = (_RESERVE_MB if live else 0.0) if limits.free is None else limits.free
        self._pattern = re.compile(
            rf"{re.escape(path.stem)}-(\d{{8}}-\d{{6}})(?:-(\d{{1,9}}))?{re.escape(path.suffix)}"
        )
        self.file = self._open(first=True)

    def is_due(self, seconds: float) -> bool:
        """Tell whether it is time for the next part, this one being ``seconds`` long."""
        minutes, megabytes = self._limits.minutes, self._limits.megabytes
        long = minutes is not None and seconds >= 60 * minutes
        return long or (megabytes is not None and self.file.tell() >= megabytes * _MB)

    def next(self) -> Stream:
        """Close the file and open the next one.

        Raises:
            StorageError, SinkError: as for the first.
        """
        self.close()
        self.file = self._open()
        self.used = False
        return self.file

    def watch(self) -> None:
        """Look at the disk, at most once a second: remove old parts where room is short.

        Raises:
            SinkError: the disk is nearly full, or the file has gone.
            StorageError: an old part cannot be removed.
        """
        if time.monotonic() < self._look_s:
            return
        self._look_s = time.monotonic() + _WATCH_S
        if _identity(self.file.path) != self._identity:
            raise SinkError("The file was removed or replaced while it was written", where=self.file.path)
        self._make_room(self._reserve, keep=self.file.path)

    def close(self) -> None:
        """Close the file. May be called twice."""
        try:
            self.file.close()
        finally:
            if not self.used and self.file.path != self._path:
                with contextlib.suppress(OSError):  # an empty file more is no harm, and the first error matters
                    self.file.path.unlink(missing_ok=True)

    def _open(self, *, first: bool = False) -> Stream:
        if self._path.parent.is_dir():
            self._make_room(_MARGIN * self._reserve)
        file = self._first() if first and not self._limits.rotates else self._part()
        self._identity = _identity(file.path)
        self._look_s = time.monotonic() + _WATCH_S
        try:
            self._forget()
        except BaseException:
            file.close()
            raise
        return file

    def _first(self) -> Stream:
        if not self._live:
            return Stream(self._path)
        if self._append:
            return Stream(self._path, append=True)
        held = self._path.is_file() and self._path.stat().st_size
        return self._part() if held else Stream(self._path)

    def _part(self) -> Stream:
        stamp, number = self._next_name()
        while True:
            behind = f"-{number}" if number else ""
            path = self._path.with_name(f"{self._path.stem}-{stamp}{behind}{self._path.suffix}")
            try:
                return Stream(path, new=True)
            except StorageError as error:
                if not isinstance(error.__cause__, FileExistsError):
                    raise
            number += 1

    def _next_name(self) -> tuple[str, int]:
        now = datetime.now().strftime("%Y%m%d-%H%M%S")
        stamp, number, _ = max(self._existing(), default=("", 0, self._path))
        return (now, 0) if now > stamp else (stamp, number + 1)

    def _existing(self) -> list[tuple[str, int, Path]]:
        """Return (stamp, number, path) of every part there is, oldest first."""
        try:
            names = os.listdir(self._path.parent)  # noqa: PTH208  names alone are wanted
        except FileNotFoundError:
            return []
        except OSError as error:
            raise storage_error(error, self._path.parent) from error
        found = [match for name in names if (match := self._pattern.fullmatch(name))]
        return sorted((match[1], int(match[2] or 0), self._path.with_name(match[0])) for match in found)

    def _forget(self) -> None:
        """Remove the oldest parts beyond those that are kept."""
        if self._limits.keep is not None:
            for _, _, path in self._existing()[: -self._limits.keep]:
                _remove(path)

    def _make_room(self, megabytes: float, *, keep: Path | None = None) -> None:
        if (free := self._free_mb()) >= megabytes:
            return
        for _, _, path in self._existing() if self._limits.rotates else []:
            if path != keep:
                _remove(path)
                if (free := self._free_mb()) >= megabytes:
                    return
        raise SinkError(
            "The disk is nearly full",
            where=self._path,
            why=f"{free:.0f} MB are free, {megabytes:.0f} shall be",
            remedy="Free some space; the option free=MB sets how much stays free.",
        )

    def _free_mb(self) -> float:
        try:
            found = os.statvfs(self._path.parent)
        except OSError as error:
            raise storage_error(error, self._path) from error
        return found.f_bavail * found.f_frsize / _MB


def place(spec: Spec, setting: Setting, *, shared: bool = False) -> Path:
    """Return the file a sink writes.

    Args:
        spec: the sink.
        setting: its stream.
        shared: one file may hold several cameras.

    Raises:
        UsageError: several cameras need a file each.
    """
    if len(setting.cameras) > 1 and not shared:
        raise UsageError(
            f"One {spec.kind} file cannot hold several cameras",
            where=spec.rest,
            remedy="Write {camera} in its name, which becomes each camera's.",
        )
    return Path(spec.rest)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    return found.st_dev, found.st_ino


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("it must be at least 1")
    return value


def _amount(text: str) -> float:
    return 0.0 if text == "0" else positive(text)
