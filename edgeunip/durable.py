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
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from edgeunip.errors import StorageError, storage_error

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def write_bytes(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace the file ``path`` by ``data``, atomically and durably.

    Args:
        path: the file.
        data: its new content.
        mode: its permissions, set before a byte of ``data`` is on the disk; None for those of any new file.

    Raises:
        StorageError: no space, no permission, or another process is writing the same file. The old content stays,
            unless the failure is the very last step's (fsync of the folder): then the new one is there.
    """
    with _storage_errors(path):
        _make_folder(path.parent)
        temporary = _partial(path)
        with _locked(temporary) as file:
            try:
                file.truncate(0)
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
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
        _make_folder(path.parent)
        temporary = _partial(path)
        _remove(temporary)
        temporary.symlink_to(target)
        try:
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Build a whole folder and put it in place of ``path`` in one step when the block ends well.

    Yields the empty folder to fill. Every file in it is fsync'd before the exchange; an existing ``path`` is swapped
    out and removed afterwards. When the block raises, ``path`` is untouched and nothing is left behind.

    Raises:
        StorageError: no space, no permission, or another process is writing the same folder.
    """
    with _storage_errors(path), contextlib.ExitStack() as held:
        _make_folder(path.parent)
        staging = _partial(path)
        _make_staging(staging)
        held.enter_context(_held(staging))
        try:
            _put_back(path)
            _empty(staging)
            yield staging
            _sync_tree(staging)
            if path.is_dir() and not path.is_symlink():
                held.enter_context(_held(path))  # once swapped out it has the staging folder's name, still ours
            swapped_out = _put_in_place(staging, path)
        except BaseException:
            _discard(staging)
            raise
        sync_folder(path.parent)  # before the old one goes: a power cut must not bring back its name and not its files
        if swapped_out:
            _discard(swapped_out)


class Stream(io.RawIOBase):
    """A growing file (a recording, a log) whose content reaches the disk at least every ``sync_every_s`` seconds.

    Each ``write`` goes straight to the operating system, so a killed process loses nothing it wrote; a power cut
    loses at most what was written in its last ``sync_every_s`` seconds, also where nothing is written any more.
    """

    def __init__(self, path: Path, *, append: bool = False, new: bool = False, sync_every_s: float = 1.0) -> None:
        """Open ``path``, replacing what it held; ``append`` to it instead; or refuse where it is not ``new``."""
        self.path = path
        self._sync_every_s = sync_every_s
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()  # the file is not closed while the timer forces it onto the disk
        self._timer: threading.Timer | None = None
        self._trouble: StorageError | None = None
        with _storage_errors(path):
            _make_folder(path.parent)
            self._file = path.open("a+b" if append else "x+b" if new else "w+b", buffering=0)
            sync_folder(path.parent)
        self._synced = time.monotonic()

    def write(self, data: Any) -> int:
        """Write all of ``data``; returns its length in bytes."""
        self._tell_trouble()
        view = memoryview(data).cast("B")
        with _storage_errors(self.path):
            done = 0
            while done < len(view):
                done += self._open.write(view[done:])
        if time.monotonic() - self._synced >= self._sync_every_s:
            self.sync()
        elif self._timer is None:
            self._timer = threading.Timer(self._sync_every_s, self._sync_late)
            self._timer.daemon = True
            self._timer.start()
        return len(view)

    def sync(self) -> None:
        """Force everything written so far onto the disk."""
        self._stop_timer()
        with _storage_errors(self.path):
            _fsync(self._open.fileno())
        self._synced = time.monotonic()

    def truncate(self, size: int | None = None) -> int:
        """Cut the file to ``size`` bytes."""
        with _storage_errors(self.path):
            return self._open.truncate(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to ``offset``; returns the new position in bytes."""
        return self._open.seek(offset, whence)

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._open.tell()

    def seekable(self) -> bool:
        """Return True: a muxer may go back to complete its header."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Force everything onto the disk and close. May be called twice."""
        with self._lock:
            file, self._file = self._file, None
        self._stop_timer()
        try:
            if file is not None:
                with _storage_errors(self.path), file:
                    _fsync(file.fileno())
                self._tell_trouble()
        finally:
            super().close()

    def _sync_late(self) -> None:
        """What was written last, and no later write took along; runs in the timer's thread."""
        self._timer = None
        try:
            with self._lock:
                if self._file is not None:
                    _fsync(self._file.fileno())
        except OSError as error:
            self._trouble = storage_error(error, self.path)  # the system tells it once; the next call passes it on

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            timer.join()

    def _tell_trouble(self) -> None:
        trouble, self._trouble = self._trouble, None
        if trouble is not None:
            raise trouble

    @property
    def _open(self) -> BinaryIO:
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        return self._file


@contextlib.contextmanager
def exclusive(path: Path, busy: Callable[[], Exception]) -> Iterator[None]:
    """Hold the lock file ``path`` for the block; raise ``busy()`` when another process holds it."""
    with _storage_errors(path):
        _make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with _storage_errors(path):
            free = _lock(handle)
        if not free:
            raise busy()
        yield
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Force the entries of the folder ``path`` (names, renames, removals) onto the disk."""
    _sync(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _make_folder(path: Path) -> None:
    """Create the folder ``path`` and its parents, each one's name forced onto the disk."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def _make_staging(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    with contextlib.suppress(FileExistsError):  # a killed writer's, to be taken over, or a living one's, to be refused
        path.mkdir()


def _empty(path: Path) -> None:
    for entry in list(path.iterdir()):
        _remove(entry)


def _remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _discard(path: Path) -> None:
    with contextlib.suppress(OSError):  # what cannot go now is a partial of the documented name: the next write's
        _remove(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` empty for writing; two writers of one name exclude each other."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        _take(descriptor, path)
        yield file


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the folder ``path`` itself locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _busy(path) from None
    try:
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    """Lock what was opened as ``path``.

    Between opening and locking, its writer may have finished and put it in place: what is open is then no longer the
    temporary file but the lasting one, and must not be touched.
    """
    if not _lock(descriptor) or not _is(descriptor, path):
        raise _busy(path)


def _busy(path: Path) -> StorageError:
    remedy = "Wait for it, or choose another name."
    return StorageError("Another process is writing the same file", where=path, remedy=remedy)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _sync_tree(path: Path) -> None:
    for entry in sorted(path.rglob("*")):
        if not entry.is_symlink():  # a link is part of its folder
            _sync(entry)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a pipe, or a folder on some network file systems, has no fsync
            raise


def _put_in_place(staging: Path, path: Path) -> Path | None:
    """Give ``staging`` the name ``path`` in one step; returns where what had that name is now.

    A file system that cannot swap two names (NFS, for one) gets two renames. A writer killed between them leaves no
    ``path`` but ``.NAME.old``, which the next write puts back.
    """
    if not os.path.lexists(path):
        staging.rename(path)
        return None
    if _swap(staging, path):
        return staging
    path.rename(_aside(path))
    try:
        staging.rename(path)
    except BaseException:
        _aside(path).rename(path)
        raise
    return _aside(path)


def _swap(one: Path, other: Path) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        raise OSError(code, os.strerror(code), str(other))
    return False


def _put_back(path: Path) -> None:
    """Undo what a writer killed between the two renames of :func:`_put_in_place` left."""
    aside = _aside(path)
    if os.path.lexists(aside) and not os.path.lexists(path):
        aside.rename(path)
    _discard(aside)


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error
