"""How a sink is written: ``KIND:REST?key=value&key=value``."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from edgeunip.address import redact
from edgeunip.errors import UsageError, near

Value = TypeVar("Value")


@dataclass(frozen=True)
class Spec:
    """One sink as its user wrote it.

    Attributes:
        kind: what stands before the first colon.
        rest: what it writes to.
        options: what stands behind the question mark.
    """

    kind: str
    rest: str
    options: dict[str, str]

    def known(self, keys: Collection[str]) -> None:
        """Refuse options other than ``keys``.

        Raises:
            UsageError: names the wrong one and its nearest.
        """
        for key in self.options:
            if key not in keys:
                raise UsageError(f"A {self.kind} sink has no option {key}", remedy=near(key, keys))

    def option(self, key: str, parse: Callable[[str], Value], default: Value) -> Value:
        """Return an option's value, ``default`` where it is not given.

        Raises:
            UsageError: ``parse`` refuses it (ValueError).
        """
        if key not in self.options:
            return default
        try:
            return parse(self.options[key])
        except ValueError as error:
            given = f"{key}={self.options[key]}"
            raise UsageError(f"An option of the {self.kind} sink is wrong", where=given, why=error) from error


def parse(text: str) -> Spec:
    """Take a sink apart. Nothing is decoded: a path may hold any character but ``?``."""
    kind, _, rest = text.partition(":")
    rest, _, query = rest.partition("?")
    options: dict[str, str] = {}
    for pair in filter(None, query.split("&")):
        key, equals, value = pair.partition("=")
        if not equals or key in options:
            raise UsageError("Options are written ?NAME=VALUE&NAME=VALUE", where=redact(text))
        options[key] = value
    return Spec(kind, rest, options)


def positive(text: str) -> float:
    """Return a number above 0; ValueError for anything else."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError("it must be a number above 0")
    return value
