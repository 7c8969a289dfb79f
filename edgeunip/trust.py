"""Whom this device believes: the public keys it knows, and whether a bundle must be signed by one of them to run.

Keys and policy lie in one folder of the device, ``~/.config/edgeunip/trust`` or ``$EDGEUNIP_TRUST``: ``NAME.pub`` for
each key, ``policy.json`` for the policy. Nothing in a bundle can change them. :func:`admit` is the one gate, and
:func:`edgeunip.runtimes.open.open_runtime`, which all that runs a bundle goes through, is where it stands.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edgeunip import bundle, durable, signature
from edgeunip.bundle import Bundle, Manifest
from edgeunip.errors import MissingDependencyError, SignatureError, UsageError, near, storage_error
from edgeunip.signature import PublicKey, Signature

logger = logging.getLogger(__name__)

POLICY = "policy.json"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_TRUST_AGAIN = "Set it again: edgeunip trust require on|off."


class Standing(str, Enum):
    """What this device makes of a bundle's signature."""

    VALID = "valid"
    UNSIGNED = "unsigned"
    UNKNOWN = "unknown"
    BAD = "bad"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class State:
    """A bundle's signature as this device sees it.

    Attributes:
        standing: valid, unsigned, by an unknown key, bad, or unchecked where cryptography is not installed.
        key_id: of the key that it says it is from, None where unsigned.
        name: which this device knows the key by, None for an unknown key.
    """

    standing: Standing
    key_id: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        key = self.name or (self.key_id or "")[:16]
        return {
            Standing.VALID: f"signed by {key}",
            Standing.UNSIGNED: "not signed",
            Standing.UNKNOWN: f"signed by the key {key}, which this device does not know",
            Standing.BAD: f"NOT what {key} signed",
            Standing.UNCHECKED: f"signed by {key}, not checked: the package cryptography is not installed",
        }[self.standing]


def admit(loaded: Bundle) -> State:
    """Let a bundle run on this device, or not; an unknown or unchecked signature is told once.

    Raises:
        SignatureError: the signature is bad, or the policy asks for a valid one and this is none; or the trust folder
            cannot be read.
        MissingDependencyError: the policy asks for one, and the package cryptography is not installed.
    """
    state, required = inspect(loaded.manifest, loaded.signature()), is_required()
    if state.standing is Standing.BAD:
        raise SignatureError(
            "The bundle's signature does not hold", where=loaded.path, why=state, remedy="Get the bundle again."
        )
    if required and state.standing is Standing.UNCHECKED:
        raise MissingDependencyError(
            "This device runs signed bundles only, and the package cryptography is not installed",
            remedy="Run: pip install 'edgeunip[sign]'",
        )
    if required and state.standing is not Standing.VALID:
        raise SignatureError(
            "This device runs signed bundles only", where=loaded.path, why=state, remedy=_remedy(state.standing)
        )
    if state.standing in (Standing.UNKNOWN, Standing.UNCHECKED):
        _warn(f"{loaded.path} is {state}")
    return state


def inspect(manifest: Manifest, found: Signature | None) -> State:
    """Judge a bundle's signature by the keys this device knows.

    Raises:
        SignatureError: the trust folder cannot be read.
    """
    if found is None:
        return State(Standing.UNSIGNED)
    for name, key in known().items():
        if key.id == found.key_id:
            return State(_check(manifest, found, key), found.key_id, name)
    return State(Standing.UNKNOWN, found.key_id)


def sign(path: Path, key_path: Path) -> Bundle:
    """Sign the bundle at ``path`` with the private key in ``key_path``; an older signature is replaced.

    Raises:
        SignatureError: the key cannot be used.
        BundleError: it is no sound bundle.
        StorageError: it cannot be written; the bundle stays as it was.
    """
    path = path.resolve()
    loaded = bundle.load(path)
    made = signature.make(loaded.manifest.to_bytes(), key_path)
    with durable.folder(path) as staging:
        for name in (bundle.MANIFEST, *loaded.manifest.files):
            shutil.copyfile(path / name, staging / name, follow_symlinks=False)
        (staging / signature.FILE).write_bytes(made.to_bytes())
        bundle.load(staging)  # a file may have changed since it was checked
    return loaded


