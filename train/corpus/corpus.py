"""What pre-training reads: the gray pictures of an index, or of a folder."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from edgeunip import images
from edgeunip.errors import DataError
from edgeunip.thermal import Counts
from edgeunip.train.corpus import pictures, shards, sources, table


def open_corpus(source: str) -> Corpus:
    """Open unlabelled images; none is read yet.

    Args:
        source: an index made by ``edgeunip data index`` (``NAME.parquet``, its images packed in shards or not), or a
            folder: all images below it, sorted by their path.

    Raises:
        DataError: it is neither, or holds no image.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path)
    rows, facts = table.read(path)
    if not len(rows):
        raise DataError("The index holds no image", where=path)
    return Corpus(str(path.resolve()), rows, facts)


class Corpus:
    """Unlabelled images in a fixed order. Made by :func:`open_corpus`; loader processes get it by pickling.

    Attributes:
        location: of the index or folder, absolute; opens the same corpus from any folder.
    """

    def __init__(self, location: str, rows: pa.Table, facts: dict[str, Any]) -> None:
        self.location = location
        self._rows, self._facts = rows, facts
        self._paths, self._hashes, self._crops = (rows[name].combine_chunks() for name in ("path", "sha256", "crop"))
        self._packed = "shard" in rows.column_names
        if self._packed:
            self._shards, self._offsets, self._sizes = (rows[name] for name in ("shard", "offset", "size"))

    def __len__(self) -> int:
        return len(self._rows)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._facts:  # an index of a million rows is opened again rather than sent
            return _reopened, (self.location, self.fingerprint())
        return Corpus, (self.location, self._rows, self._facts)

    def path(self, index: int) -> Path:
        """Return where an image was when it was indexed, which is where it is unless it is packed."""
        return Path(self._paths[index].as_py())

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read one gray picture, uint8 [H, W]; 16-bit counts go through the AGC, white borders are cut.

        Raises:
            DataError: the file or its shard is gone, damaged, or not what was indexed.
        """
        return np.ascontiguousarray(self._image(index).picture())

    def counts(self, index: int) -> Counts:
        """Read one image's counts, uint8 or uint16 [H, W], as they are stored; white borders are cut.

        Raises:
            DataError: as :meth:`read`.
        """
        return self._image(index).counts

    def hash(self, index: int) -> str:
        """Return the SHA-256 (hexadecimal) of an image's file; an index states it, a folder's image is read for it."""
        stated = self._hashes[index].as_py()
        return str(stated) if stated else hashlib.sha256(self._bytes(index, self.path(index))).hexdigest()

    def _image(self, index: int) -> pictures.Image:
        path = self.path(index)
        return pictures.decode(self._bytes(index, path), path, crop=self._crops[index].as_py())

    def fingerprint(self) -> str:
        """Return the SHA-256 (hexadecimal) of the list of images and their content.

        An index states it; a folder's images are all read for it, once.
        """
        return str(self._facts["list_sha256"]) if self._facts else self._folder_hash

    def facts(self) -> dict[str, Any]:
        """Return what a run's provenance keeps: source, number of images by set, list hash, licences, rules."""
        sets = Counter(self._rows["set"].to_pylist())
        stated = ("licences", "sources", "exclude", "near")
        known: dict[str, Any] = {key: self._facts[key] for key in stated if key in self._facts}
        return {
            "source": self.location,
            "images": len(self),
            "sets": dict(sets),
            "list_sha256": self.fingerprint(),
            "agc": self._facts.get("agc", pictures.AGC.to_json()),
            "licences": {name: sources.UNSTATED for name in sets},
            **known,
        }

    @cached_property
    def _folder_hash(self) -> str:
        def content(index: int) -> tuple[str, int]:
            return hashlib.sha256(images.read_bytes(self.path(index))).hexdigest(), 0

        with ThreadPoolExecutor() as pool:
            return table.list_hash(pool.map(content, range(len(self))))

    def _bytes(self, index: int, path: Path) -> bytes:
        where: object = path
        if self._packed:
            shard = Path(self.location).parent / self._shards[index].as_py()
            data = shards.read(shard, self._offsets[index].as_py(), self._sizes[index].as_py())
            where = f"{shard}, image {index}"
        else:
            data = images.read_bytes(path)
        expected = self._hashes[index].as_py()
        if expected is not None:
            shards.require_unchanged(data, expected, where)
        return data


def _of_folder(path: Path) -> Corpus:
    (source,) = sources.plain(path.resolve())
    _, paths = sources.listing(source)
    return Corpus(str(source.root), table.bare(paths, source.set), {})


def _reopened(location: str, fingerprint: str) -> Corpus:
    corpus = open_corpus(location)
    if corpus.fingerprint() != fingerprint:
        raise DataError("The index was replaced while it was read", where=location)
    return corpus
