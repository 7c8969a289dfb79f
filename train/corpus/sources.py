"""Where unlabelled images come from: folders with their sampling rules, and the layouts that were published.

A source is written ``DIR[,every=K][,per-class=N][,crop=PX][,peak=V][,list=FILE][,set=NAME][,licence=TEXT]``, or with a
layout's name before the folder: ``infpre:DIR``, ``msip:DIR``, ``imagenet:DIR``, ``coco:DIR``, ``infmix:DIR``,
``hf:REPO``. Listings are sorted by code point, unlike those of the published scripts, and so the same everywhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeunip import images
from edgeunip.errors import DataError, UsageError, near
from edgeunip.train import layouts

Say = Callable[[str], None]
UNSTATED = "not stated"


@dataclass(frozen=True)
class Source:
    """One set of images: a folder, and the rules by which images are taken from it.

    Attributes:
        root: the folder; images are taken from all folders below it, too.
        set: the name its images are counted under.
        every: take every k-th image of each folder's sorted listing, from the first on.
        per_class: take the first n images of each sub-folder of ``root``; 0 for all.
        crop: white border, pixels to cut from each side.
        peak: keep an image only if its largest count exceeds this; None for any.
        stems: a file that lists the images to take, one path below ``root`` a line, without suffix; None for all.
        licence: as the set's publisher states it.
    """

    root: Path
    set: str
    every: int = 1
    per_class: int = 0
    crop: int = 0
    peak: int | None = None
    stems: Path | None = None
    licence: str = UNSTATED

    def rules(self) -> dict[str, Any]:
        """Return the rules as the index stores them."""
        numbers = {"every": self.every, "per_class": self.per_class, "crop": self.crop, "peak": self.peak}
        return {**numbers, "stems": str(self.stems) if self.stems else None, "licence": self.licence}


def parse(spec: str, say: Say) -> list[Source]:
    """Read a source as the user writes it; the options hold for every set of a published layout.

    Raises:
        UsageError: an option is unknown or not a whole number in its range.
        DataError: the folder is missing or not laid out as its kind is.
    """
    place, options = split_options(spec, tuple(_OPTIONS))
    values = dict(_value(key, value, spec) for key, value in options.items())
    kind, colon, folder = place.partition(":")
    if colon and kind == "hf":
        found = _from_hub(folder, say)
    elif colon and kind in LAYOUTS:
        found = LAYOUTS[kind](_folder(folder))
    else:
        found = plain(_folder(place, kind if colon and Path(folder).expanduser().is_dir() else ""))
    return [replace(source, **values) for source in found]


def split_options(spec: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """Split ``PLACE,key=value,..``; a folder whose own name reads so is taken whole.

    Raises:
        UsageError: a key is not one of ``known``.
    """
    options: dict[str, str] = {}
    place = spec
    while "=" in (last := place.rpartition(","))[2] and last[1] and not Path(place).expanduser().is_dir():
        key, _, value = last[2].partition("=")
        if key not in known:
            raise UsageError("Unknown option of a source", where=f"{key} in {spec}", remedy=near(key, known))
        options.setdefault(key, value)
        place = last[0]
    return place, options


def listing(source: Source) -> tuple[int, list[Path]]:
    """Return how many images lie below a source's folder, and those its rules take, sorted by their path.

    Raises:
        DataError: there is none; or ``stems`` names one that is not there.
    """
    found = _images_below(source.root)
    names = found if source.stems is None else _named(found, source.stems, source.root)
    names = _nth(names, lambda name: name.rpartition("/")[0], lambda at: at % source.every == 0)
    if source.per_class:
        names = _nth(names, lambda name: name.partition("/")[0], lambda at: at < source.per_class)
    return len(found), [source.root / name for name in names]


def plain(root: Path) -> list[Source]:
    """Take a folder as one set.

    Raises:
        DataError: it is a labelled data set.
    """
    if (root / "images").is_dir() and (root / "labels").is_dir():
        remedy = f"Name {root / 'images'}; a list takes one split only: list={root / 'train.txt'}."
        raise DataError("A labelled data set: its labels are no images to learn from", where=root, remedy=remedy)
    return [Source(root, root.name)]


def _folder(text: str, kind: str = "") -> Path:
    """Return a folder that is there; ``kind`` is what may be a misspelt layout."""
    root = Path(text).expanduser()
    if not root.is_dir():
        raise DataError("No such folder", where=root, remedy=near(kind, (*LAYOUTS, "hf")) if kind else None)
    return root.resolve()


def _value(key: str, value: str, spec: str) -> tuple[str, Any]:
    field, least = _OPTIONS[key]
    if field == "stems":
        return field, Path(value).expanduser().resolve()
    if least is None:
        return field, value
    if not value.isdecimal() or int(value) < least:
        raise UsageError(f"{key} must be a whole number from {least} on, not {value!r}", where=spec)
    return field, int(value)


_OPTIONS: Mapping[str, tuple[str, int | None]] = {
    "every": ("every", 1),
    "per-class": ("per_class", 1),
    "crop": ("crop", 0),
    "peak": ("peak", 0),
    "list": ("stems", None),
    "set": ("set", None),
    "licence": ("licence", None),
}


def _infpre(root: Path) -> list[Source]:
    """``<set>/thermal/``; a sibling ``rgb/`` is left alone."""
    found = [Source(place / "thermal", place.name) for place in _subfolders(root) if (place / "thermal").is_dir()]
    if not found:
        raise DataError("No set is laid out as SET/thermal", where=root)
    return found


def _msip(root: Path) -> list[Source]:
    """As InfPre, with the sampling rule of each of the eight sets (PAD's data-set document)."""
    return [replace(source, **_msip_rule(source.set, root)) for source in _infpre(root)]


def _msip_rule(name: str, root: Path) -> dict[str, Any]:
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    if plain not in _MSIP:
        remedy = "Take it as a source of its own."
        raise DataError("Not a set of MSIP", where=root / name, why=f"these are {', '.join(_MSIP)}", remedy=remedy)
    return _MSIP[plain]


_MSIP: Mapping[str, dict[str, Any]] = {
    "dronevehicle": {"crop": 100},
    "scutfirpedestrian": {"every": 10, "peak": 20},
    "llvip": {},
    "infraredaerialphotography": {"every": 2},
    "infraredship": {},
    "infraredsecurity": {},
    "lsotbtir": {"every": 10},
    "lasher": {"every": 10},
}


def _imagenet(root: Path) -> list[Source]:
    """ImageNet-1K's ``[train/]<class>/``: the first 200 of each class."""
    terms = "ImageNet terms of access: non-commercial research and education"
    return [Source(root / "train" if (root / "train").is_dir() else root, "imagenet", per_class=200, licence=terms)]


def _coco(root: Path) -> list[Source]:
    """COCO's ``[train2017/]``."""
    place = root / "train2017" if (root / "train2017").is_dir() else root
    return [Source(place, "coco", licence="Flickr terms of use, by image")]


def _infmix(root: Path) -> list[Source]:
    """``infpre/``, ``imagenet/`` and ``coco/`` of one folder."""
    parts = {"infpre": _infpre, "imagenet": _imagenet, "coco": _coco}
    return [source for name, layout in parts.items() for source in layout(_part(root, name))]


def _part(root: Path, name: str) -> Path:
    if not (root / name).is_dir():
        raise DataError("A part of InfMix is missing", where=root / name, remedy="Name the others one by one.")
    return root / name


def _from_hub(repo: str, say: Say) -> list[Source]:
    from edgeunip.train.public import hub

    fetched = hub.dataset(repo, say)
    found = _laid_out(fetched.path, repo)
    if fetched.licence is None:
        return found
    stated = f"{fetched.licence}, as {repo} states it"
    return [replace(source, licence=stated) if source.licence == UNSTATED else source for source in found]


def _laid_out(root: Path, repo: str) -> list[Source]:
    """Find out how a fetched data set is laid out."""
    if (root / "infpre").is_dir():
        return _infmix(root)
    if any((place / "thermal").is_dir() for place in _subfolders(root)):
        return _infpre(root)
    return [replace(source, set=repo) for source in plain(root)]


LAYOUTS: Mapping[str, Callable[[Path], list[Source]]] = {
    "infpre": _infpre,
    "msip": _msip,
    "imagenet": _imagenet,
    "coco": _coco,
    "infmix": _infmix,
}


def _subfolders(root: Path) -> list[Path]:
    return sorted((place for place in root.iterdir() if place.is_dir()), key=lambda place: place.name)


def _images_below(root: Path) -> list[str]:
    """Return the images below a folder as paths relative to it, sorted; hidden files are left out."""
    found, others = [], Counter[str]()
    for parent, _, names in os.walk(root, onerror=_refuse):
        for name in names:
            suffix = _split(name)[1].lower()
            if suffix in images.SUFFIXES and not name.startswith("."):
                found.append(f"{parent}/{name}")
            else:
                others[suffix] += 1
    if not found:
        held = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in others.most_common(4))
        raise DataError("No image in the folder or below", where=root, why=f"it holds {held}" if held else "empty")
    length = len(str(root).rstrip("/")) + 1
    return sorted(path[length:] for path in found)


def _split(name: str) -> tuple[str, str]:
    """Return (stem, suffix) of a path; strings, for a million Paths take their time."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem and "/" not in suffix else (name, "")


def _refuse(error: OSError) -> None:
    raise DataError("The folder cannot be read", where=error.filename, why=error.strerror) from error


def _named(names: list[str], stems: Path, root: Path) -> list[str]:
    """Return the images a list names, in the listing's order."""
    wanted = set(layouts.parse_list(layouts.read_text(stems)))
    found = [name for name in names if _split(name)[0] in wanted]
    missing = sorted(wanted - {_split(name)[0] for name in found})
    if missing:
        shown = ", ".join(missing[:3]) + (", .." if len(missing) > 3 else "")
        raise DataError(f"{len(missing)} listed images are not there", where=root, why=f"{shown} of {stems}")
    return found


def _nth(names: list[str], group: Callable[[str], str], wanted: Callable[[int], bool]) -> list[str]:
    """Keep the names whose number within their group, from 0, is wanted."""
    seen = Counter[str]()
    kept = []
    for name in names:
        of = group(name)
        if wanted(seen[of]):
            kept.append(name)
        seen[of] += 1
    return kept
