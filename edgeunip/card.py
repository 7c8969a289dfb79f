"""What a bundle says about itself, on one page for people.

Its author wrote most of it freely: nothing here believes the type of an entry, and nothing of it can steer a terminal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeunip import bundle, pack, trust
from edgeunip.bundle import Manifest
from edgeunip.thermal import Agc

_WIDTH = 14
_MAX_TEXT = 160
_NUMBER = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])")
_FIRST = ("torch", "float32")  # the order of the columns of figures; others follow


@dataclass(frozen=True)
class Card:
    """A bundle that has been checked.

    Attributes:
        path: its folder, or its packed file.
        manifest: what it says.
        digest: SHA-256 of the manifest, the bundle's identity.
        signature: what this device makes of its signature.
        packed_bytes: size of the packed file, None for a folder.
    """

    path: Path
    manifest: Manifest
    digest: str
    signature: trust.State
    packed_bytes: int | None


def read(path: Path) -> Card:
    """Check the bundle at ``path``, a folder or a packed file, which is not unpacked for it.

    Raises:
        BundleError: it is none, or not sound.
    """
    if path.is_file():
        packed = pack.read(path)
        loaded, found = bundle.Bundle(path, packed.manifest), packed.signature
    else:
        loaded = bundle.load(path)
        found, packed = loaded.signature(), None
    state = trust.inspect(loaded.manifest, found)
    return Card(path, loaded.manifest, loaded.digest, state, packed.size if packed else None)


def to_json(card: Card) -> dict[str, Any]:
    """Return all of it: the manifest, the digest, the signature and the sizes."""
    return {
        "path": str(card.path),
        "digest": card.digest,
        "signature": asdict(card.signature),
        "packed_bytes": card.packed_bytes,
        "manifest": card.manifest.to_json(),
    }


def describe(card: Card, *, colour: bool = False) -> str:
    """Return the card as lines of text; ``colour`` shows the classes' colours by terminal codes."""
    manifest = card.manifest
    sections: list[tuple[str, Iterator[str]]] = [
        ("name", iter([manifest.name])),
        ("target", _target(manifest)),
        ("input", _input(manifest)),
        ("classes", _classes(manifest)),
        ("accuracy", _accuracy(manifest)),
        ("precision", _precision(manifest)),
        ("calibration", _calibration(manifest.calibration)),
        ("size", _sizes(card)),
        ("signature", iter([str(card.signature)])),
        ("provenance", _provenance(manifest.provenance)),
        ("digest", iter([card.digest])),
    ]
    rows = []
    for title, lines in sections:
        for number, line in enumerate(lines):
            swatch = _swatch(manifest, number) if colour and title == "classes" else ""
            rows.append(f"{title if number == 0 else '':<{_WIDTH}}{swatch}{_plain(line)}".rstrip())
    return "\n".join(rows)


def _target(manifest: Manifest) -> Iterator[str]:
    yield f"{manifest.target}, run by {manifest.runtime}"
    for key, value in manifest.capability.items():
        yield f"{key}: {_brief(value)}"


def _input(manifest: Manifest) -> Iterator[str]:
    yield f"{manifest.width}x{manifest.height} pixels, one channel of 8 bits"
    yield f"AGC {_agc(manifest.agc)}"
    radiometry = manifest.radiometry
    yield f"counts become degC: {type(radiometry).__name__ if radiometry else 'no, they are bare numbers'}"


def _agc(agc: Agc) -> str:
    values = agc.to_json()
    mode = values.pop("mode")
    return f"{mode} ({', '.join(f'{key} {_brief(value)}' for key, value in values.items())})"


def _classes(manifest: Manifest) -> Iterator[str]:
    classes = manifest.classes
    for index, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.colours, strict=True)):
        yield f"{index:>3}  #{red:02x}{green:02x}{blue:02x}  {name}"


def _swatch(manifest: Manifest, index: int) -> str:
    red, green, blue = manifest.classes.colours[index]
    return f"\x1b[48;2;{red};{green};{blue}m  \x1b[0m "


