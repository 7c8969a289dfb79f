"""A bundle in one file, NAME.edgeunip, for the way to the device: a zip archive in exactly one form.

Stored, flat, fixed times, fixed order: the same bundle gives the same bytes, any tool can open them, and a reader
accepts nothing else. What a header says is read only to find the entries; then every header is compared with the one
this module would write, so there is no field, gap or comment left to hide anything in or to disagree about. All of it,
the manifest and every SHA-256 are checked before the first byte is written.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from edgeunip import bundle, durable, signature
from edgeunip.bundle import MANIFEST, Bundle, Manifest
from edgeunip.errors import BundleError
from edgeunip.signature import Signature

SUFFIX = ".edgeunip"

_MAX_ENTRIES = bundle.MAX_FILES + 2  # and the manifest, and the signature
_MAX_NAME = 64
_LIMITS = {MANIFEST: bundle.MAX_MANIFEST_BYTES, signature.FILE: signature.MAX_BYTES}
_MAGIC = b"PK\3\4"
_CHUNK = 1 << 20
_PACK_AGAIN = "Get it again, or pack the bundle again: edgeunip pack."


class _Local(NamedTuple):
    """The header before an entry's data, as zip's specification has it (APPNOTE 4.3.7)."""

    mark: bytes = _MAGIC
    needed: int = 10  # version 1.0: no compression, no folders
    flags: int = 0
    method: int = 0  # stored
    time: int = 0
    date: int = 0x21  # 1 January 1980, the first day there is
    crc: int = 0
    packed_size: int = 0
    size: int = 0
    name_size: int = 0
    extra_size: int = 0


class _Central(NamedTuple):
    """An entry of the directory at the end (APPNOTE 4.3.12)."""

    mark: bytes = b"PK\1\2"
    made_by: int = 3 << 8 | 20  # Unix
    needed: int = 10
    flags: int = 0
    method: int = 0
    time: int = 0
    date: int = 0x21
    crc: int = 0
    packed_size: int = 0
    size: int = 0
    name_size: int = 0
    extra_size: int = 0
    comment_size: int = 0
    disk: int = 0
    text: int = 0
    mode: int = (stat.S_IFREG | 0o644) << 16
    offset: int = 0


class _End(NamedTuple):
    """The last record, which says where the directory is (APPNOTE 4.3.16)."""

    mark: bytes = b"PK\5\6"
    disk: int = 0
    first_disk: int = 0
    here: int = 0
    entries: int = 0
    directory_size: int = 0
    directory: int = 0
    comment_size: int = 0


_LOCAL, _CENTRAL, _END = struct.Struct("<4s5H3L2H"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s4H2LH")


@dataclass(frozen=True)
class Entry:
    """A file in a packed bundle.

    Attributes:
        name: of the file.
        crc: CRC-32 of its content.
        size: bytes of its content.
        offset: where its header begins in the archive, bytes.
    """

    name: str
    crc: int
    size: int
    offset: int

    @property
    def start(self) -> int:
        """Where its content begins."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        """Where its content ends, and what follows begins."""
        return self.start + self.size

    def local(self) -> bytes:
        """Return the header before its content."""
        header = _Local(crc=self.crc, packed_size=self.size, size=self.size, name_size=len(self.name))
        return _LOCAL.pack(*header) + self.name.encode()

    def central(self) -> bytes:
        """Return its entry of the directory."""
        size, name = self.size, self.name.encode()
        header = _Central(crc=self.crc, packed_size=size, size=size, name_size=len(name), offset=self.offset)
        return _CENTRAL.pack(*header) + name


@dataclass(frozen=True)
class Packed:
    """A packed bundle whose every byte has been checked.

    Attributes:
        path: of the file.
        manifest: of the bundle in it.
        signature: the bundle's, None where it is not signed.
        entries: its files, in order.
    """

    path: Path
    manifest: Manifest
    signature: Signature | None
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.entries[-1].end + len(_tail(self.entries))


def pack(path: Path, out: Path) -> Packed:
    """Put the bundle at ``path`` into the file ``out``, signature and all; an older packed bundle there is replaced.

    Raises:
        BundleError: ``path`` is no sound bundle, or ``out`` is something else than a packed bundle.
        StorageError: it cannot be written; an older one stays.
    """
    _require_replaceable(out, path)
    loaded = bundle.load(path)
    files = {name: bundle.read_file(path / name, entry["size"]) for name, entry in loaded.manifest.files.items()}
    files[MANIFEST] = loaded.manifest.to_bytes()
    if found := loaded.signature():
        files[signature.FILE] = found.to_bytes()
    data = _archive(files)
    with _strange_to_error(path):
        packed = _check(io.BytesIO(data), out)  # what was read now may be other than what was checked at first
    durable.write_bytes(out, data)
    return packed


def read(path: Path) -> Packed:
    """Check the packed bundle at ``path`` down to the last byte, without unpacking it.

    Raises:
        BundleError: it is none, or anything in it is other than :func:`pack` writes it.
    """
    with _opened(path) as file:
        return _check(file, path)


def unpack(path: Path, out: Path) -> Bundle:
    """Put the bundle in the file ``path`` into the folder ``out``, in one step; an older bundle there is replaced.

    Raises:
        BundleError: it is no packed bundle, or ``out`` is something else than a bundle; nothing has been written.
        StorageError: it cannot be written; an older one stays.
    """
    bundle.require_replaceable(out)
    with _opened(path) as file:
        packed = _check(file, path)
        with durable.folder(out) as staging:
            for entry in packed.entries:
                with (staging / entry.name).open("wb") as target:
                    target.writelines(_chunks(file, entry))
            manifest = bundle.load(staging).manifest  # the file may have changed since it was checked
    return Bundle(out, manifest)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the folder of the bundle at ``path``: itself, or where a packed one lies unpacked during the block."""
    if not path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="edgeunip-") as scratch:
        yield unpack(path, Path(scratch) / f"{path.stem}.bundle").path


