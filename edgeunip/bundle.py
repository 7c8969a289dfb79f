"""The bundle: one flat folder with a model and everything a device needs to run it as it was trained.

``manifest.json`` names every other file with its size and SHA-256. Loading checks all of them before any parser runs;
a bundle holds no code, no pickle, and no engine built elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip import durable
from edgeunip.classes import Classes
from edgeunip.errors import BundleError, EdgeunipError
from edgeunip.thermal import Agc, Counts, Radiometry, radiometry_from_json, radiometry_to_json

SCHEMA = 1
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"

_FILE_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_MAX_FILES = 64
_MAX_BYTES = 2 << 30
_MAX_MANIFEST_BYTES = 4 << 20


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself.

    Attributes:
        name: of the run it was exported from.
        target: what it was exported for, such as ``x86-cpu``.
        runtime: what runs it, a key of the runtimes' table, such as ``openvino``.
        precision: ``float32`` or ``int8``.
        height, width: of the picture the graph takes, pixels; input is uint8 [1, 1, height, width], the AGC picture,
            output is float32 logits [1, classes, height / 4, width / 4].
        agc: how counts become the picture.
        mean, std: the normalisation folded into the graph, in gray levels 0..255; for people, nobody applies it.
        classes: names and colours.
        radiometry: how the training set's counts become degC, None where they are bare counts.
        accuracy: figures by precision, such as ``{"float32": {"miou": ..}, "int8": {..}}``, with what was measured.
        calibration: the pictures int8 was calibrated on (source, number, SHA-256), None for float.
        golden_agreement: share of golden pixels, 0..1, on which a runtime must agree with the stored class map.
        provenance: recipe, versions, data hashes, seeds.
        files: size and sha256 of every other file; filled by :func:`save`.
    """

    name: str
    target: str
    runtime: str
    precision: str
    height: int
    width: int
    agc: Agc
    mean: float
    std: float
    classes: Classes
    radiometry: Radiometry | None
    accuracy: dict[str, Any]
    calibration: dict[str, Any] | None
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
        entries = {key: entry for key, entry in value.items() if key != "schema"}
        try:
            entries["agc"] = Agc.from_json(entries["agc"])
            entries["classes"] = Classes.from_json(entries["classes"])
            entries["radiometry"] = radiometry_from_json(entries["radiometry"])
            manifest = cls(**entries)
        except (KeyError, TypeError, ValueError, AttributeError, EdgeunipError) as error:
            raise BundleError("The manifest does not fit its format", why=repr(error)) from error
        manifest._check()
        return manifest

    def _check(self) -> None:
        shapes = {"name": str, "target": str, "runtime": str, "precision": str, "height": int, "width": int}
        shapes |= {"accuracy": dict, "provenance": dict, "files": dict}
        for name, kind in shapes.items():
            if not isinstance(getattr(self, name), kind):
                raise BundleError(f"The manifest's {name} is no {kind.__name__}", where=repr(getattr(self, name)))
        for side in (self.height, self.width):
            if not 32 <= side <= 8192 or side % 32:
                raise BundleError("The input size must be multiples of 32 up to 8192", where=(self.height, self.width))
        for name, entry in self.files.items():
            if not _FILE_NAME.fullmatch(name) or name == MANIFEST or set(name) == {"."}:
                raise BundleError("The manifest names a file that no bundle may hold", where=repr(name))
            if not isinstance(entry, dict) or not isinstance(entry.get("size"), int) or "sha256" not in entry:
                raise BundleError("The manifest lacks size or sha256", where=name)


