"""A packed bundle comes back as it was packed, or is refused before a byte is written: attacks by hand, and mutants."""

import contextlib
import functools
import hashlib
import io
import json
import os
import random
import re
import shutil
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bundle import FILES, PLAIN

from edgeunip import bundle, pack, signature, trust
from edgeunip.bundle import GOLDEN, MANIFEST
from edgeunip.errors import BundleError, EdgeunipError, StorageError

LOCAL = ("mark", "needed", "flags", "method", "time", "date", "crc", "packed", "size", "names", "extras")
CENTRAL = (
    *("mark", "made", "needed", "flags", "method", "time", "date", "crc", "packed", "size", "names", "extras"),
    *("comments", "disk", "text", "mode", "offset"),
)
END = ("mark", "disk", "first", "here", "entries", "length", "directory", "comments")
MARKS = {LOCAL: b"PK\3\4", CENTRAL: b"PK\1\2", END: b"PK\5\6"}
SHAPES = {LOCAL: "<4s5H3L2H", CENTRAL: "<4s6H3L5H2L", END: "<4s4H2LH"}
MODE = (stat.S_IFREG | 0o644) << 16


@pytest.fixture(autouse=True)
def nobody_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEUNIP_TRUST", str(tmp_path / "trusted"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "night.bundle", PLAIN, FILES).path


@pytest.fixture
def packed(saved: Path) -> Path:
    return pack.pack(saved, saved.with_name("night.edgeunip")).path


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in sorted(folder.iterdir())}


@functools.cache
def plain() -> dict[str, bytes]:
    """The files of the packed bundle, in the order of the archive."""
    manifest = bundle.parse_manifest(_manifest(), [MANIFEST, *FILES], Path("x"))
    return {MANIFEST: manifest.to_bytes(), **dict(sorted(FILES.items()))}


def _manifest(**changes: Any) -> bytes:
    """A manifest of ``FILES`` as its author could write it, its own SHA-256 right."""
    table = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()}
    value = {**PLAIN.to_json(), "files": table, **changes}
    own = hashlib.sha256(json.dumps(value, indent=1, sort_keys=True).encode() + b"\n").hexdigest()
    return json.dumps({**value, "manifest_sha256": own}, indent=1, sort_keys=True).encode() + b"\n"


def record(names: tuple[str, ...], fields: Mapping[str, Any]) -> bytes:
    return struct.pack(SHAPES[names], *(fields.get(name, 0) for name in names))


def archive(
    files: Mapping[str, bytes] | list[tuple[str, bytes]],
    *,
    change: Mapping[str, Mapping[str, Any]] | None = None,
    local: Mapping[str, Mapping[str, Any]] | None = None,
    end: Mapping[str, Any] | None = None,
    before: Mapping[str, bytes] | None = None,
    tail: tuple[bytes, bytes, bytes] = (b"", b"", b""),
) -> bytes:
    """Write a zip archive by hand, with anything in it wrong.

    ``change`` has fields of both headers of a file, ``local`` of its first one alone; "extra" and "comment" are bytes;
    ``before`` puts bytes before a file; ``tail`` before the directory, before the last record and after it.
    """
    body, directory, count = b"", b"", 0
    for name, data in files.items() if isinstance(files, Mapping) else files:
        fields: dict[str, Any] = {
            "needed": 10, "made": 0x314, "date": 0x21, "mode": MODE, "crc": zlib.crc32(data),
            "packed": len(data), "size": len(data), "raw": name.encode(), "extra": b"", "comment": b"",
        }  # fmt: skip
        body += (before or {}).get(name, b"")
        fields["offset"] = len(body)
        fields |= (change or {}).get(name, {})
        lengths = {"names": len(fields["raw"]), "extras": len(fields["extra"]), "comments": len(fields["comment"])}
        central = {**lengths, **fields, "mark": b"PK\1\2"}
        directory += record(CENTRAL, central) + fields["raw"] + fields["extra"] + fields["comment"]
        fields |= (local or {}).get(name, {})
        lengths = {"names": len(fields["raw"]), "extras": len(fields["extra"])}
        body += record(LOCAL, {**lengths, **fields, "mark": b"PK\3\4"}) + fields["raw"] + fields["extra"]
        body += data + fields.get("after", b"")
        count += 1
    body += tail[0]
    last = {"mark": b"PK\5\6", "here": count, "entries": count, "length": len(directory), "directory": len(body)}
    return body + directory + tail[1] + record(END, {**last, **(end or {})}) + (end or {}).get("comment", b"") + tail[2]


