"""No credential in any text that leaves the process: by its form, and by its very value.

Whoever reads a credential hands it to :func:`keep_secret`; :func:`clean` then hides it in every later line, traceback
or message, as it is and as URLs, JSON and HTTP spell it. What looks like a credential is hidden in any case.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import stat
import threading
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote

from edgeunip.errors import SourceError

MASK = "***"
_SHORTEST = 4  # a shorter value would hide ordinary words; it still goes by its form
_LONGEST = 65536  # characters of a text that are looked at; the rest is cut off
# A bare "key" is one in an address only: recipes are written key=value.
_KEYS = r"(?:pass(?:word|wd)?|pwd|token|auth|secret|api[_-]?key|(?<=[?&])key)"
_END = r"[^\s&,;'\"<>)]"
# From the first of the left to the last of the right stands user:password, even one with a bare @ or /.
_AROUND = (
    (re.compile(r"[a-z][a-z0-9+.-]*:/{1,3}", re.IGNORECASE), "@"),
    (re.compile(r"%3a%2f%2f", re.IGNORECASE), "%40"),
)
_FORMS = (
    (re.compile(r"(?<![\w.:/@-])[\w.+-]{1,64}:[^\s:/@'\"<>]{1,128}@(?=[\w\[])"), f"{MASK}@"),
    (re.compile(rf"((?<![a-z]){_KEYS})(=|%3d){_END}+", re.IGNORECASE), rf"\1\2{MASK}"),
    (re.compile(rf"(['\"]{_KEYS}['\"]\s*:\s*)(['\"])[^'\"]*\2", re.IGNORECASE), rf"\1\2{MASK}\2"),
    (re.compile(r"\b(basic|bearer|digest) [\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\b(response=)\"?[0-9a-f]{32,64}\"?", re.IGNORECASE), rf"\1{MASK}"),
)

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_kept: list[str] = []


def keep_secret(value: str) -> None:
    """Hide ``value`` in all that :func:`clean` sees from now on."""
    value = value.strip()
    if len(value) < _SHORTEST:
        return
    inner = json.dumps(value)[1:-1]
    encoded = base64.b64encode(value.encode()).decode().rstrip("=")
    forms = {value, quote(value), quote(value, safe=""), quote_plus(value), inner, repr(value)[1:-1], encoded}
    with _lock:
        # Longest first: where one secret holds another, no rest of it may stay.
        _kept[:] = sorted({*_kept, *forms}, key=len, reverse=True)


def clean(text: str) -> str:
    """Return ``text`` without credentials, at most 65,536 characters of it."""
    text = text[:_LONGEST]
    for value in tuple(_kept):
        text = text.replace(value, MASK)
    text = re.sub(r"\S+", _without_user, text)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def _without_user(word: re.Match[str]) -> str:
    text = word.group()
    for left, right in _AROUND:
        begin, end = left.search(text), text.lower().rfind(right)
        if begin and end > begin.end():
            text = f"{text[: begin.end()]}{MASK}{text[end:]}"
    return text


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


def credentials(address: str) -> list[str]:
    """Return what is secret in an address: the password, and what stands behind ``password=``, ``token=`` and so on."""
    _, found, rest = address.partition("://")
    if not found:
        return []
    before, at, _ = rest.rpartition("@")
    _, colon, password = before.partition(":")
    secrets = re.findall(rf"\b{_KEYS}=([^&/#\s]+)", address, re.IGNORECASE)
    user = base64.b64encode(before.encode()).decode() if at else ""  # as HTTP's Basic sends both
    return [secret for secret in (password if at and colon else "", user, *secrets) if secret]


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
