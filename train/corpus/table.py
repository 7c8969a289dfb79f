"""The index file: a Parquet table, one row an image, with its origin in the metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edgeunip import durable
from edgeunip.errors import DataError

FORMAT = 1
_KEY = b"edgeunip"
_COLUMNS = [
    ("path", pa.string()),
    ("set", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("bits", pa.int32()),
    ("channels", pa.int32()),
    ("sha256", pa.string()),
    ("phash", pa.uint64()),
    ("crop", pa.int32()),
]
_PLACE = [("shard", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]


@dataclass(frozen=True, slots=True)
class Row:
    """One image of an index; the fields are its columns.

    Attributes:
        path: the file, absolute.
        set: which set it was counted under.
        width, height: of the file, pixels.
        bits: a channel, 8 or 16.
        channels: of the file.
        sha256: of the file, hexadecimal.
        phash: perceptual hash, 64 bits; None for a picture without structure.
        crop: white border, pixels to cut from each side.
    """

    path: str
    set: str
    width: int
    height: int
    bits: int
    channels: int
    sha256: str
    phash: int | None
    crop: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image's bytes stand: shard file relative to the index, offset and size in bytes."""

    shard: str
    offset: int
    size: int


def list_hash(images: Iterable[tuple[str, int]]) -> str:
    """Return the SHA-256 (hexadecimal) of a list of (SHA-256 of the file, crop): what is trained on, in its order.

    It does not depend on where the files lie, nor on whether they are packed.
    """
    digest = hashlib.sha256()
    for content, crop in images:
        digest.update(f"{content} {crop}\n".encode())
    return digest.hexdigest()


def write(path: Path, rows: Sequence[Row], places: Sequence[Place], facts: dict[str, Any]) -> None:
    """Write an index; ``places`` is empty where images are files of their own. The same rows give the same bytes."""
    columns = _COLUMNS + (_PLACE if places else [])
    arrays = [
        pa.array([getattr(row, name) for row in (rows if (name, kind) in _COLUMNS else places)], kind)
        for name, kind in columns
    ]
    text = json.dumps({"format": FORMAT, **facts}, sort_keys=True, allow_nan=False)
    table = pa.table(arrays, schema=pa.schema(columns, metadata={_KEY: text}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=1 << 16)
    durable.write_bytes(path, sink.getvalue().to_pybytes())


def read(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Read an index: its table and what is known about it.

    Raises:
        DataError: the file is missing, damaged, or no index of this version.
    """
    remedy = "Make it: edgeunip data index."
    if not path.is_file():
        raise DataError("No such index of images", where=path, remedy=remedy)
    try:
        table = pq.read_table(path, memory_map=True)
        facts: dict[str, Any] = json.loads((table.schema.metadata or {})[_KEY])
        found = facts["format"]
        table.select([name for name, _ in _COLUMNS])
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's own errors are kinds of these
        raise DataError("Not an index of images, or damaged", where=path, why=error, remedy=remedy) from error
    if found != FORMAT:
        raise DataError(f"An index of format {found}; this version reads {FORMAT}", where=path, remedy=remedy)
    return table, facts


def bare(paths: Sequence[Path], name: str) -> pa.Table:
    """Return the table of a folder's images of which no more is known than that they are there."""
    count = len(paths)
    columns = {
        "path": pa.array([str(path) for path in paths], pa.string()),
        "set": pa.array([name] * count, pa.string()),
        "sha256": pa.nulls(count, pa.string()),
        "crop": pa.array([0] * count, pa.int32()),
    }
    return pa.table(columns)
