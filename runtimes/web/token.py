"""The token that lets viewers in: 256 bits from a file that only its owner can read, or from the environment."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from pathlib import Path

from edgeunip import durable
from edgeunip.errors import SinkError
from edgeunip.redaction import keep_secret

VARIABLE = "EDGEUNIP_WEB_TOKEN"

_BYTES = 32
_SHORTEST = 43  # characters of 256 bits in base64

logger = logging.getLogger(__name__)


def find(path: Path | None) -> str | None:
    """Return the token: of the file ``path``, made with a new token where there is none, else of the environment.

    Returns:
        The token; None where neither is given.

    Raises:
        SinkError: the file can be read or written by everybody, cannot be read, or the token is too short.
        StorageError: the file is not there and cannot be written.
    """
    if path is None:
        token = os.environ.get(VARIABLE)
        return None if token is None else _checked(token, f"the environment's {VARIABLE}")
    if not path.exists():
        durable.write_bytes(path, f"{secrets.token_urlsafe(_BYTES)}\n".encode(), mode=0o600)
        logger.info("A new token for the web page is in %s", path)
    return _checked(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            _check_mode(stat.S_IMODE(os.fstat(file.fileno()).st_mode), path)
            return file.read(4096).decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SinkError("Cannot read the web page's token", where=path, why=why) from error


def _check_mode(mode: int, path: Path) -> None:
    """Refuse what everybody reads or others write. A group may read: systemd hands credentials over so; it is told."""
    if mode & 0o026:
        raise SinkError(
            "Others can get at the web page's token",
            where=path,
            why=f"mode {mode:04o}",
            remedy=f"Run: chmod 600 {path}, and delete it if others may have read it: a new one is made.",
        )
    if mode & 0o040:
        logger.warning("The group of %s can read the web page's token; chmod 600 keeps it to its owner", path)


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable():
        raise SinkError(
            "The web page's token is too easy to guess",
            where=where,
            why=f"it takes {_SHORTEST} characters, 256 bits",
            remedy="Name a token_file that does not exist: one is made. Or use: openssl rand -hex 32",
        )
    keep_secret(token)
    return token
