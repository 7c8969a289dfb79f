"""The bundle: one flat folder with a model and everything a device needs to run it as it was trained.

``manifest.json`` names every other file with its size and SHA-256, and holds a SHA-256 of itself. Loading checks all of
them before any model parser runs; a bundle holds no code, no pickle, and no engine built elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeunip import durable, signature
from edgeunip.classes import Classes
from edgeunip.errors import BundleError, EdgeunipError, SignatureError
from edgeunip.signature import Signature
from edgeunip.thermal import Agc, Counts, Radiometry, radiometry_from_json, radiometry_to_json

SCHEMA = 2
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"

_FILE_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# The only .npy header a golden sample has. numpy's own reader evaluates the header and believes its shape.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(\|u1|<u2)', 'fortran_order': False, 'shape': \(([0-9, ]{2,60})\), \} *\n",
    re.DOTALL,
)
MAX_FILES = 64
MAX_BYTES = 2 << 30
MAX_MANIFEST_BYTES = 4 << 20
_MAX_GOLDEN_BYTES = 64 << 20
_MAX_TEXT = 200
_MAX_REAL = 1e300
COPY_AGAIN = "Copy or export the bundle again."

# What reading a hostile .npz can raise: a bad archive, an unknown compression, encryption.
_DAMAGE = (ValueError, KeyError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error, OSError)


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
        name: of the run it was exported from.
        target: what it was exported for, such as ``x86-cpu``.
        runtime: what runs it, a key of the runtimes' table, such as ``openvino``.
        precision: ``float32``, ``float16`` or ``int8`` (with what stays float in the former two).
        capability: what the target can do and what is left for it to prove, in words and lists.
        height, width: of the picture the graph takes, pixels; input is uint8 [1, 1, height, width], the AGC picture,
            output is float32 logits [1, classes, height / 4, width / 4].
        agc: how counts become the picture.
        mean, std: the normalisation folded into the graph, in gray levels 0..255; for people, nobody applies it.
        classes: names and colours.
        radiometry: how the training set's counts become degC, None where they are bare counts.
        accuracy: figures by precision, such as ``{"float32": {"miou": ..}, "int8": {..}}``, with what was measured.
        calibration: the pictures int8 was calibrated on (source, number, SHA-256), None for float.
        quantisation: how int8 was made, ``{"method", "options", "layers": {name: precision}, ..}``, None for float.
        golden_agreement: share of golden pixels, 0..1, on which a runtime must agree with the stored class map.
        provenance: recipe, versions, data hashes, seeds.
        files: size and sha256 of every other file; filled by :func:`save`.
    """

    name: str
    target: str
    runtime: str
    precision: str
    capability: dict[str, Any]
    height: int
    width: int
    agc: Agc
    mean: float
    std: float
    classes: Classes
    radiometry: Radiometry | None
    accuracy: dict[str, Any]
    calibration: dict[str, Any] | None
    quantisation: dict[str, Any] | None
    golden_agreement: float
    provenance: dict[str, Any]
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``manifest.json``."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["agc"] = self.agc.to_json()
        plain["classes"] = self.classes.to_json()
        plain["radiometry"] = radiometry_to_json(self.radiometry)
        return {"schema": SCHEMA, **plain}

    def to_bytes(self) -> bytes:
        """Return ``manifest.json`` itself: :meth:`to_json` and the SHA-256 of it, always written the same way.

        Raises:
            BundleError: a value has no JSON form.
        """
        content = self.to_json()
        own = {"manifest_sha256": hashlib.sha256(_dump(content)).hexdigest()}
        return _dump({**content, **own})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """Read the content of ``manifest.json``.

        Raises:
            BundleError: another schema version, a missing, unknown or wrong entry.
        """
        if not isinstance(value, Mapping):
            raise BundleError("The manifest is no JSON object")
        if value.get("schema") != SCHEMA:
            raise BundleError(
                f"The bundle has format {value.get('schema')!r} and this edgeunip reads format {SCHEMA}",
                remedy="Install the edgeunip that wrote it, or export the run again.",
            )
        entries = {key: entry for key, entry in value.items() if key not in ("schema", "manifest_sha256")}
        try:
            entries["agc"] = Agc.from_json(entries["agc"])
            entries["classes"] = Classes.from_json(entries["classes"])
            entries["radiometry"] = radiometry_from_json(entries["radiometry"])
            manifest = cls(**entries)
        except (KeyError, TypeError, ValueError, AttributeError, EdgeunipError) as error:
            raise BundleError("The manifest does not fit its format", why=repr(error)) from error
        manifest._check()
        manifest._check_files()
        return manifest

    def _check(self) -> None:
        for name in ("name", "target", "runtime", "precision"):
            text = getattr(self, name)
            if not isinstance(text, str) or not 1 <= len(text) <= _MAX_TEXT or not text.isprintable():
                raise BundleError(f"The manifest's {name} is no line of 1 to {_MAX_TEXT} characters", where=repr(text))
        for name in ("accuracy", "capability", "provenance", "files"):
            if not isinstance(getattr(self, name), dict):
                raise BundleError(f"The manifest's {name} is no object", where=repr(getattr(self, name)))
        for name in ("calibration", "quantisation"):
            if (value := getattr(self, name)) is not None and not isinstance(value, dict):
                raise BundleError(f"The manifest's {name} is neither an object nor null", where=repr(value))
        for side in (self.height, self.width):
            if not _is_whole(side) or not 32 <= side <= 8192 or side % 16:
                raise BundleError("The input size must be multiples of 16 up to 8192", where=(self.height, self.width))
        if not _is_finite(self.mean) or not _is_finite(self.std) or self.std <= 0:
            raise BundleError("The manifest's mean and std are no normalisation", where=(self.mean, self.std))
        if not _is_finite(self.golden_agreement) or not 0 <= self.golden_agreement <= 1:
            raise BundleError("The manifest's golden_agreement lies outside 0..1", where=repr(self.golden_agreement))

    def _check_files(self) -> None:
        for name, entry in self.files.items():
            if not isinstance(name, str) or not may_be_named(name) or name in (MANIFEST, signature.FILE):
                raise BundleError("The manifest names a file that no bundle may hold", where=repr(name))
            if not isinstance(entry, dict) or set(entry) != {"size", "sha256"}:
                raise BundleError("The manifest must give size and sha256 of a file", where=name)
            if not _is_whole(entry["size"]) or entry["size"] < 0:
                raise BundleError("The manifest gives a file no size in bytes", where=name, why=repr(entry["size"]))
            if not isinstance(entry["sha256"], str) or not _SHA256.fullmatch(entry["sha256"]):
                raise BundleError("The manifest gives a file no SHA-256", where=name, why=repr(entry["sha256"]))
        if GOLDEN not in self.files:
            raise BundleError("The bundle has no golden sample", where=GOLDEN)
        if len(self.files) > MAX_FILES or sum(entry["size"] for entry in self.files.values()) > MAX_BYTES:
            raise BundleError(f"The bundle holds more than {MAX_FILES} files or {MAX_BYTES} bytes")