def stdlib(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, *, zip64: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as writer:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = method, MODE
            with writer.open(info, "w", force_zip64=zip64) as member:
                member.write(data)
    return buffer.getvalue()


# --- there and back ---


def test_pack_and_unpack(saved: Path, packed: Path, tmp_path: Path) -> None:
    found = pack.unpack(packed, tmp_path / "other.bundle")
    assert found == bundle.load(found.path) and found.digest == bundle.load(saved).digest
    assert contents(found.path) == contents(saved)
    again = pack.pack(found.path, tmp_path / "again.edgeunip")
    assert again.path.read_bytes() == packed.read_bytes() and again.size == packed.stat().st_size


def test_a_signature_travels(saved: Path, tmp_path: Path) -> None:
    signature.new_key(tmp_path / "key")
    trust.sign(saved, tmp_path / "key")
    file = pack.pack(saved, tmp_path / "signed.edgeunip")
    assert file.signature == bundle.load(saved).signature() is not None
    assert contents(pack.unpack(file.path, tmp_path / "out.bundle").path) == contents(saved)


def test_the_bytes_do_not_depend_on_time_or_permissions(saved: Path, packed: Path, tmp_path: Path) -> None:
    for file in saved.iterdir():
        os.utime(file, (0, 0))
        file.chmod(0o600)
    assert pack.pack(saved, tmp_path / "later.edgeunip").path.read_bytes() == packed.read_bytes()


def test_it_is_the_zip_that_a_second_writer_makes(packed: Path) -> None:
    assert packed.read_bytes() == archive(plain())


def test_other_tools_open_it(packed: Path) -> None:
    with zipfile.ZipFile(packed) as reader:
        assert reader.testzip() is None
        assert {name: reader.read(name) for name in reader.namelist()} == plain()
        assert all(info.compress_type == zipfile.ZIP_STORED for info in reader.infolist())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9._-]{1,64}", fullmatch=True).filter(
            lambda name: set(name) != {"."} and name not in (MANIFEST, signature.FILE)
        ),
        st.binary(max_size=300),
        max_size=12,
    )
)
def test_any_bundle_comes_back(tmp_path: Path, files: dict[str, bytes]) -> None:
    made = bundle.save(tmp_path / "a.bundle", PLAIN, {**files, GOLDEN: FILES[GOLDEN]})
    packed = pack.pack(made.path, tmp_path / "a.edgeunip")
    whole = contents(made.path)
    order = sorted(whole, key=lambda name: (name != MANIFEST, name))
    assert packed.path.read_bytes() == archive({name: whole[name] for name in order})
    found = pack.unpack(packed.path, tmp_path / "b.bundle")
    assert contents(found.path) == whole and found.manifest == made.manifest


def test_read_writes_nothing(packed: Path) -> None:
    before = sorted(packed.parent.rglob("*"))
    found = pack.read(packed)
    assert found.manifest.name == "night" and found.signature is None
    assert [entry.name for entry in found.entries] == list(plain())
    assert sorted(packed.parent.rglob("*")) == before


def test_older_ones_are_replaced_whole(saved: Path, packed: Path, tmp_path: Path) -> None:
    old = bundle.save(tmp_path / "old.bundle", PLAIN, {**FILES, "gone.txt": b"old"})
    pack.pack(old.path, tmp_path / "x.edgeunip")
    pack.pack(saved, tmp_path / "x.edgeunip")
    assert (tmp_path / "x.edgeunip").read_bytes() == packed.read_bytes()
    assert contents(pack.unpack(packed, old.path).path) == contents(saved)


def test_unpacked_gives_a_folder_either_way(saved: Path, packed: Path) -> None:
    with pack.unpacked(saved) as folder:
        assert folder == saved
    with pack.unpacked(packed) as folder:
        assert contents(folder) == contents(saved) and folder.name == "night.bundle"
    assert not folder.exists()


def test_default_names(tmp_path: Path) -> None:
    assert pack.default_file(tmp_path / "night.bundle") == tmp_path.resolve() / "night.edgeunip"
    assert pack.default_file(tmp_path / "night") == tmp_path.resolve() / "night.edgeunip"
    assert pack.default_folder(tmp_path / "v1.2.edgeunip") == tmp_path / "v1.2.bundle"


# --- what is not replaced, not packed, not read ---


