"""Addresses of sources: where they are read from, what in them is secret, and how they may be shown."""

from __future__ import annotations

import base64
import logging
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote

from edgeunip.errors import SourceError
from edgeunip.redaction import KEYS, MASK, keep_secret

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/+", re.IGNORECASE)
_SECRET = re.compile(rf"(?<![a-z])({KEYS}|key)(=|%3d)([^&/?#]*)", re.IGNORECASE)
_LONGEST = 65536  # characters of an address

logger = logging.getLogger(__name__)


def redact(source: str) -> str:
    """Return ``source`` without credentials.

    What stands before the last ``@`` goes, and so does what stands behind ``?`` or ``#``, and ``password=...`` in the
    path, where some cameras want it. Passwords with a bare ``@``, ``/`` or ``?`` are common although no valid URL
    holds one: where it is not clear which part is the password, the host is given up, not the secret. A path on the
    disk comes back unchanged, unless it reads like ``user:password@host``.
    """
    scheme, login, rest = _parts(source)
    shown = f"{MASK}@" if login else ""
    if not scheme:
        return shown + rest
    address = re.split(r"[?#]", rest)[0]
    tail = f"?{MASK}" if address != rest else ""
    return scheme + shown + _SECRET.sub(rf"\1\2{MASK}", address) + tail


def credentials(source: str) -> list[str]:
    """Return what is secret in an address: the password, and what stands behind ``password=``, ``token=`` and so on."""
    scheme, login, rest = _parts(source)
    password = login.partition(":")[2]
    both = base64.b64encode(login.encode()).decode() if login else ""  # as HTTP's Basic sends user and password
    named = [match[3] for match in _SECRET.finditer(rest)] if scheme else []
    return [secret for secret in (password, both, *named) if secret]


def resolve(source: str) -> str:
    """Return a source's address; ``@FILE`` is read from the first line of a file, ``$NAME`` from the environment.

    So a password stands in no command line, which every user of the machine may read. Credentials in the address are
    kept secret from here on.

    Raises:
        SourceError: the file cannot be read, or the variable is not set.
    """
    if source.startswith("@"):
        address = _from_file(Path(source[1:]))
    elif source.startswith("$"):
        address = _from_environment(source[1:])
    else:
        address = source
    for secret in credentials(address):
        keep_secret(secret)
        keep_secret(unquote(secret))
    return address


def _parts(source: str) -> tuple[str, str, str]:
    """Return the scheme, what stands before the last ``@``, and the rest; a path on the disk is all rest."""
    match = _SCHEME.match(source)
    scheme = match.group() if match else ""
    login, _, rest = source[len(scheme) :].rpartition("@")
    if not scheme and ":" not in login:
        return "", "", source
    return scheme, login, rest


def _from_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            address = file.readline(_LONGEST).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise SourceError("The file of a source's address cannot be read", where=path, why=why) from None
    handed = path.is_relative_to(os.environ.get("CREDENTIALS_DIRECTORY") or "/dev/null")  # by systemd, to us alone
    if stat.S_ISREG(mode) and mode & 0o077 and not handed and credentials(address):
        logger.warning("Others may read %s, which holds a camera's password. Run: chmod 600 %s", path, path)
    return _one_address(address, path)


def _from_environment(name: str) -> str:
    if name not in os.environ:
        raise SourceError("The environment variable of a source's address is not set", where=name)
    return _one_address(os.environ[name].strip(), name)


def _one_address(address: str, where: object) -> str:
    if not address or address[0] in "@$":
        remedy = "Write one, such as rtsp://USER:PASSWORD@HOST/PATH."
        raise SourceError("It holds no source's address", where=where, remedy=remedy)
    return address
