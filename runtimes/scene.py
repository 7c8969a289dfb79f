"""The scene file: areas of interest, rules, and what counts as a region.

[areas.gate]
polygon = [[0.1, 0.5], [0.4, 0.5], [0.4, 1.0], [0.1, 1.0]]
relative = true

[[rules]]
name = "fever"
rule = "person max > 38 C in gate for 3 s"

[regions]
smallest = 20
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeunip.classes import Classes
from edgeunip.errors import UsageError, near
from edgeunip.runtimes.areas import Area
from edgeunip.runtimes.regions import MOST
from edgeunip.runtimes.rules import Rule, parse_rule
from edgeunip.runtimes.track import PATIENCE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Scene:
    """What the user wants to know of a scene.

    Attributes:
        areas: areas of interest, each with a name of its own.
        rules: each with a name of its own.
        smallest: area in pixels from which a region counts; None goes by the frame's size.
        most: regions that are kept in a frame, the largest.
        patience: frames in which a region may be missing and still keep its number.
    """

    areas: tuple[Area, ...] = ()
    rules: tuple[Rule, ...] = ()
    smallest: int | None = None
    most: int = MOST
    patience: int = PATIENCE


def read_scene(path: Path, classes: Classes) -> Scene:
    """Read a scene file.

    Args:
        path: of the file.
        classes: of the model, for the rules.

    Raises:
        UsageError: the file cannot be read or is no TOML, or a key, an area or a rule is wrong.
    """
    try:
        return _scene(_load(path), classes)
    except UsageError as error:
        raise UsageError(f"Scene file {path}: {_lower(error.what)}", where=error.where, why=error.why,
                         remedy=error.remedy) from error  # fmt: skip


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise UsageError("It cannot be read", why=error.strerror) from error
    if len(text) > _LARGEST_BYTES:
        raise UsageError("It is larger than 1 MiB")
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError("It is no TOML", why=error) from error


def _scene(content: Mapping[str, Any], classes: Classes) -> Scene:
    _check_keys("the file", content, ("areas", "rules", "regions"))
    areas = tuple(_area(name, value) for name, value in _table("areas", content.get("areas", {})).items())
    names = tuple(area.name for area in areas)
    rules: list[Rule] = []
    for number, value in enumerate(_list("rules", content.get("rules", [])), 1):
        rules.append(_rule(number, value, classes, names))
        if rules[-1].name in (rule.name for rule in rules[:-1]):
            raise UsageError("Two rules have the same name", where=rules[-1].name)
    regions = _table("regions", content.get("regions", {}))
    _check_keys("[regions]", regions, ("smallest", "most", "patience"))
    most = _whole("most", regions.get("most", MOST), 1, 1000)
    _check_counts(rules, most)
    return Scene(
        areas,
        tuple(rules),
        smallest=_whole("smallest", regions["smallest"], 1, 2**31) if "smallest" in regions else None,
        most=most,
        patience=_whole("patience", regions.get("patience", PATIENCE), 0, 100_000),
    )


def _check_counts(rules: Sequence[Rule], most: int) -> None:
    """Refuse a rule that waits for more regions than are kept."""
    for rule in rules:
        if rule.quantity == "count" and rule.comparison[0] == ">" and not rule.beyond(most):
            remedy = f"Raise most under [regions], which is {most}."
            raise UsageError("No more regions are counted than are kept", where=rule.text, remedy=remedy)


def _area(name: str, value: Any) -> Area:
    place = f"[areas.{name}]"
    entry = _table(f"areas.{name}", value)
    _check_keys(place, entry, ("polygon", "relative"))
    if not name.strip() or not name.isprintable():
        raise UsageError("An area needs a printable name", where=place)
    if "polygon" not in entry:
        raise UsageError("An area needs a polygon", where=place, remedy="polygon = [[x, y], [x, y], [x, y]]")
    relative = entry.get("relative", False)
    if not isinstance(relative, bool):
        raise UsageError("relative is true or false", where=place, why=repr(relative))
    corners = _list(f"areas.{name}.polygon", entry["polygon"])
    return Area(name, tuple(_point(place, corner) for corner in corners), relative)


def _point(place: str, value: Any) -> tuple[float, float]:
    if not (isinstance(value, list) and len(value) == 2 and all(_is_number(part) for part in value)):
        raise UsageError("A corner is two numbers [x, y]", where=place, why=repr(value))
    return float(value[0]), float(value[1])


def _rule(number: int, value: Any, classes: Classes, areas: Collection[str]) -> Rule:
    place = f"[[rules]] number {number}"
    entry = _table(place, value)
    _check_keys(place, entry, ("name", "rule"))
    text, name = entry.get("rule"), entry.get("name", f"rule {number}")
    if not isinstance(text, str):
        raise UsageError("A rule needs its text", where=place, remedy='rule = "person max > 38 C for 3 s"')
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UsageError("A rule's name is a printable text", where=place, why=repr(name))
    return parse_rule(text, classes, areas, name=name)


def _check_keys(place: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    for key in given:
        if key not in known:
            raise UsageError(f"Unknown key {key} in {place}", remedy=near(key, known))


def _table(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{place} is a table of keys and values", why=repr(value))
    return value


def _list(place: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UsageError(f"{place} is a list", why=repr(value), remedy="Write [[rules]]." if place == "rules" else None)
    return value


def _whole(key: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UsageError(f"{key} is a whole number from {least} to {most}", why=repr(value))
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