@pytest.mark.parametrize("what", ["text", "empty", "folder", "dangling"])
def test_pack_replaces_packed_bundles_only(saved: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "precious"
    if what == "folder":
        out.mkdir()
    elif what == "dangling":
        out.symlink_to("nowhere")
    else:
        out.write_bytes(b"thesis" if what == "text" else b"")
    with pytest.raises(BundleError) as caught:
        pack.pack(saved, out)
    assert str(caught.value) == f"Will not replace what is no packed bundle: {out}. Choose another --out."


def test_unpack_replaces_bundles_only(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(BundleError, match="Will not replace what is no bundle"):
        pack.unpack(packed, tmp_path / "photos")
    assert list((tmp_path / "photos").iterdir()) == []


def test_a_bundle_is_not_packed_into_itself(saved: Path) -> None:
    with pytest.raises(BundleError, match="Will not pack a bundle into itself"):
        pack.pack(saved, saved / "x.edgeunip")
    bundle.load(saved)


def test_a_damaged_bundle_is_not_packed(saved: Path, tmp_path: Path) -> None:
    (saved / "model.xml").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.xml"):
        pack.pack(saved, tmp_path / "x.edgeunip")
    assert not (tmp_path / "x.edgeunip").exists()


def test_a_file_that_changes_while_it_is_packed(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = bundle.read_file
    changed = FILES["model.xml"][:-1] + b"!"
    monkeypatch.setattr(bundle, "read_file", lambda path, n: changed if path.name == "model.xml" else read(path, n))
    with pytest.raises(BundleError, match=r"model\.xml.*SHA-256 differs"):
        pack.pack(saved, tmp_path / "x.edgeunip")
    assert not (tmp_path / "x.edgeunip").exists()


def test_a_file_that_changes_while_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = bundle.save(tmp_path / "large.bundle", PLAIN, {**FILES, "model.xml": FILES["model.xml"] * 1000})
    packed, check = pack.pack(large.path, tmp_path / "large.edgeunip").path, pack._check

    def check_then_change(file: Any, path: Path) -> pack.Packed:
        found = check(file, path)
        data = packed.read_bytes()
        packed.write_bytes(data.replace(b"<?xml not", b"<?xml NOT"))
        return found

    monkeypatch.setattr(pack, "_check", check_then_change)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        pack.unpack(packed, tmp_path / "out.bundle")
    assert not list(tmp_path.glob("*out*")) and not list(tmp_path.glob(".*"))


def test_what_is_no_plain_file(tmp_path: Path, saved: Path, packed: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(packed.name)
    start = time.monotonic()
    for path, message in [
        (tmp_path / "pipe", "no plain file"),
        (tmp_path / "none", "No such file"),
        (saved, "(it is a folder)"),
        (Path("/dev/null"), "no plain file"),
    ]:
        with pytest.raises(BundleError) as caught:
            pack.read(path)
        assert message in str(caught.value)
    assert pack.read(tmp_path / "link").manifest.name == "night"
    assert time.monotonic() - start < 2


def test_a_full_disk_leaves_the_old(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bundle.save(tmp_path / "old.bundle", PLAIN, {**FILES, "gone.txt": b"old"})
    before = sorted(entry.name for entry in tmp_path.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        pack.unpack(packed, old.path)
    with pytest.raises(StorageError, match="No space left"):
        pack.pack(old.path, packed)
    monkeypatch.undo()
    assert bundle.load(old.path).digest == old.digest and pack.read(packed).manifest.name == "night"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before


# --- the gallery ---

SIGNED = signature.Signature("0" * 64, bytes(64)).to_bytes()


def with_file(name: str, data: bytes = b"", at: int | None = None) -> bytes:
    files = list(plain().items())
    files.insert(len(files) if at is None else at, (name, data))
    return archive(files)


def changed(name: str, **fields: Any) -> bytes:
    return archive(plain(), change={name: fields})


def local(name: str, **fields: Any) -> bytes:
    return archive(plain(), local={name: fields})


def without(name: str) -> bytes:
    return archive({key: data for key, data in plain().items() if key != name})


def replaced(name: str, data: bytes) -> bytes:
    return archive({**plain(), name: data})


def signed(data: bytes) -> bytes:
    return archive(
        dict(sorted({**plain(), signature.FILE: data}.items(), key=lambda item: (item[0] != MANIFEST, item[0])))
    )


def overlap() -> bytes:
    """A second entry for the first file's bytes, as better bombs have it."""
    files = plain()
    model = (
        len(archive({key: files[key] for key in [MANIFEST, GOLDEN]}))
        - 22
        - sum(46 + len(k) for k in files if k in (MANIFEST, GOLDEN))
    )
    return archive(files, change={"model.xml": {"offset": model}})


def bomb() -> bytes:
    """A gigabyte of zeros in a megabyte."""
    zipped = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join([*(zipped.compress(bytes(1 << 20)) for _ in range(64)), zipped.flush()])
    return archive({**plain(), "model.bin": data}, change={"model.bin": {"method": 8, "size": 1 << 30}})


def swapped() -> bytes:
    files = list(plain().items())
    return archive([files[0], files[2], files[1], *files[3:]])


LATE = (b"", b"", b"late")
LINK, FOLDER, DEVICE = (kind << 16 for kind in (stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFCHR | 0o644))
NAME = "no bundle may hold a file of this name"

ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    # names that lead elsewhere
    "parent": (lambda: with_file("../evil"), NAME),
    "deep parent": (lambda: with_file("a/../../../../tmp/evil"), NAME),
    "absolute": (lambda: with_file("/etc/passwd"), NAME),
    "folder in a name": (lambda: with_file("a/b"), NAME),
    "backslash": (lambda: with_file("..\\evil"), NAME),
    "drive": (lambda: with_file("c:evil"), NAME),
    "dot": (lambda: with_file("."), NAME),
    "dots": (lambda: with_file(".."), NAME),
    "empty name": (lambda: with_file(""), NAME),
    "nul": (lambda: with_file("a\0.txt"), NAME),
    "line break": (lambda: with_file("a\n"), NAME),
    "not ascii": (lambda: with_file("bäd"), NAME),
    "not utf-8": (lambda: changed("model.xml", raw=b"model\xff.xml"), NAME),
    "escape code": (lambda: with_file("\x1b[31m"), NAME),
    "long name": (lambda: with_file("x" * 65), NAME),
    "huge name": (lambda: with_file("x" * 60_000), "its directory is too large"),
    "capitals": (lambda: with_file("MODEL.XML"), NAME),
    # what is no file
    "link": (lambda: changed("model.xml", mode=LINK), "it is a link"),
    "folder by its name": (lambda: with_file("sub/"), NAME),
    "folder by its mode": (lambda: changed("model.bin", mode=FOLDER), "it is a folder"),
    "folder by its DOS flag": (lambda: changed("model.bin", mode=MODE | 0x10), "it is a folder"),
    "device": (lambda: changed("model.bin", mode=DEVICE), "it is no plain file"),
    "set-user-id": (lambda: changed("model.xml", mode=MODE | 0o4000 << 16), "permissions of its own"),
    "executable": (lambda: changed("model.xml", mode=MODE | 0o111 << 16), "permissions of its own"),
    # twice
    "duplicate": (lambda: with_file("model.xml", b"other"), "two files have this name"),
    "duplicate manifest": (lambda: with_file(MANIFEST, b"{}", 1), "two files have this name"),
    "out of order": (swapped, "its files are not in order"),
    # packed in another way
    "deflated": (lambda: stdlib(plain(), zipfile.ZIP_DEFLATED), "it is compressed"),
    "bzip2": (lambda: stdlib(plain(), zipfile.ZIP_BZIP2), "it is compressed"),
    "bomb": (bomb, "it is compressed"),
    "unknown method": (lambda: changed("model.xml", method=99), "it is compressed"),
    "encrypted": (lambda: changed("model.xml", flags=1), "it is encrypted"),
    "strongly encrypted": (lambda: changed("model.xml", flags=0x40), "it is encrypted"),
    "encrypted directory": (lambda: changed("model.xml", flags=0x2000), "it is encrypted"),
    "data descriptor": (lambda: changed("model.xml", flags=8, after=b"PK\7\x08" + bytes(12)), "a data descriptor"),
    "utf-8 flag": (lambda: changed("model.xml", flags=0x800), "another code than ASCII"),
    "other flags": (lambda: changed("model.xml", flags=0x10), "it has flags"),
    "zip64 sizes": (
        lambda: changed("model.xml", packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=bytes(20)),
        "an extra field",
    ),
    "zip64 by the library": (lambda: stdlib(plain(), zip64=True), "Not a packed bundle"),
    "zip64 end": (lambda: archive(plain(), end={"entries": 0xFFFF, "here": 0xFFFF}), "it holds 65535 files"),
    "several disks": (lambda: archive(plain(), end={"disk": 1}), "one part of several"),
    "other count here": (lambda: archive(plain(), end={"here": 1}), "one part of several"),
    "an entry on another disk": (lambda: changed("model.xml", disk=1), "another part of the archive"),
    # bytes that no file owns
    "extra field": (lambda: changed("model.xml", extra=b"UT\5\0\1abcd"), "it has an extra field"),
    "extra field in the first header only": (
        lambda: local("model.xml", extra=b"UT\1\0a"),
        "bytes lie between its files",
    ),
    "file comment": (lambda: changed("model.xml", comment=b"hello"), "it has a comment"),
    "archive comment": (lambda: archive(plain(), end={"comments": 22, "comment": bytes(22)}), "it does not end with"),
    "comment that ends like an end": (
        lambda: archive(plain(), end={"comments": 22, "comment": archive({})[-22:]}),
        "it holds 0 files",
    ),
    "prefix": (lambda: b"#!/bin/sh\n" + archive(plain()), "it does not begin with a file"),
    "prefix with offsets right": (
        lambda: archive(plain(), before={MANIFEST: b"PK\3\4prefix"}),
        "bytes lie before it that belong to no file",
    ),
    "prefix like a file": (lambda: b"PK\3\4" + archive(plain()), "its directory is not where it says"),
    "trailing": (lambda: archive(plain(), tail=LATE), "it does not end with its directory"),
    "one byte more": (lambda: archive(plain(), tail=(b"", b"", b"\0")), "it does not end with its directory"),
    "gap between files": (lambda: archive(plain(), before={"model.xml": b"gap"}), "bytes lie before it"),
    "gap before the directory": (lambda: archive(plain(), tail=(b"gap", b"", b"")), "bytes lie between its files"),
    "gap after the directory": (
        lambda: archive(plain(), tail=(b"", b"gap", b"")),
        "its directory is not where it says",
    ),
    "overlap": (overlap, "it overlaps the file before it"),
    "all in one place": (lambda: changed("model.xml", offset=0), "it overlaps the file before it"),
    "data after the file's end": (lambda: changed(GOLDEN, after=b"more"), "bytes lie before it"),
    # numbers that disagree
    "other name before the data": (lambda: local("model.xml", raw=b"nodel.xml"), "its two headers disagree"),
    "other size before the data": (lambda: local("model.xml", size=1), "its two headers disagree"),
    "other CRC before the data": (lambda: local("model.xml", crc=1), "its two headers disagree"),
    "compressed before the data only": (lambda: local("model.xml", method=8), "its two headers disagree"),
    "encrypted before the data only": (lambda: local("model.xml", flags=1), "its two headers disagree"),
    "two sizes": (lambda: changed("model.xml", packed=1), "a size in the archive other than its own"),
    "larger than the archive": (
        lambda: changed("model.xml", packed=1 << 30, size=1 << 30),
        "bytes lie between its files and its directory, or they overlap",
    ),
    "beyond any bundle": (lambda: changed("model.xml", packed=3 << 30, size=3 << 30), "it is larger than 2147483648"),
    "offset beyond the end": (lambda: changed("model.xml", offset=1 << 31), "bytes lie before it"),
    "directory beyond the end": (lambda: archive(plain(), end={"directory": 1 << 31}), "not where it says"),
    "directory too long": (lambda: archive(plain(), end={"length": 1 << 31}), "its directory is too large"),
    "fewer files than there are": (lambda: archive(plain(), end={"here": 2, "entries": 2}), "bytes lie between"),
    "more files than there are": (lambda: archive(plain(), end={"here": 5, "entries": 5}), "its directory ends early"),
    "no files": (lambda: archive({}), "it does not begin with a file"),
    "too many files": (
        lambda: archive({**plain(), **{f"x{index:03}": b"" for index in range(70)}}),
        "it holds 74 files, and a bundle 1 to 66",
    ),
    "another date": (lambda: changed("model.xml", date=0x5000), "it has a time of its own"),
    "another version": (lambda: changed("model.xml", needed=45), "its directory is not as edgeunip writes it"),
    "another maker": (lambda: changed("model.xml", made=0), "its directory is not as edgeunip writes it"),
    "text flag": (lambda: changed("model.xml", text=1), "its directory is not as edgeunip writes it"),
    "wrong CRC": (lambda: changed("model.xml", crc=1), "it is damaged, CRC-32 differs"),
    "changed, CRC not": (lambda: archive(plain()).replace(b"<?xml not", b"<?xml NOT"), "it is damaged, CRC-32 differs"),
    # not the bundle that was exported
    "changed, CRC right": (
        lambda: replaced("model.xml", FILES["model.xml"].upper()),
        "it has changed since export, SHA-256 differs",
    ),
    "shorter": (lambda: replaced("model.xml", b"x"), f"it has 1 bytes instead of {len(FILES['model.xml'])}"),
    "no manifest": (lambda: without(MANIFEST), "it holds no manifest.json"),
    "a file is missing": (lambda: without("model.bin"), "it lacks a file that its manifest names"),
    "a file too many": (lambda: with_file("zzz.so", b"\x7fELF"), "The bundle holds a file its manifest does not name"),
    "changed manifest": (
        lambda: replaced(MANIFEST, plain()[MANIFEST].replace(b"117.5", b"117.6")),
        "The manifest has changed since export",
    ),
    "manifest of another form": (
        lambda: replaced(MANIFEST, json.dumps(json.loads(plain()[MANIFEST])).encode()),
        "The manifest has changed since export",
    ),
    "no JSON": (lambda: replaced(MANIFEST, b"["), "The manifest is no JSON"),
    "deep JSON": (lambda: replaced(MANIFEST, b"[" * 100_000), "The manifest is no JSON"),
    "another schema": (lambda: replaced(MANIFEST, b'{"schema": 99}'), "The bundle has format 99"),
    "huge manifest": (
        lambda: replaced(MANIFEST, b" " * (bundle.MAX_MANIFEST_BYTES + 1)),
        f"it is larger than {bundle.MAX_MANIFEST_BYTES} bytes",
    ),
    "no golden sample": (
        lambda: archive({MANIFEST: _manifest(files={})}),
        "The bundle has no golden sample",
    ),
    "a manifest that names itself": (
        lambda: replaced(MANIFEST, _manifest(files={MANIFEST: {"size": 0, "sha256": "0" * 64}})),
        "The manifest names a file that no bundle may hold",
    ),
    "a manifest that names the signature": (
        lambda: replaced(MANIFEST, _manifest(files={signature.FILE: {"size": 0, "sha256": "0" * 64}})),
        "The manifest names a file that no bundle may hold",
    ),
    "no signature": (lambda: signed(b"{}"), "No signature of a bundle"),
    "signature of another algorithm": (lambda: signed(SIGNED.replace(b"ed25519", b"none")), "No signature of a bundle"),
    "signature with more in it": (lambda: signed(SIGNED.replace(b"{", b'{"x": 1,', 1)), "No signature of a bundle"),
    "short signature": (lambda: signed(SIGNED.replace(b'"00', b'"', 1)), "No signature of a bundle"),
    "huge signature": (lambda: signed(SIGNED + b" " * 1024), "it is larger than 1024 bytes"),
    # no archive
    "nothing": (lambda: b"", "it is too short"),
    "some text": (lambda: b"This is no archive, only text of some length.", "it does not begin with a file"),
    "half": (lambda: archive(plain())[:1000], "it does not end with its directory"),
    "the end only": (lambda: archive(plain())[-22:], "it does not begin with a file"),
    "one byte less": (lambda: archive(plain())[:-1], "it does not end with its directory"),
}


def refused(data: bytes, folder: Path, message: str) -> None:
    """Hand ``data`` to both readers, in a folder where any byte they write would be seen."""
    file = folder / "attack.edgeunip"
    file.write_bytes(data)
    for handle in (pack.read, lambda path: pack.unpack(path, folder / "out.bundle")):
        with pytest.raises(BundleError) as caught:
            handle(file)
        text = str(caught.value)
        assert message in text, text
        assert "\n" not in text and "\x1b" not in text and len(text) < 1500
        assert [entry.name for entry in folder.iterdir()] == [file.name]


def test_the_gallery_is_large_enough() -> None:
    assert len(ATTACKS) >= 40
    assert len({make() for make, _ in ATTACKS.values()}) == len(ATTACKS)
    assert archive(plain()) not in {make() for make, _ in ATTACKS.values()}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(attack: str, tmp_path: Path) -> None:
    make, message = ATTACKS[attack]
    (tmp_path / "here").mkdir()
    refused(make(), tmp_path / "here", message)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["here"]


def test_negative_control_the_standard_library_takes_many_of_them(tmp_path: Path) -> None:
    taken = [attack for attack, (make, _) in ATTACKS.items() if _opens(make())]
    assert {"deflated", "prefix", "archive comment", "gap between files", "another date"} <= set(taken)
    assert len(taken) > 30


def _opens(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as reader:
            return reader.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, ValueError, OSError):
        return False


def test_a_huge_sparse_file_is_refused_at_once(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    huge = tmp_path / "huge.edgeunip"
    with huge.open("wb") as file:
        file.write(data[:-22])
        file.truncate(1 << 40)
    with huge.open("ab") as file:
        file.write(data[-22:])
    start = time.monotonic()
    with pytest.raises(BundleError, match="not where it says"):
        pack.read(huge)
    assert time.monotonic() - start < 1


# --- mutants ---


def flipped(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def inserted(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data) + 1)
    return data[:position] + chance.randbytes(chance.randint(1, 40)) + data[position:]


def deleted(data: bytes, chance: random.Random) -> bytes:
    position = chance.randrange(len(data))
    return data[:position] + data[position + chance.randint(1, 60) :]


def spliced(data: bytes, chance: random.Random) -> bytes:
    """Put a piece of the archive somewhere else in it."""
    start, to = chance.randrange(len(data)), chance.randrange(len(data))
    piece = data[start : start + chance.randint(1, 400)]
    return data[:to] + piece + data[to + (len(piece) if chance.random() < 0.5 else 0) :]


VALUES = (0, 1, 2, 8, 9, 0x10, 22, 0xFF, 0x800, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 1 << 16, 1 << 31, 0xFFFFFFFF)


def edited(data: bytes, chance: random.Random) -> bytes:
    """Set a field of one of the headers to a number that matters, or one off."""
    names = chance.choice([LOCAL, CENTRAL, END])
    places = [found.start() for found in re.finditer(MARKS[names], data)]
    at, index = chance.choice(places), chance.randrange(1, len(names))
    formats = ["4s", *re.sub(r"(\d)([A-Z])", lambda found: found[2] * int(found[1]), SHAPES[names][3:])]
    start, size = at + struct.calcsize("<" + "".join(formats[:index])), struct.calcsize("<" + formats[index])
    old = int.from_bytes(data[start : start + size], "little")
    new = chance.choice([*VALUES, old + 1, old - 1, old ^ 0x80, len(data)]) % (1 << 8 * size)
    return data[:start] + new.to_bytes(size, "little") + data[start + size :]


def repaired(data: bytes, chance: random.Random) -> bytes:
    """Change a file, and make every number of the archive right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as reader:
        files = {name: reader.read(name) for name in reader.namelist()}
    name = chance.choice(list(files))
    changes = [flipped, inserted, deleted, spliced] if files[name] else [inserted]
    files[name] = chance.choice(changes)(files[name], chance)
    return archive(files)


MUTATIONS = (flipped, inserted, deleted, spliced, edited, edited, repaired)


def mutant(original: bytes, chance: random.Random) -> bytes:
    """Change an archive by one mutation or several; never not at all."""
    data = original
    while data == original:
        data = mutated(data, chance)
    return data


def mutated(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        try:
            data = chance.choice(MUTATIONS)(data, chance)
        except Exception:  # of the library's reader, by which ``repaired`` sees what there is left to repair
            data = flipped(data, chance) if data else b"PK"
    return data


Reader = Callable[[Path, Path], dict[str, bytes]]


def strict(file: Path, out: Path) -> dict[str, bytes]:
    pack.unpack(file, out)
    found = contents(out)
    shutil.rmtree(out)
    return found


def library(file: Path, out: Path) -> dict[str, bytes]:
    """Negative control: the standard library's reader with its CRC check, and the sizes of the manifest."""
    try:
        with zipfile.ZipFile(file) as reader:
            found = {name: reader.read(name) for name in reader.namelist()}
        sizes = {name: entry["size"] for name, entry in json.loads(found[MANIFEST])["files"].items()}
    except Exception as error:
        raise BundleError("no") from error
    if any(len(found.get(name, b"")) != size for name, size in sizes.items()):
        raise BundleError("size")
    return found


def hashing(file: Path, out: Path) -> dict[str, bytes]:
    """Negative control: every hash is checked, but not the form of the archive."""
    found = library(file, out)
    if payload(found) != plain():
        raise BundleError("hash")
    return found


@pytest.fixture
def originals(saved: Path, packed: Path, tmp_path: Path) -> list[bytes]:
    """A packed bundle, and the same one signed by a key this device knows."""
    signature.new_key(tmp_path / "key")
    trust.add(tmp_path / "key.pub")
    trust.sign(saved, tmp_path / "key")
    return [packed.read_bytes(), pack.pack(saved, tmp_path / "signed.edgeunip").path.read_bytes()]


def payload(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name != signature.FILE}


def in_order(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: files[name] for name in sorted(files, key=lambda name: (name != MANIFEST, name))}


@dataclass
class Tally:
    """How many mutants a reader accepted.

    ``different`` had another payload; ``foreign`` were not in the one form; ``believed`` had a changed signature that
    this device takes for a valid one. A signature's own bytes are the one thing nothing vouches for.
    """

    accepted: int = 0
    different: int = 0
    foreign: int = 0
    believed: int = 0


def fuzz(originals: list[bytes], folder: Path, read: Reader, turns: int, seed: int) -> Tally:
    """Hand mutants to a reader, which only EdgeunipError may leave, and no file."""
    folder.mkdir()
    chance, tally = random.Random(seed), Tally()
    file, out = folder / "inner" / "mutant.edgeunip", folder / "inner" / "out.bundle"
    file.parent.mkdir()
    signed = pack.read(_written(file, originals[1])).signature
    for turn in range(turns):
        data = mutant(chance.choice(originals), chance)
        try:
            found = read(_written(file, data), out)
        except EdgeunipError as error:
            assert str(error) and "\n" not in str(error)
        else:
            tally.accepted += 1
            tally.different += payload(found) != plain()
            tally.foreign += data != archive(in_order(found))
            tally.believed += believed(found, signed)
        assert [entry.name for entry in os.scandir(file.parent)] == [file.name], f"turn {turn} left something behind"
    assert [entry.name for entry in os.scandir(folder)] == ["inner"], "something was written beside the folder"
    return tally


def _written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def believed(files: dict[str, bytes], signed: signature.Signature | None) -> bool:
    """Tell whether a signature counts as valid that is not the one that was made."""
    manifest = bundle.parse_manifest(files[MANIFEST], files, Path("x"))
    found = signature.Signature.from_bytes(files[signature.FILE]) if signature.FILE in files else None
    return found != signed and trust.inspect(manifest, found).standing is trust.Standing.VALID


def test_mutants_are_refused(originals: list[bytes], tmp_path: Path) -> None:
    tally = fuzz(originals, tmp_path / "arena", strict, 2000, seed=1)
    assert (tally.different, tally.foreign, tally.believed) == (0, 0, 0)


@pytest.mark.slow
def test_a_hundred_thousand_mutants_are_refused(originals: list[bytes], tmp_path: Path) -> None:
    tally = fuzz(originals, tmp_path / "arena", strict, 100_000, seed=2)
    print(tally)
    assert (tally.different, tally.foreign, tally.believed) == (0, 0, 0)
    assert tally.accepted < 500, "those that have other digits in the signature's place, or have lost it whole"


def test_negative_control_without_hashes_other_payloads_get_through(originals: list[bytes], tmp_path: Path) -> None:
    chance = random.Random(1)
    file, accepted = tmp_path / "mutant", 0
    for _ in range(1000):
        with contextlib.suppress(BundleError):
            accepted += payload(library(_written(file, mutant(chance.choice(originals), chance)), tmp_path)) != plain()
    assert accepted > 10


def test_negative_control_without_the_one_form_other_bytes_get_through(originals: list[bytes], tmp_path: Path) -> None:
    chance = random.Random(1)
    file, foreign = tmp_path / "mutant", 0
    for _ in range(500):
        data = mutant(chance.choice(originals), chance)
        with contextlib.suppress(BundleError):
            foreign += data != archive(in_order(hashing(_written(file, data), tmp_path)))
    assert foreign > 10


def test_negative_control_a_weakened_reader_is_found_out(
    originals: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Take the comparison with the one form out of the real reader: mutants of the headers get through."""
    monkeypatch.setattr(pack.Entry, "local", lambda entry: AnyBytes())
    monkeypatch.setattr(pack, "_tail", lambda entries: AnyBytes())
    assert fuzz(originals, tmp_path / "arena", strict, 300, seed=1).foreign > 5


class AnyBytes(bytes):
    """Bytes that equal any others."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__