def default_file(path: Path) -> Path:
    """Return where the bundle at ``path`` is packed to when nothing is named: beside it."""
    whole = path.resolve()
    return whole.with_name(whole.name.removesuffix(".bundle") + SUFFIX)


def default_folder(path: Path) -> Path:
    """Return where the packed bundle at ``path`` is unpacked to when nothing is named: beside it."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".bundle")


def _require_replaceable(out: Path, path: Path) -> None:
    if out.resolve().parent == path.resolve():
        raise BundleError("Will not pack a bundle into itself", where=out, remedy="Choose another --out.")
    if not os.path.lexists(out):
        return
    if not out.is_file() or _start(out) != _MAGIC:
        raise BundleError("Will not replace what is no packed bundle", where=out, remedy="Choose another --out.")


def _start(path: Path) -> bytes:
    with bundle.opened(path.resolve()) as file:
        return file.read(len(_MAGIC))


def _archive(files: Mapping[str, bytes]) -> bytes:
    entries: list[Entry] = []
    parts: list[bytes] = []
    for name in sorted(files, key=_order):
        offset = entries[-1].end if entries else 0
        entries.append(Entry(name, zlib.crc32(files[name]), len(files[name]), offset))
        parts += [entries[-1].local(), files[name]]
    return b"".join([*parts, _tail(entries)])


def _tail(entries: Sequence[Entry]) -> bytes:
    """Return what follows the last content."""
    directory = b"".join(entry.central() for entry in entries)
    count, start = len(entries), entries[-1].end
    return directory + _END.pack(
        *_End(here=count, entries=count, directory_size=len(directory), directory=start),
    )


def _order(name: str) -> tuple[bool, str]:
    return name != MANIFEST, name


class _StrangeError(Exception):
    """An archive is other than :func:`pack` writes it."""

    def __init__(self, why: str, name: str | None = None) -> None:
        super().__init__(why, name)
        self.why, self.name = why, name


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.is_dir():
        why, remedy = "it is a folder", "Name a packed bundle, a file."
        raise BundleError("Not a packed bundle", where=path, why=why, remedy=remedy)
    with bundle.opened(path.resolve()) as file, _strange_to_error(path):
        yield file


@contextmanager
def _strange_to_error(path: Path) -> Iterator[None]:
    try:
        yield
    except _StrangeError as error:
        where = path if error.name is None else f"{path}: {error.name}"
        raise BundleError("Not a packed bundle", where=where, why=error.why, remedy=_PACK_AGAIN) from error


def _check(file: BinaryIO, path: Path) -> Packed:
    """Check everything there is to check, reading from ``file`` only."""
    entries = _entries(file)
    by_name = {entry.name: entry for entry in entries}
    if MANIFEST not in by_name:
        raise _StrangeError(f"it holds no {MANIFEST}")
    digests = {entry.name: _digest(file, entry) for entry in entries}
    manifest = bundle.parse_manifest(_content(file, by_name[MANIFEST]), by_name, path)
    for name, promised in manifest.files.items():
        if name not in by_name:
            raise _StrangeError("it lacks a file that its manifest names", name)
        if by_name[name].size != promised["size"]:
            raise _StrangeError(f"it has {by_name[name].size} bytes instead of {promised['size']}", name)
        if digests[name] != promised["sha256"]:
            raise _StrangeError("it has changed since export, SHA-256 differs", name)
    signed = by_name.get(signature.FILE)
    found = bundle.parse_signature(_content(file, signed), path / signature.FILE) if signed else None
    return Packed(path, manifest, found, tuple(entries))


def _entries(file: BinaryIO) -> list[Entry]:
    """Find the entries, and hold every byte that is no content to the one form."""
    size = file.seek(0, io.SEEK_END)
    end = _end(file, size)
    directory = _at(file, end.directory, end.directory_size)
    entries: list[Entry] = []
    position = 0
    for _ in range(end.entries):
        entry = _entry(directory, position, entries)
        entries.append(entry)
        position += _CENTRAL.size + len(entry.name)
    if entries[-1].end != end.directory or position != end.directory_size:
        raise _StrangeError("bytes lie between its files and its directory, or they overlap")
    if _at(file, end.directory, size - end.directory) != _tail(entries):
        raise _StrangeError("its directory is not as edgeunip writes it")
    for entry in entries:
        if _at(file, entry.offset, _LOCAL.size + len(entry.name)) != entry.local():
            raise _StrangeError("its two headers disagree", entry.name)
    return entries


def _end(file: BinaryIO, size: int) -> _End:
    """Read the last record, and hold its numbers to the size of the file."""
    if size < _END.size:
        raise _StrangeError("it is too short")
    if _at(file, 0, len(_MAGIC)) != _MAGIC:
        raise _StrangeError("it does not begin with a file")
    end = _End(*_END.unpack(_at(file, size - _END.size, _END.size)))
    if end.mark != _End().mark:
        raise _StrangeError("it does not end with its directory: truncated, or with something after it")
    if end.comment_size:
        raise _StrangeError("it has a comment")
    if end.disk or end.first_disk or end.here != end.entries:
        raise _StrangeError("it is one part of several, or a zip64 archive")
    if not 1 <= end.entries <= _MAX_ENTRIES:
        raise _StrangeError(f"it holds {end.entries} files, and a bundle 1 to {_MAX_ENTRIES}")
    if end.directory_size > _MAX_ENTRIES * (_CENTRAL.size + _MAX_NAME):
        raise _StrangeError("its directory is too large")
    if end.directory + end.directory_size + _END.size != size:
        raise _StrangeError("its directory is not where it says: something before, between or after its parts")
    return end


def _entry(directory: bytes, position: int, before: list[Entry]) -> Entry:
    """Read one entry of the directory."""
    fixed = directory[position : position + _CENTRAL.size]
    if len(fixed) < _CENTRAL.size:
        raise _StrangeError("its directory ends early")
    header = _Central(*_CENTRAL.unpack(fixed))
    start = position + _CENTRAL.size
    raw = directory[start : start + header.name_size]
    name = raw.decode("ascii", "backslashreplace")
    if header.mark != _Central().mark or len(raw) < header.name_size:
        raise _StrangeError("its directory is damaged")
    if why := _form(header) or _naming(name, before) or _placing(header, before) or _sizing(header, name, before):
        raise _StrangeError(why, repr(name))
    return Entry(name, header.crc, header.size, header.offset)


def _form(header: _Central) -> str | None:
    """Tell what is wrong with an entry's kind."""
    kind = stat.S_IFMT(header.mode >> 16)
    wrong = {
        "it is encrypted": header.flags & 0x2041,
        "its sizes stand after its data, in a data descriptor": header.flags & 0x8,
        "its name is in another code than ASCII": header.flags & 0x800,
        "it has flags": header.flags,
        "it is compressed": header.method,
        "it has an extra field": header.extra_size,
        "it has a comment": header.comment_size,
        "it is a link": kind == stat.S_IFLNK,
        "it is a folder": kind == stat.S_IFDIR or header.mode & 0x10,
        "it is no plain file, or has permissions of its own": header.mode != _Central().mode,
        "it has a time of its own": (header.time, header.date) != (_Central().time, _Central().date),
        "it is in another part of the archive": header.disk,
        "it has a size in the archive other than its own": header.packed_size != header.size,
    }
    return next((why for why, is_so in wrong.items() if is_so), None)


