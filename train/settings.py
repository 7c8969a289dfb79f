"""Typed values of a recipe, a frozen dataclass: read from TOML and from ``--set key=value``."""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

from edgeunip.errors import UsageError, near

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Values = TypeVar("Values")
"""A recipe: a frozen dataclass whose fields are int, float, bool, str or Literal, and which checks itself."""


def read(path: Path, base: Values) -> Values:
    """Read a TOML file of recipe values; what it does not name is as in ``base``.

    Raises:
        UsageError: the file is missing or no TOML, or a key or value is wrong.
    """
    return override(base, read_values(path))


def read_values(path: Path) -> dict[str, Any]:
    """Read a TOML file's keys and values, unchecked.

    Raises:
        UsageError: the file is missing or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("Cannot read the recipe", where=path, why=error.strerror) from error
    except ValueError as error:
        raise UsageError("The recipe is no TOML", where=path, why=error) from error


def collect(base: Values, file: Path | None, named: Mapping[str, str | None], settings: Iterable[str]) -> Values:
    """Return ``base`` overridden by a TOML file, then by options of their own (None: not given), then by settings.

    Raises:
        UsageError: a file cannot be read, or a key or value is wrong.
    """
    read_in = read(file, base) if file else base
    given = {key: value for key, value in named.items() if value is not None}
    return override(read_in, given | parse(settings))


def parse(settings: Iterable[str]) -> dict[str, str]:
    """Split ``key=value`` settings.

    Raises:
        UsageError: one has no ``=``.
    """
    values = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise UsageError("A setting must read key=value", where=setting)
        values[key.strip()] = value.strip()
    return values


def override(recipe: Values, values: Mapping[str, Any]) -> Values:
    """Return the recipe with some values replaced; text is read by the field's type.

    Raises:
        UsageError: an unknown key (its near matches are named) or a value of the wrong type or range.
    """
    known = typing.get_type_hints(type(recipe))
    for key in values:
        if key not in known:
            raise UsageError("Unknown recipe key", where=key, remedy=near(key, known))
    converted = {key: _convert(key, value, known[key]) for key, value in values.items()}
    return replace(recipe, **converted)  # type: ignore[type-var]


def require_kinds(recipe: object) -> None:
    """Refuse a value that is none of its Literal's, or not finite; for a recipe's ``__post_init__``."""
    for name, kind in typing.get_type_hints(type(recipe)).items():
        value = getattr(recipe, name)
        if get_args(kind) and value not in get_args(kind):
            refuse(name, value, f"Choose one of {', '.join(map(str, get_args(kind)))}.")
        if kind is float and not math.isfinite(value):
            refuse(name, value, "Give a finite number.")


def refuse(key: str, value: object, remedy: str) -> NoReturn:
    """Raise the error of a recipe value that cannot be."""
    raise UsageError(f"The recipe's {key} cannot be {value!r}", remedy=remedy)


def _convert(key: str, value: Any, kind: Any) -> Any:
    if get_args(kind) or kind is str:
        return str(value)
    if kind is bool:
        return _boolean(key, value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        refuse(key, value, f"Give a value of type {kind.__name__}.")
    try:
        number = float(value) if kind is float else int(value)
    except (ValueError, OverflowError):
        refuse(key, value, f"Give a value of type {kind.__name__}.")
    if kind is int and isinstance(value, float) and value != number:
        refuse(key, value, "Give a whole number.")
    return number


def _boolean(key: str, value: Any) -> bool:
    known = {"true": True, "false": False}
    if str(value).lower() not in known:
        refuse(key, value, "Give true or false.")
    return known[str(value).lower()]
