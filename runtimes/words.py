"""The words of a rule."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgeunip.errors import UsageError

PLAIN = re.compile(r"[^\W\d][\w-]*")

_FORMS = re.compile(
    r"""(?P<space>\s+)
      | (?P<quoted>"[^"]*"|'[^']*')
      | (?P<comparison>[<>]=?|[≤≥])
      | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+))
      | (?P<word>°?[^\W\d][\w-]*|%)
      | (?P<comma>,)""",
    re.VERBOSE,
)
_SAME = {"≥": ">=", "≤": "<="}

Kind = Literal["quoted", "comparison", "number", "word", "comma", "end"]


@dataclass(frozen=True)
class Word:
    """One word: its kind, its text without quotation marks, and its first character in the rule, from 0."""

    kind: Kind
    text: str
    start: int

    @property
    def quoted(self) -> bool:
        """Whether it stands in quotation marks: then it is a name."""
        return self.kind == "quoted"

    @property
    def is_name(self) -> bool:
        """Whether it can be a name."""
        return self.kind in ("quoted", "word")

    @property
    def is_end(self) -> bool:
        """Whether the rule is over."""
        return self.kind == "end"

    def means(self, text: str) -> bool:
        """Tell whether it is a word of the language, capitals or not."""
        return not self.quoted and not self.is_end and self.text.lower() == text

    def __str__(self) -> str:
        return "the end" if self.is_end else repr(self.text)


def split(text: str, where: Callable[[int], str]) -> tuple[Word, ...]:
    """Return the words of a rule, the end last.

    Args:
        text: the rule.
        where: tells a place in it for people.

    Raises:
        UsageError: a character belongs to no word, or a quotation mark has no partner.
    """
    words, at = [], 0
    while at < len(text):
        if (match := _FORMS.match(text, at)) is None:
            raise _stray(text[at], where(at))
        if match.lastgroup != "space":
            words.append(_word(match))
        at = match.end()
    return (*words, Word("end", "", len(text)))


def _word(match: re.Match[str]) -> Word:
    text = match.group()
    kinds: dict[str | None, Kind] = {
        "quoted": "quoted", "comparison": "comparison", "number": "number", "word": "word", "comma": "comma"
    }  # fmt: skip
    kind = kinds[match.lastgroup]
    return Word(kind, text[1:-1] if kind == "quoted" else _SAME.get(text, text), match.start())


def _stray(character: str, where: str) -> UsageError:
    if character in "\"'":
        return UsageError("This quotation mark is never closed", where=where)
    return UsageError(f"{character!r} is no part of a rule", where=where)