def _naming(name: str, before: list[Entry]) -> str | None:
    if not bundle.may_be_named(name):
        return "no bundle may hold a file of this name"
    if name in (entry.name for entry in before):
        return "two files have this name"
    if before and _order(name) < _order(before[-1].name):
        return "its files are not in order"
    return None


def _placing(header: _Central, before: list[Entry]) -> str | None:
    expected = before[-1].end if before else 0
    if header.offset < expected:
        return "it overlaps the file before it"
    if header.offset > expected:
        return "bytes lie before it that belong to no file"
    return None


def _sizing(header: _Central, name: str, before: list[Entry]) -> str | None:
    if header.size > _LIMITS.get(name, bundle.MAX_BYTES):
        return f"it is larger than {_LIMITS.get(name, bundle.MAX_BYTES)} bytes"
    if header.size + sum(entry.size for entry in before if entry.name not in _LIMITS) > bundle.MAX_BYTES:
        return f"with it the files have more than {bundle.MAX_BYTES} bytes"
    return None


def _digest(file: BinaryIO, entry: Entry) -> str:
    """Return the SHA-256 of an entry's content, after its CRC-32 has been found right."""
    crc, sha256 = 0, hashlib.sha256()
    for chunk in _chunks(file, entry):
        crc = zlib.crc32(chunk, crc)
        sha256.update(chunk)
    if crc != entry.crc:
        raise _StrangeError("it is damaged, CRC-32 differs", entry.name)
    return sha256.hexdigest()


def _content(file: BinaryIO, entry: Entry) -> bytes:
    return b"".join(_chunks(file, entry))


def _chunks(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    for position in range(entry.start, entry.end, _CHUNK):
        yield _at(file, position, min(_CHUNK, entry.end - position))


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    data = file.read(size)
    if len(data) < size:
        raise _StrangeError("it ends early")
    return data
