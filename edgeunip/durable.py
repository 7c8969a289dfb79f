"""The only way a file that must last is written.

A reader sees the old content or the new one, whole, whatever moment the process is killed or the power fails:
temporary file in the same folder, fsync, rename, fsync of the folder. A killed writer leaves at most one temporary
file, ``.NAME.partial``, which the next write to the same name takes over.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edgeunip.errors import StorageError, storage_error

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file ``path`` by ``data``, atomically and durably.

    Raises:
        StorageError: no space, no permission, or another process is writing the same file. The old content stays.
    """
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _partial(path)
        with _locked(temporary) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the file ``path`` by ``text`` in UTF-8, as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Replace the file ``path`` by ``value`` as indented JSON, as :func:`write_bytes` does."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def link(target: str, path: Path) -> None:
    """Point the symbolic link ``path`` to ``target``, atomically and durably."""
    with _storage_errors(path):
        temporary = _partial(path)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)
        sync_folder(path.parent)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Build a whole folder and put it in place of ``path`` in one step when the block ends well.

    Yields the empty folder to fill. Every file in it is fsync'd before the exchange; an existing ``path`` is swapped
    out and removed afterwards. When the block raises, ``path`` is untouched and nothing is left behind.
    """
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = _partial(path)
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir()
    try:
        yield staging
        with _storage_errors(path):
            for file in sorted(staging.rglob("*")):
                _sync(file)
            _sync(staging)
            if path.exists():
                _exchange(staging, path)
            else:
                staging.rename(path)
            sync_folder(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


class Stream(io.RawIOBase):
    """A growing file (a recording, a log) whose content reaches the disk at least every ``sync_every_s`` seconds.

    Each ``write`` goes straight to the operating system, so a killed process loses nothing it wrote; a power cut
    loses at most ``sync_every_s`` seconds.
    """

    def __init__(self, path: Path, *, append: bool = False, sync_every_s: float = 1.0) -> None:
        self.path = path
        self._sync_every_s = sync_every_s
        with _storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("ab" if append else "w+b", buffering=0)
            sync_folder(path.parent)
        self._synced = time.monotonic()

    def write(self, data: Any) -> int:
        """Write all of ``data``; returns its length in bytes."""
        view = memoryview(data).cast("B")
        with _storage_errors(self.path):
            done = 0
            while done < len(view):
                done += self._file.write(view[done:])
            if time.monotonic() - self._synced >= self._sync_every_s:
                self.sync()
        return len(view)

    def sync(self) -> None:
        """Force everything written so far onto the disk."""
        with _storage_errors(self.path):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def truncate(self, size: int | None = None) -> int:
        """Cut the file to ``size`` bytes."""
        with _storage_errors(self.path):
            return self._file.truncate(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset``; returns the new position in bytes."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._file.tell()

    def seekable(self) -> bool:
        """Return True: a muxer may go back to complete its header."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Force everything onto the disk and close. May be called twice."""
        if self.closed:
            return
        try:
            self.sync()
        finally:
            self._file.close()
            super().close()


@contextlib.contextmanager
def exclusive(path: Path, busy: Callable[[], Exception]) -> Iterator[None]:
    """Hold the lock file ``path`` for the block; raise ``busy()`` when another process holds it."""
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy() from None
        yield
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Force the entries of the folder ``path`` (names, renames, removals) onto the disk."""
    _sync(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` empty for writing; two writers of one name exclude each other."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError("Another process is writing the same file", where=path) from None
        file.truncate(0)
        yield file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    """Swap two folders in one step; where the file system cannot, rename one after the other."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), str(other))
    aside = other.with_name(f".{other.name}.old")
    if aside.exists():
        shutil.rmtree(aside)
    other.rename(aside)
    one.rename(other)
    shutil.rmtree(aside)


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error
