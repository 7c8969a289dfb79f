"""No credential in any text that leaves the process: by its form, and by its very value.

Whoever reads a credential hands it to :func:`keep_secret`; :func:`clean` then hides it in every later line, traceback
or message, as it is and as URLs, JSON and HTTP spell it. What looks like a credential is hidden in any case.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from urllib.parse import quote, quote_plus

MASK = "***"
_SHORTEST = 4  # a shorter value would hide ordinary words; it still goes by its form
_LONGEST = 65536  # characters of a text that are looked at; the rest is cut off
# Words that a secret stands behind. A bare "key" is one in an address only: recipes are written key=value.
KEYS = r"(?:pass(?:word|wd)?|pwd|token|auth|secret|api[_-]?key|(?<=[?&])key)"
_END = r"[^\s&,;'\"<>)]"
# From the first of the left to the last of the right stands user:password, even one with a bare @ or /.
_AROUND = (
    (re.compile(r"[a-z][a-z0-9+.-]*:/{1,3}", re.IGNORECASE), "@"),
    (re.compile(r"%3a%2f%2f", re.IGNORECASE), "%40"),
)
_FORMS = (
    (re.compile(r"(?<![\w.:/@-])[\w.+-]{1,64}:[^\s:/@'\"<>]{1,128}@(?=[\w\[])"), f"{MASK}@"),
    (re.compile(rf"((?<![a-z]){KEYS})(=|%3d){_END}+", re.IGNORECASE), rf"\1\2{MASK}"),
    (re.compile(rf"(['\"]{KEYS}['\"]\s*:\s*)(['\"])[^'\"]*\2", re.IGNORECASE), rf"\1\2{MASK}\2"),
    (re.compile(r"\b(basic|bearer|digest) [\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\b(response=)\"?[0-9a-f]{32,64}\"?", re.IGNORECASE), rf"\1{MASK}"),
)

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
