"""The arithmetic of Ed25519, by the package ``cryptography``, which only this module imports."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


def generate() -> tuple[bytes, bytes]:
    """Make a key pair; returns (the private key as PEM, the 32 bytes of the public key)."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, key.public_key().public_bytes_raw()


def sign(private: bytes, message: bytes) -> tuple[bytes, bytes] | None:
    """Sign with a private key in PEM; returns (the 32 bytes of its public key, the 64 bytes of the signature).

    None where ``private`` is no Ed25519 private key, or has a password. The library's own words are not passed on:
    nothing about a private key's content is.
    """
    try:
        key = load_pem_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, Ed25519PrivateKey):
        return None
    return key.public_key().public_bytes_raw(), key.sign(message)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Tell whether ``signature`` (64 bytes) over ``message`` was made with the key whose public part is 32 bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