def folder() -> Path:
    """Return the folder of this device's keys and policy; it need not be there."""
    if named := os.environ.get("EDGEUNIP_TRUST"):
        return Path(named)
    try:
        return Path.home() / ".config" / "edgeunip" / "trust"
    except RuntimeError as error:
        raise SignatureError(
            "No home folder to keep trusted keys in", why=error, remedy="Name one in EDGEUNIP_TRUST."
        ) from error


def known() -> dict[str, PublicKey]:
    """Return the keys this device knows, by name.

    Raises:
        SignatureError: the folder or a key in it cannot be read.
    """
    try:
        names = sorted(entry.name for entry in folder().iterdir())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SignatureError("The trusted keys cannot be read", where=folder(), why=error.strerror) from error
    files = [name for name in names if name.endswith(".pub") and not name.startswith(".")]
    return {name.removesuffix(".pub"): signature.read_public_key(folder() / name) for name in files}


def add(file: Path, *, name: str | None = None) -> tuple[str, PublicKey]:
    """Believe the public key in ``file`` from now on; returns the name it is known by, and the key.

    Raises:
        SignatureError: it is no public key, or another key has the name.
        UsageError: the name is none for a file.
        StorageError: it cannot be written.
    """
    key = signature.read_public_key(file)
    name = file.stem if name is None else name
    if not _NAME.fullmatch(name):
        raise UsageError("No name for a key", where=name, why="letters, digits, . _ -", remedy="Give one with --name.")
    keys = known()
    for old, other in keys.items():
        if other == key:
            return old, key
    if name in keys:
        raise SignatureError("Another key has this name", where=name, remedy="Give another one with --name.")
    durable.write_bytes(folder() / f"{name}.pub", key.to_pem())
    return name, key


def remove(name: str) -> None:
    """No longer believe the key known as ``name``.

    Raises:
        UsageError: there is none.
        StorageError: it cannot be removed.
    """
    if name not in (keys := known()):
        raise UsageError("No trusted key of this name", where=name, remedy=near(name, keys) if keys else None)
    try:
        (folder() / f"{name}.pub").unlink()
        durable.sync_folder(folder())
    except OSError as error:
        raise storage_error(error, folder() / f"{name}.pub") from error


def require(on: bool) -> None:
    """Set whether a bundle must be signed by a known key to run on this device.

    Raises:
        StorageError: it cannot be written.
    """
    durable.write_json(folder() / POLICY, {"require_signature": on})


def is_required() -> bool:
    """Tell whether a bundle must be signed by a known key to run on this device.

    Raises:
        SignatureError: the policy is damaged; a device does not run bundles then.
    """
    path = folder() / POLICY
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SignatureError("This device's policy cannot be read", where=path, why=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise SignatureError("This device's policy is damaged", where=path, why=error, remedy=_TRUST_AGAIN) from error
    if value not in ({"require_signature": True}, {"require_signature": False}):
        raise SignatureError("This device's policy is damaged", where=path, remedy=_TRUST_AGAIN)
    return bool(value["require_signature"])


def _check(manifest: Manifest, found: Signature, key: PublicKey) -> Standing:
    try:
        return Standing.VALID if signature.holds(found, manifest.to_bytes(), key) else Standing.BAD
    except MissingDependencyError:
        return Standing.UNCHECKED


def _remedy(standing: Standing) -> str:
    if standing is Standing.UNKNOWN:
        return "If you trust its maker: edgeunip trust add FILE.pub."
    return "Have it signed: edgeunip sign BUNDLE --key FILE."


@functools.cache
def _warn(line: str) -> None:
    logger.warning("%s", line)