def _accuracy(manifest: Manifest) -> Iterator[str]:
    """Yield the float graph's figures beside those of the precision that was shipped."""
    known = [*_FIRST, *(key for key in manifest.accuracy if key not in _FIRST)]
    table = {key: manifest.accuracy[key] for key in known if isinstance(manifest.accuracy.get(key), Mapping)}
    if not table:
        yield "not measured"
        return
    images = next((value["images"] for value in table.values() if "images" in value), "?")
    yield f"split {_brief(manifest.accuracy.get('split', '?'))}, {_brief(images)} images, IoU in %"
    yield "  ".join([f"{'':<20}", *(f"{key[:14]:>14}" for key in table)])
    yield _row("mIoU", [value.get("miou") for value in table.values()])
    for name in manifest.classes.names:
        yield _row(f"  {name}", [_at(value, "iou", name) for value in table.values()])
    if (drop := _drop(manifest, table)) is not None:
        yield f"{manifest.precision} gives up {drop:.2f} points of mIoU"


def _row(name: str, values: list[Any]) -> str:
    return "  ".join([f"{name[:20]:<20}", *(f"{_percent(value):>14}" for value in values)])


def _drop(manifest: Manifest, table: Mapping[str, Any]) -> float | None:
    before, after = _at(table, "float32", "miou"), _at(table, manifest.precision, "miou")
    if manifest.precision == "float32" or not _is_number(before) or not _is_number(after):
        return None
    return 100.0 * float(before - after)


def _precision(manifest: Manifest) -> Iterator[str]:
    yield manifest.precision
    quantisation = manifest.quantisation or {}
    for key, value in quantisation.items():
        if key != "layers" and value not in ({}, None):
            yield f"{key}: {_brief(value)}"
    layers = quantisation.get("layers")
    if isinstance(layers, Mapping):
        yield f"layers: {', '.join(f'{count} {name}' for name, count in _count(layers.values()))}"
        yield from _layers(layers)


def _layers(layers: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each kind of layer: those whose names differ in numbers alone are one kind."""
    kinds: dict[str, list[str]] = {}
    for name in layers:
        kinds.setdefault(_NUMBER.sub("*", name), []).append(name)
    for kind, names in kinds.items():
        counts = _count(layers[name] for name in names)
        line = f"  {kind if len(names) > 1 else names[0]}  {', '.join(f'{count} {name}' for name, count in counts)}"
        rare = {name for name, _ in counts[1:]}
        odd = [name for name in names if str(layers[name]) in rare]
        yield f"{line} ({', '.join(odd)})" if odd else line


def _count(values: Any) -> list[tuple[str, int]]:
    return Counter(str(value) for value in values).most_common()


def _calibration(calibration: Mapping[str, Any] | None) -> Iterator[str]:
    if calibration is None:
        yield "none"
    for key, value in (calibration or {}).items():
        if key != "histogram":
            yield f"{key}: {_brief(value)}"


def _sizes(card: Card) -> Iterator[str]:
    files = card.manifest.files
    total = sum(entry["size"] for entry in files.values())
    packed = "" if card.packed_bytes is None else f", packed {_megabytes(card.packed_bytes)}"
    yield f"{_megabytes(total)} in {len(files)} files{packed}"
    for name, entry in files.items():
        yield f"  {name:<20}{_megabytes(entry['size']):>12}"


def _provenance(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Yield what made the model: versions, data, seed, and where its weights began and under which licence."""
    versions = provenance.get("versions")
    if isinstance(versions, Mapping):
        yield f"versions: {', '.join(f'{name} {_brief(version)}' for name, version in versions.items())}"
    if (source := _at(provenance, "data", "source")) is not None:
        lists = _at(provenance, "data", "lists")
        yield f"data: {_brief(source)}{f', splits {_brief(lists)}' if lists else ''}"
    recipe = provenance.get("recipe")
    if isinstance(recipe, str) and (seed := re.search(r"^seed = (\d{1,20})$", recipe, re.MULTILINE)):
        yield f"seed: {seed[1]}"
    yield f"start weights: {_start(provenance.get('init'))}"
    for key, value in provenance.items():
        if key not in ("versions", "data", "recipe", "init", "command", "machine", "radiometry"):
            yield f"{key}: {_brief(value)}"


def _start(origin: Any) -> str:
    if not isinstance(origin, Mapping):
        return "none named"
    name, kind, licence = (_brief(origin.get(key)) for key in ("name", "kind", "licence"))
    return f"{name} ({kind}), licence {'not stated' if origin.get('licence') is None else licence}"


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _brief(value: Any) -> str:
    """Return a value in few words."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{key} {_brief(entry)}" for key, entry in list(value.items())[:16])
    elif isinstance(value, list):
        value = " ".join(_brief(entry) for entry in value[:16])
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} ..."


def _percent(value: Any) -> str:
    return f"{100.0 * value:.2f}" if _is_number(value) else "absent"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e6


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _plain(text: str) -> str:
    """Show what a terminal would obey instead of sending it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