@dataclass(frozen=True)
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
        np.savez_compressed(buffer, counts=self.counts, class_maps=self.class_maps)
        return buffer.getvalue()


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which names every byte of the bundle: the bundle's identity."""
        return hashlib.sha256((self.path / MANIFEST).read_bytes()).hexdigest()

    def golden(self) -> Golden:
        """Read the golden sample.

        Raises:
            BundleError: it is not what the manifest promises.
        """
        manifest = self.manifest
        try:
            with np.load(self.path / GOLDEN, allow_pickle=False) as stored:
                counts, maps = stored["counts"], stored["class_maps"]
        except (OSError, KeyError, ValueError) as error:
            raise BundleError("The golden sample cannot be read", where=self.path / GOLDEN, why=error) from error
        quarter = (counts.shape[0], manifest.height // 4, manifest.width // 4)
        if counts.ndim != 3 or counts.dtype not in (np.uint8, np.uint16) or maps.shape != quarter:
            raise BundleError("The golden sample has wrong shapes", where=self.path / GOLDEN)
        return Golden(counts, maps)


def save(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle in one step; an older one at ``path`` is replaced whole.

    Args:
        path: the folder, by custom ``NAME.bundle``.
        manifest: without ``files``.
        files: content by file name; must hold ``golden.npz``.

    Raises:
        BundleError: ``path`` exists and is no bundle.
        StorageError: it cannot be written; nothing at ``path`` has changed.
    """
    if path.exists() and not (path / MANIFEST).is_file():
        raise BundleError("Will not replace what is no bundle", where=path, remedy="Choose another --out.")
    table = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    complete = Manifest(**{**{f.name: getattr(manifest, f.name) for f in fields(manifest)}, "files": table})
    complete._check()
    with durable.folder(path) as staging:
        for name, data in files.items():
            (staging / name).write_bytes(data)
        text = json.dumps(complete.to_json(), indent=1, sort_keys=True, allow_nan=False)
        (staging / MANIFEST).write_text(text + "\n")
    return Bundle(path, complete)


def load(path: Path) -> Bundle:
    """Open the bundle at ``path``, with every file's size and hash checked.

    Raises:
        BundleError: it is none, or anything in it is missing, added, changed or of another format.
    """
    manifest = Manifest.from_json(_read_manifest(path))
    present = {entry.name for entry in os.scandir(path)} - {MANIFEST}
    if extra := present - set(manifest.files):
        raise BundleError("The bundle holds a file its manifest does not name", where=path / min(extra))
    if len(manifest.files) > _MAX_FILES or sum(entry["size"] for entry in manifest.files.values()) > _MAX_BYTES:
        raise BundleError("The bundle is larger than any this version writes", where=path)
    for name, entry in manifest.files.items():
        _check_file(path / name, entry["size"], entry["sha256"])
    return Bundle(path, manifest)


def newest(folder: Path) -> Path:
    """Return the bundle in ``folder`` whose manifest was written last.

    Raises:
        BundleError: there is none.
    """
    manifests = list(folder.glob(f"*.bundle/{MANIFEST}"))
    if not manifests:
        raise BundleError("No bundle", where=folder, remedy="Export one first: edgeunip export.")
    return max(manifests, key=lambda file: file.stat().st_mtime_ns).parent


def _read_manifest(path: Path) -> Any:
    file = path / MANIFEST
    if not file.is_file():
        why = "no such folder" if not path.exists() else f"it holds no {MANIFEST}" if path.is_dir() else "it is a file"
        raise BundleError("Not a bundle", where=path, why=why, remedy="Name the NAME.bundle folder an export wrote.")
    if file.is_symlink() or file.stat().st_size > _MAX_MANIFEST_BYTES:
        raise BundleError("The manifest is a link or too large", where=file)
    try:
        return json.loads(file.read_bytes(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError("The manifest is no JSON", where=file, why=error) from error
    except OSError as error:
        raise BundleError("The manifest cannot be read", where=file, why=error.strerror) from error


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not allowed")


def _check_file(path: Path, size: int, sha256: str) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BundleError("A file of the bundle cannot be read", where=path, why=error.strerror) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BundleError("An entry of the bundle is no plain file", where=path)
        if status.st_size != size:
            raise BundleError(f"The file has {status.st_size} bytes instead of {size}", where=path, remedy=_COPY_AGAIN)
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise BundleError("The file has changed since export (SHA-256 differs)", where=path, remedy=_COPY_AGAIN)


_COPY_AGAIN = "Copy or export the bundle again."