@dataclass(frozen=True, eq=False)
class Golden:
    """Real frames and what the exported graph made of them.

    Attributes:
        counts: frames as the camera gave them, shape (N, H, W), uint8 or uint16.
        class_maps: class indices at a quarter of the model's resolution, shape (N, height / 4, width / 4), uint8.
    """

    counts: Counts
    class_maps: NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """Return the content of ``golden.npz``."""
        buffer = io.BytesIO()
        counts, class_maps = np.ascontiguousarray(self.counts), np.ascontiguousarray(self.class_maps)
        np.savez_compressed(buffer, counts=counts, class_maps=class_maps)
        return buffer.getvalue()


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names every byte of the bundle: the bundle's identity."""
        return hashlib.sha256(self.manifest.to_bytes()).hexdigest()

    def signature(self) -> Signature | None:
        """Read ``signature.json``; None where there is none. Whether it holds, :mod:`edgeunip.trust` tells.

        Raises:
            BundleError: it is no signature.
        """
        path = self.path / signature.FILE
        if not os.path.lexists(path):
            return None
        return parse_signature(read_file(path, signature.MAX_BYTES), path)

    def golden(self) -> Golden:
        """Read the golden sample.

        Raises:
            BundleError: it is not what the manifest promises.
        """
        path = self.path / GOLDEN
        try:
            with zipfile.ZipFile(io.BytesIO(read_file(path, _MAX_GOLDEN_BYTES))) as archive:
                counts, maps = (_array(archive, name) for name in ("counts", "class_maps"))
        except _DAMAGE as error:
            raise BundleError("The golden sample cannot be read", where=path, why=repr(error)) from error
        manifest = self.manifest
        quarter = (*counts.shape[:1], manifest.height // 4, manifest.width // 4)
        if counts.ndim != 3 or not counts.size or maps.dtype != np.uint8 or maps.shape != quarter:
            raise BundleError("The golden sample has wrong shapes", where=path, why=(counts.shape, maps.shape))
        if maps.max() >= len(manifest.classes):
            raise BundleError("The golden sample shows a class the manifest does not name", where=path, why=maps.max())
        return Golden(counts, maps)


def may_be_named(name: str) -> bool:
    """Tell whether a file in a bundle may have this name: one plain component, the same on every file system."""
    return _FILE_NAME.fullmatch(name) is not None and set(name) != {"."}


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read one array, believing neither the archive nor the array's own header about its size."""
    with archive.open(f"{name}.npy") as member:
        data = member.read(_MAX_GOLDEN_BYTES)
    if not (header := _NPY.match(data)) or header.end() != 10 + int.from_bytes(data[8:10], "little"):
        raise ValueError(f"{name} is no plain array of uint8 or uint16")
    shape = tuple(int(side) for side in header[2].split(b",") if side)
    dtype = np.dtype(header[1].decode())
    if math.prod(shape) * dtype.itemsize != len(data) - header.end():
        raise ValueError(f"{name} holds other than {shape} values, or more than {_MAX_GOLDEN_BYTES} bytes")
    return np.frombuffer(data, dtype, offset=header.end()).reshape(shape).copy()


def save(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle in one step; an older one at ``path`` is replaced whole.

    Args:
        path: the folder, by custom ``NAME.bundle``.
        manifest: without ``files``.
        files: content by file name; must hold ``golden.npz``.

    Raises:
        BundleError: ``path`` exists and is no bundle, or the manifest or the files are none :func:`load` would accept.
        StorageError: it cannot be written; nothing at ``path`` has changed.
    """
    require_replaceable(path)
    table = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest._check()
    complete = _from_bytes(replace(manifest, files=table).to_bytes(), path)
    with durable.folder(path) as staging:
        for name, data in files.items():
            (staging / name).write_bytes(data)
        (staging / MANIFEST).write_bytes(complete.to_bytes())
    return Bundle(path, complete)


def require_replaceable(path: Path) -> None:
    """Refuse to write a bundle over what is none.

    Raises:
        BundleError: something else stands at ``path``.
    """
    if os.path.lexists(path) and not (path / MANIFEST).is_file():
        raise BundleError("Will not replace what is no bundle", where=path, remedy="Choose another --out.")


def load(path: Path) -> Bundle:
    """Open the bundle at ``path``, with every file's size and hash checked; whether it is signed does not matter here.

    Raises:
        BundleError: it is none, or anything in it is missing, added, changed or of another format.
    """
    with _readable(path):
        present = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        if MANIFEST not in present:
            raise _no_bundle(path)
    manifest = parse_manifest(read_file(path / MANIFEST, MAX_MANIFEST_BYTES), present, path)
    for name, entry in manifest.files.items():
        _check_file(path / name, entry["size"], entry["sha256"])
    bundle = Bundle(path, manifest)
    bundle.signature()
    return bundle


def parse_manifest(data: bytes, present: Collection[str], path: Path) -> Manifest:
    """Read a manifest, from a folder or from a packed bundle.

    Args:
        data: the content of ``manifest.json``.
        present: the names of all files beside it, and its own.
        path: of the bundle, for messages.

    Raises:
        BundleError: it is not what an export wrote, byte by byte, or a file is present that it does not name.
    """
    manifest = _from_bytes(data, path / MANIFEST)
    if data != manifest.to_bytes():
        raise BundleError("The manifest has changed since export", where=path / MANIFEST, remedy=COPY_AGAIN)
    if extra := set(present) - {MANIFEST, signature.FILE, *manifest.files}:
        raise BundleError("The bundle holds a file its manifest does not name", where=path / min(extra))
    return manifest


def parse_signature(data: bytes, path: Path) -> Signature:
    """Read the content of ``signature.json``, which stands at ``path``.

    Raises:
        SignatureError: it is no signature as ``edgeunip sign`` writes it.
    """
    try:
        return Signature.from_bytes(data)
    except SignatureError as error:
        raise SignatureError(error.what, where=path, why=error.why, remedy=error.remedy) from error


def _no_bundle(path: Path) -> BundleError:
    if path.is_file():
        why, remedy = "it is a file", f"If it is a packed bundle: edgeunip unpack {path}."
    else:
        why = f"it holds no {MANIFEST}" if path.is_dir() else "no such folder"
        remedy = "Name a NAME.bundle folder an export wrote."
    return BundleError("Not a bundle", where=path, why=why, remedy=remedy)


def newest(folder: Path) -> Path:
    """Return the bundle in ``folder`` whose manifest was written last.

    Raises:
        BundleError: there is none.
    """
    manifests = list(folder.glob(f"*.bundle/{MANIFEST}"))
    if not manifests:
        raise BundleError("No bundle", where=folder, remedy="Export one first: edgeunip export.")
    return max(manifests, key=lambda file: file.stat().st_mtime_ns).parent


def _from_bytes(data: bytes, path: Path) -> Manifest:
    try:
        value = json.loads(data, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BundleError("The manifest is no JSON", where=path, why=error) from error
    try:
        return Manifest.from_json(value)
    except BundleError as error:
        where = path if error.where is None else f"{path}: {error.where}"
        raise BundleError(error.what, where=where, why=error.why, remedy=error.remedy) from error


def _dump(value: object) -> bytes:
    try:
        return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise BundleError("The manifest holds a value that has no JSON form", why=error) from error


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MAX_REAL < value < _MAX_REAL


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not allowed")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is too large")
    return value


def _check_file(path: Path, size: int, sha256: str) -> None:
    with opened(path) as file:
        if (found := os.fstat(file.fileno()).st_size) != size:
            raise BundleError(f"The file has {found} bytes instead of {size}", where=path, remedy=COPY_AGAIN)
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise BundleError("The file has changed since export (SHA-256 differs)", where=path, remedy=COPY_AGAIN)


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a plain file.

    Raises:
        BundleError: it is larger than ``limit`` bytes, no plain file, or cannot be read.
    """
    with opened(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"The file is larger than {limit} bytes", where=path)
    return data


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file: a link is not followed and a pipe not waited for."""
    with _readable(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BundleError("An entry of the bundle is no plain file", where=path)
        with os.fdopen(descriptor, "rb") as file:
            yield file


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError("The bundle cannot be read", where=path, why=error.strerror) from error
