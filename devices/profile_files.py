"""Camera profiles of the user's own, one TOML file each.

.. code:: toml

    about = "Bench camera, calibrated 2026-11-21"
    usb = ["1234:5678"]
    formats = ["Y16"]
    sizes = [[120, 160]]          # rows, columns on the wire
    radiometry = {scale = 0.01, offset = -273.15}   # degC = scale * counts + offset

They are read from ``$EDGEUNIP_CAMERAS`` where it is set, else from ``$XDG_CONFIG_HOME/edgeunip/cameras``. The file's
name is the profile's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgeunip import durable
from edgeunip.devices.profile import Profile, Shutter, Size
from edgeunip.errors import UsageError, near
from edgeunip.thermal import Linear

_LARGEST = 16_384


def folder() -> Path:
    """Return the folder of the user's profiles and of the corrections of their cameras; it need not be there.

    Raises:
        UsageError: no variable names one, and the user has no home folder, as in some containers.
    """
    if named := os.environ.get("EDGEUNIP_CAMERAS"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgeunip" / "cameras"
    except RuntimeError as error:
        remedy = "Name one in EDGEUNIP_CAMERAS."
        raise UsageError("No home folder to look for camera profiles in", why=error, remedy=remedy) from error


def read_all() -> list[Profile]:
    """Return the user's profiles, sorted by name.

    Raises:
        UsageError: the folder cannot be read, or a file in it is no profile.
    """
    try:
        files = sorted(path for path in folder().glob("*.toml") if not path.name.startswith("."))
        return [parse(path.read_bytes(), path) for path in files]
    except OSError as error:
        raise UsageError("The camera profiles cannot be read", where=folder(), why=error.strerror) from error


def parse(data: bytes, path: Path) -> Profile:
    """Read one file; ``path`` names the profile.

    Raises:
        UsageError: it is no TOML, or a key is unknown, missing, or of the wrong kind.
    """
    try:
        values = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError("The camera profile is no TOML", where=path, why=error) from error
    parsed: dict[str, Any] = {"name": path.stem}
    for key, value in values.items():
        if key not in _READERS:
            raise UsageError(f"Unknown key {key} in the camera profile", where=path, remedy=near(key, _READERS))
        try:
            parsed[key] = _READERS[key](value)
        except (TypeError, ValueError, KeyError, OverflowError, UsageError) as error:
            raise UsageError(f"Key {key} of the camera profile makes no sense", where=path, why=error) from error
    if "about" not in parsed:
        raise UsageError("The camera profile has no key about", where=path, remedy='Add: about = "what it is"')
    profile = Profile(**parsed)
    if profile.layout == "lepton" and not profile.telemetry:
        raise UsageError(
            "Layout lepton goes with telemetry rows", where=path, remedy="Add: telemetry = [[122, 160, 2]]"
        )
    return profile


def save(profile: Profile) -> Path:
    """Write a profile into the user's folder; returns the file.

    Raises:
        UsageError: the name cannot be a file's.
        StorageError: it cannot be written.
    """
    if not profile.name or not all(c.isalnum() or c in "-_" for c in profile.name):
        raise UsageError("A profile's name is made of letters, digits, - and _", where=profile.name)
    path = folder() / f"{profile.name}.toml"
    text = write(profile)
    parse(text.encode(), path)
    durable.write_text(path, text)
    return path


def write(profile: Profile) -> str:
    """Return a profile as :func:`parse` reads it; what is not set is left out."""
    lines = []
    for field in fields(Profile):
        value = getattr(profile, field.name)
        value = tuple(code.strip() for code in value) if field.name == "formats" else value
        if field.name != "name" and value not in (None, "", (), False, {}, "unknown"):
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Linear):
        return f"{{scale = {value.scale!r}, offset = {value.offset!r}}}"
    if isinstance(value, Mapping):
        return _toml([[*size, rows] for size, rows in value.items()])
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_toml(entry) for entry in value)}]"
    return repr(value)


def _quoted(text: str) -> str:
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain) + '"'


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _real(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    if not abs(value) < 1e9:
        raise ValueError(f"{value!r} is out of range")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
        raise ValueError(f"{value!r} is no whole number in 1..{_LARGEST}")
    return value


def _entries(value: object, count: int | None = None) -> list[Any]:
    if not isinstance(value, list) or count not in (None, len(value)):
        raise TypeError(f"{value!r} is no list" + (f" of {count}" if count else ""))
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(entry) for entry in _entries(value))


def _size(value: object) -> Size:
    rows, columns = _entries(value, 2)
    return _whole(rows), _whole(columns)


def _split(value: object) -> Size:
    rows, columns = _size(value)
    if rows % 2:
        raise ValueError(f"{rows} rows have no half")
    return rows, columns


def _telemetry(value: object) -> dict[Size, int]:
    found = {}
    for entry in _entries(value):
        rows, columns, cut = (_whole(number) for number in _entries(entry, 3))
        if cut >= rows:
            raise ValueError(f"{cut} of {rows} rows leave no pixels")
        found[rows, columns] = cut
    return found


def _range(value: object) -> tuple[float, float]:
    low, high = (_real(number) for number in _entries(value, 2))
    if low >= high:
        raise ValueError(f"{low:g} is not below {high:g}")
    return low, high


def _radiometry(value: object) -> Linear:
    if not isinstance(value, dict) or set(value) != {"scale", "offset"}:
        raise TypeError("it is not {scale = .., offset = ..}")
    return Linear(_real(value["scale"]), _real(value["offset"]))


def _rate(value: object) -> float:
    rate = _real(value)
    if not 0 < rate <= 1000:
        raise ValueError(f"{rate:g} is not in 0..1000 frames a second")
    return rate


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return str(value)

    return read


def _codes(value: object) -> tuple[str, ...]:
    """Four-character codes as the kernel pads them; users write ``Y16``."""
    return tuple(code if len(code) > 4 else f"{code:<4}" for code in _texts(value))


_READERS: dict[str, Callable[[object], Any]] = {
    "about": _text,
    "radiometry": _radiometry,
    "usb": lambda value: tuple(entry.lower() for entry in _texts(value)),
    "cards": _texts,
    "formats": _codes,
    "sizes": lambda value: tuple(_size(entry) for entry in _entries(value)),
    "packed": _flag,
    "swapped": _flag,
    "split": _split,
    "telemetry": _telemetry,
    "layout": _one_of("lepton"),
    "rate_hz": _rate,
    "shutter": _one_of(*get_args(Shutter)),
    "range_c": _range,
    "notes": _texts,
}
