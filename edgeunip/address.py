"""Source addresses as they may be shown: nobody's password belongs into a name, a message or a log."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/+", re.IGNORECASE)
_SECRET = re.compile(r"(pass(?:word|wd)?|pwd|token|auth|secret|key)(=|%3d)[^&/]*", re.IGNORECASE)


def redact(source: str) -> str:
    """Return ``source`` without credentials.

    What stands before the last ``@`` goes, and so does what stands behind ``?`` or ``#``, and ``password=...`` in the
    path, where some cameras want it. Passwords with a bare ``@``, ``/`` or ``?`` are common although no valid URL
    holds one: where it is not clear which part is the password, the host is given up, not the secret. A path on the
    disk comes back unchanged, unless it reads like ``user:password@host``.
    """
    match = _SCHEME.match(source)
    scheme = match.group() if match else ""
    before, at, rest = source[len(scheme) :].rpartition("@")
    if at and not scheme and ":" not in before:
        return source
    shown = f"***@{rest}" if at else rest
    if not scheme:
        return shown
    address = re.split(r"[?#]", shown)[0]
    tail = "?***" if address != shown else ""
    return scheme + _SECRET.sub(r"\1\2***", address) + tail
