"""Tar shards in webdataset's layout, written deterministically and read at any place.

A sample is two members, ``00000042.jpg`` (the image file's bytes as they were) and ``00000042.json``; the number is
the image's row in the index.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from edgeunip import durable, images
from edgeunip.errors import DataError
from edgeunip.train.corpus.table import Place, Row

_BLOCK = 512
_OPEN_FILES = 256


def pack(rows: Sequence[Row], out: Path, name: str, *, per_shard: int) -> tuple[list[Place], dict[str, Any]]:
    """Pack images into shards of ``per_shard`` each, in a folder ``NAME-HASH`` of ``out`` put in place as a whole.

    The hash in its name stands for the content: shards that an older index points to are never written over.

    Returns:
        The place of each image, and by shard (relative to ``out``) its ``sha256`` and size in ``bytes``.

    Raises:
        DataError: an image is gone or has changed since it was indexed.
    """
    folder = f"{name}-{_digest(rows, per_shard)[:12]}"
    places: list[Place] = []
    facts: dict[str, Any] = {}
    with durable.folder(out / folder) as staging:
        for number, first in enumerate(range(0, len(rows), per_shard)):
            shard = f"{folder}/{number:06d}.tar"
            with (staging / f"{number:06d}.tar").open("wb") as file:
                writer = _Writer(file)
                chosen = enumerate(rows[first : first + per_shard], start=first)
                places += [Place(shard, *_put(writer, index, row)) for index, row in chosen]
                facts[shard] = writer.close()
    return places, facts


def read(path: Path, offset: int, size: int) -> bytes:
    """Read ``size`` bytes of a shard from ``offset`` on; any thread or process may, at the same time.

    Raises:
        DataError: the shard is missing, unreadable or too short.
    """
    try:
        data = os.pread(_opened(path).descriptor, size, offset)
    except OSError as error:
        raise DataError("The shard cannot be read", where=path, why=error.strerror) from error
    if len(data) < size:
        raise DataError("The shard is truncated", where=path, why=f"{len(data)} of {size} bytes at {offset}")
    return data


def read_image(row: Row) -> bytes:
    """Read the file of a row.

    Raises:
        DataError: it is gone, or has changed since it was indexed.
    """
    data = images.read_bytes(Path(row.path))
    require_unchanged(data, row.sha256, row.path)
    return data


def require_unchanged(data: bytes, sha256: str, where: object) -> None:
    """Refuse bytes that are not those indexed.

    Raises:
        DataError: their SHA-256 is another.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        remedy = "Build the index again: edgeunip data index."
        raise DataError("The image has changed since it was indexed", where=where, remedy=remedy)


class _Writer:
    """Appends members to a tar file, hashing what it writes: every header is one block, so that offsets are known."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self._size = 0

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its content."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self._write(header.tobuf(tarfile.USTAR_FORMAT))
        offset = self._size
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        return offset

    def close(self) -> dict[str, Any]:
        """End the archive; returns its hash and size."""
        self._write(bytes(2 * _BLOCK))
        return {"sha256": self._digest.hexdigest(), "bytes": self._size}

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


def _put(writer: _Writer, index: int, row: Row) -> tuple[int, int]:
    data = read_image(row)
    offset = writer.add(f"{index:08d}{Path(row.path).suffix.lower()}", data)
    writer.add(f"{index:08d}.json", _describe(row))
    return offset, len(data)


def _describe(row: Row) -> bytes:
    return json.dumps(asdict(row), sort_keys=True).encode()


def _digest(rows: Sequence[Row], per_shard: int) -> str:
    digest = hashlib.sha256(f"{per_shard}\n".encode())
    for row in rows:
        digest.update(_describe(row) + b"\n")
    return digest.hexdigest()


class _Opened:
    """A file open for reading until the last reader lets go of it."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=_OPEN_FILES)
def _opened(path: Path) -> _Opened:
    return _Opened(path)
