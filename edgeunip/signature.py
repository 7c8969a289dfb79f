"""Ed25519 signatures: the keys' files, and ``signature.json``, which stands in a bundle beside the manifest it is over.

The manifest names every other byte of a bundle, so its signature is the bundle's. Keys are the PEM files that OpenSSL
writes (PKCS #8, SubjectPublicKeyInfo). Whom this device believes is no matter of this module: :mod:`edgeunip.trust`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgeunip import durable
from edgeunip.errors import SignatureError, missing_dependency

FILE = "signature.json"
MAX_BYTES = 1024

_ALGORITHM = "ed25519"
_MAX_KEY_BYTES = 4096
# SubjectPublicKeyInfo of an Ed25519 key is these twelve bytes and the key (RFC 8410).
_SPKI = bytes.fromhex("302a300506032b6570032100")
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=]{1,200})\n-----END PUBLIC KEY-----\n?")
_HEX = re.compile(r"[0-9a-f]*")


@dataclass(frozen=True)
class PublicKey:
    """An Ed25519 public key.

    Attributes:
        raw: its 32 bytes.
    """

    raw: bytes

    @property
    def id(self) -> str:
        """SHA-256 of the key, 64 hexadecimal digits: its name everywhere."""
        return hashlib.sha256(self.raw).hexdigest()

    def to_pem(self) -> bytes:
        """Return the content of a ``.pub`` file."""
        body = base64.b64encode(_SPKI + self.raw)
        return b"-----BEGIN PUBLIC KEY-----\n" + body + b"\n-----END PUBLIC KEY-----\n"


@dataclass(frozen=True)
class Signature:
    """A signature over the bytes of a manifest.

    Attributes:
        key_id: of the key that made it, a :attr:`PublicKey.id`.
        value: its 64 bytes.
    """

    key_id: str
    value: bytes

    def to_bytes(self) -> bytes:
        """Return the content of ``signature.json``, always written the same way."""
        content = {"algorithm": _ALGORITHM, "key_id": self.key_id, "signature": self.value.hex()}
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Signature:
        """Read the content of ``signature.json``.

        Raises:
            SignatureError: it is not byte by byte what :meth:`to_bytes` writes.
        """
        try:
            value = json.loads(data)
            found = cls(value["key_id"], bytes.fromhex(value["signature"]))
            if len(data) <= MAX_BYTES and found._is_whole() and found.to_bytes() == data:
                return found
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise _no_signature(error) from error
        raise _no_signature("not as edgeunip writes it")

    def _is_whole(self) -> bool:
        return len(self.value) == 64 and len(self.key_id) == 64 and _HEX.fullmatch(self.key_id) is not None


def new_key(path: Path) -> PublicKey:
    """Make a key: the private one at ``path``, for nobody else to read, the public one at ``path`` + ``.pub``.

    Raises:
        SignatureError: one of the files is there already.
        MissingDependencyError: the package cryptography is not installed.
        StorageError: they cannot be written.
    """
    ed25519 = _ed25519()
    public_path = path.with_name(f"{path.name}.pub")
    for file in (path, public_path):
        if os.path.lexists(file):
            raise SignatureError("Will not replace a key", where=file, remedy="Choose another name.")
    private, raw = ed25519.generate()
    public = PublicKey(raw)
    durable.write_bytes(path, private, mode=0o600)
    durable.write_bytes(public_path, public.to_pem())
    return public


def read_public_key(path: Path) -> PublicKey:
    """Read a ``.pub`` file.

    Raises:
        SignatureError: it cannot be read, or is no Ed25519 public key.
    """
    data = _read_key(path)
    if found := _PEM.fullmatch(data.replace(b"\r\n", b"\n")):
        try:
            der = base64.b64decode(found[1], validate=True)
        except binascii.Error:
            der = b""
        if len(der) == len(_SPKI) + 32 and der.startswith(_SPKI):
            return PublicKey(der[len(_SPKI) :])
    why = "it is a private key" if b"PRIVATE KEY" in data else None
    raise SignatureError("No Ed25519 public key", where=path, why=why, remedy="Name the .pub file of a key.")


def make(message: bytes, key_path: Path) -> Signature:
    """Sign ``message`` with the private key in ``key_path``.

    Raises:
        SignatureError: the key cannot be read, is no Ed25519 private key, or can be read by others.
        MissingDependencyError: the package cryptography is not installed.
    """
    ed25519 = _ed25519()
    data = _read_key(key_path, private=True)
    if (signed := ed25519.sign(data, message)) is None:
        raise SignatureError(
            "No Ed25519 private key without a password",
            where=key_path,
            why="it is a public key" if b"PUBLIC KEY" in data else None,
            remedy="Name a key that edgeunip trust new made.",
        )
    raw, value = signed
    return Signature(PublicKey(raw).id, value)


def holds(signature: Signature, message: bytes, key: PublicKey) -> bool:
    """Tell whether ``key`` made ``signature`` over ``message``.

    Raises:
        MissingDependencyError: the package cryptography is not installed.
    """
    return signature.key_id == key.id and bool(_ed25519().verify(key.raw, signature.value, message))


def _read_key(path: Path, *, private: bool = False) -> bytes:
    """Return the content of a key's file; it is small, and a private one is nobody else's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            data = file.read(_MAX_KEY_BYTES + 1) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise SignatureError("The key cannot be read", where=path, why=error.strerror) from error
    if private and mode & 0o077:
        raise SignatureError("Others may read the private key", where=path, remedy=f"Run: chmod 600 {path}")
    return data if len(data) <= _MAX_KEY_BYTES else b""


def _no_signature(why: object) -> SignatureError:
    remedy = "Remove it, or sign the bundle again: edgeunip sign."
    return SignatureError("No signature of a bundle", where=FILE, why=why, remedy=remedy)


def _ed25519() -> ModuleType:
    """Import the one module that needs the package cryptography."""
    try:
        return importlib.import_module("edgeunip.ed25519")
    except ModuleNotFoundError as error:
        raise missing_dependency(error, "cryptography", "sign") from error
