"""Where each public data set keeps its images, labels and splits.

Each function takes the data set's folder and returns a :class:`Layout`. The published protocols of SODA, SCUT-Seg and
MSRS choose the checkpoint on the test images, and MFNet's on validation and test images together (``val_test.txt``).
Here the test split selects nothing: where a set publishes no validation split of its own, a tenth of the training
images, chosen by the hash of their names and so the same on every machine, is held out as ``val``. Neighbouring frames
of one video can stand on both sides of that cut: it selects a checkpoint, it does not measure generalisation.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from edgeunip import images
from edgeunip.classes import Classes
from edgeunip.errors import DataError, EdgeunipError
from edgeunip.thermal import Radiometry, radiometry_from_json
from edgeunip.train import labels

Modality = Literal["thermal", "depth", "rgb"]
SPLITS = ("train", "val", "test")
UNKNOWN = 254  # what a raw label that stands for no class is mapped to: no class index, and not "ignore" either


@dataclass(frozen=True)
class Sample:
    """One image with its label.

    Attributes:
        stem: the name both share, as it stands in the split list.
        image: the image file, which may be missing: ``edgeunip data check`` tells.
        label: the label file, likewise.
    """

    stem: str
    image: Path
    label: Path


Splits = Mapping[str, tuple[Sample, ...]]


@dataclass(frozen=True)
class Layout:
    """What a data set's folder holds; the fields are those of :class:`edgeunip.train.datasets.DataSet`."""

    classes: Classes
    splits: Splits
    radiometry: Radiometry | None = None
    remap: tuple[int, ...] | None = None
    channel: int | None = None


def folder(root: Path, splits: str | None = None) -> Layout:
    """Read the project's own format: ``images/``, ``labels/``, ``classes.json`` and a list ``NAME.txt`` a split."""
    tree = _Tree.of(root / "images", root / "labels")
    classes, radiometry = _read_classes(root / "classes.json")
    return Layout(classes, _listed(tree, root, splits), radiometry)


def soda(root: Path, splits: str | None = None) -> Layout:
    """Read SODA: ``JPEGImages/``, ``SegmentationClassPNG/`` and ``train_infrared.txt``, ``test_infrared.txt``.

    The lists may stand at the root or in ``ImageSets/Segmentation``; further columns in them are passed over.
    """
    if not (root / "JPEGImages").is_dir() and (root / "InfraredSemanticLabel").is_dir():
        root = root / "InfraredSemanticLabel"
    masks = _first_folder(root, "SegmentationClassPNG", "SegmentationClassOne")
    tree = _Tree.of(root / "JPEGImages", masks)
    return Layout(SODA, _hold_out(_listed(tree, root, splits, "_infrared")))


def mfnet(root: Path, splits: str | None = None) -> Layout:
    """Read MFNet: ``images/`` (RGBT PNGs, thermal is the fourth channel) or extracted ``thermal_imgs/``; ``labels/``.

    ``val.txt`` validates. The reference's ``val_test.txt`` is not used: it holds the test images.
    """
    pictures = _first_folder(root, "thermal_imgs", "images")
    tree = _Tree.of(pictures, root / "labels")
    return Layout(MFNET, _listed(tree, root, splits), channel=3 if pictures.name == "images" else None)


def scut(root: Path, splits: str | None = None) -> Layout:
    """Read SCUT-Seg, with raw label ids or with ids already mapped to 0..9; which of them is found out by reading.

    Two forms exist: ``images/``, ``labels/``, ``train.txt``, ``val.txt``; and ``image/train``, ``mask/train`` (files
    named ``*_labelIds.png``), ``image/val``, ``mask/val``. The published ``val`` serves as the test split there and
    does so here.
    """
    if (root / "images").is_dir():
        found = _listed(_Tree.of(root / "images", root / "labels"), root, splits)
    else:
        _no_lists(root, splits)
        found = _by_folder(root, lambda split: (root / "image" / split, root / "mask" / split), "_labelIds")
    if "test" not in found and "val" in found:
        found = {**{name: samples for name, samples in found.items() if name != "val"}, "test": found["val"]}
    return Layout(SCUT, _hold_out(found), remap=_scut_remap(found, root))


def msrs(root: Path, splits: str | None = None) -> Layout:
    """Read MSRS: ``ir/`` and ``Segmentation_labels/`` below each of ``train/`` and ``test/``; classes as MFNet."""
    _no_lists(root, splits)
    found = _by_folder(root, lambda split: (root / split / "ir", root / split / "Segmentation_labels"))
    return Layout(MFNET, _hold_out(found))


LAYOUTS: dict[str, Callable[[Path, str | None], Layout]] = {"soda": soda, "mfnet": mfnet, "scut": scut, "msrs": msrs}


def parse_list(text: str) -> tuple[str, ...]:
    """Return the stems of a split list: one a line, blank lines and lines that start with ``#`` left out.

    Any line ending is read; the suffix of an image file is dropped. A stem that occurs twice is returned twice.
    """
    lines = (line.strip() for line in text.replace("\r", "\n").split("\n"))
    return tuple(_without_suffix(line) for line in lines if line and not line.startswith("#"))


def is_held_out(stem: str) -> bool:
    """Tell whether an image belongs to the tenth held out for validation; depends on its name only."""
    return int.from_bytes(hashlib.sha256(stem.encode(errors="surrogateescape")).digest()[:8], "big") % 10 == 0


@dataclass(frozen=True)
class _Tree:
    """The image and label files of one folder pair, by stem."""

    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    image_folder: Path
    label_folder: Path
    label_ending: str = ""

    @classmethod
    def of(cls, image_folder: Path, label_folder: Path, label_ending: str = "") -> _Tree:
        return cls(_index(image_folder), _index(label_folder), image_folder, label_folder, label_ending)

    def sample(self, line: str) -> Sample:
        """Return the sample a line of a list names; where no image has that name, its first column is the stem."""
        first = _without_suffix(line.split(maxsplit=1)[0])
        stem = first if line not in self.images and first in self.images else line
        mask = stem + self.label_ending
        image = self.images.get(stem, self.image_folder / f"{stem}.png")
        return Sample(stem, image, self.labels.get(mask, self.label_folder / f"{mask}.png"))

    def samples(self) -> tuple[Sample, ...]:
        """Return every sample of which the image or the label is there, by name."""
        masked = {name.removesuffix(self.label_ending) for name in self.labels}
        return tuple(self.sample(stem) for stem in sorted({*self.images, *masked}))


def _index(top: Path) -> dict[str, Path]:
    """Return the image files below ``top`` by stem; of several with one stem, the first in the order of SUFFIXES."""
    if not top.is_dir():
        raise DataError("The data set lacks a folder", where=top)
    found: dict[str, Path] = {}
    for parent, _, names in os.walk(top, onerror=_refuse):
        for name in names:
            path = Path(parent, name)
            if path.suffix.lower() in images.SUFFIXES:
                stem = path.with_suffix("").relative_to(top).as_posix()
                found[stem] = min(found.get(stem, path), path, key=_preference)
    return found


def _refuse(error: OSError) -> None:
    raise DataError("The folder cannot be read", where=error.filename, why=error.strerror) from error


def _preference(path: Path) -> tuple[int, str]:
    return images.SUFFIXES.index(path.suffix.lower()), path.name


def _without_suffix(name: str) -> str:
    head, dot, tail = name.rpartition(".")
    return head if head and (dot + tail).lower() in images.SUFFIXES else name


def _first_folder(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise DataError("The data set lacks a folder", where=root, why=f"neither {' nor '.join(names)} is there")


def _listed(tree: _Tree, root: Path, splits: str | None, ending: str = "") -> Splits:
    """Read the split lists, those of the sub-folder ``splits`` if it is named."""
    places = [root / splits] if splits else [root, root / "ImageSets" / "Segmentation"]
    found = {}
    for name in SPLITS:
        candidates = [place / f"{name}{end}.txt" for place in places for end in dict.fromkeys((ending, ""))]
        path = next((path for path in candidates if path.exists()), None)
        if path is not None:
            found[name] = tuple(tree.sample(line) for line in parse_list(read_text(path)))
    if not found:
        raise DataError("No split list", where=places[0], remedy=_other_lists(root))
    return found


def _other_lists(root: Path) -> str:
    others = sorted(path.parent.name for path in root.glob("*/train.txt"))
    named = f", or name a sub-folder that holds them: {', '.join(others)}" if others else ""
    return f"Write train.txt, val.txt and test.txt, one image name a line{named}."


def _by_folder(root: Path, places: Callable[[str], tuple[Path, Path]], label_ending: str = "") -> Splits:
    """Take every image of each split's own folders."""
    found = {name: _Tree.of(*places(name), label_ending).samples() for name in SPLITS if places(name)[0].is_dir()}
    if not found:
        raise DataError("The data set lacks a folder", where=places("train")[0])
    return found


def _no_lists(root: Path, splits: str | None) -> None:
    if splits:
        raise DataError("This data set has a folder a split and takes no lists", where=root, why=f"splits = {splits}")


def _hold_out(splits: Splits) -> Splits:
    """Split ``val`` off ``train`` where the data set has none."""
    if "val" in splits or "train" not in splits:
        return splits
    train = tuple(sample for sample in splits["train"] if not is_held_out(sample.stem))
    val = tuple(sample for sample in splits["train"] if is_held_out(sample.stem))
    return {"train": train, "val": val, **{name: splits[name] for name in splits if name != "train"}}


def read_text(path: Path) -> str:
    """Read a small text file in UTF-8, a byte-order mark left out.

    Raises:
        DataError: it is missing, unreadable or in another encoding.
    """
    try:
        return images.read_bytes(path, "file").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("The file is not UTF-8 text", where=path, why=error.reason) from error


def _read_classes(path: Path) -> tuple[Classes, Radiometry | None]:
    text = read_text(path)
    try:
        value = json.loads(text)
        return Classes.from_json(value), radiometry_from_json(value.get("radiometry"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("The class list is malformed", where=path, why=repr(error)) from error
    except EdgeunipError as error:
        raise DataError("The class list is malformed", where=path, why=error) from error


def _scut_remap(splits: Splits, root: Path) -> tuple[int, ...] | None:
    """Return the map from raw ids, or None where the labels hold 0..9 already."""
    trained = set(range(len(SCUT)))
    only_raw, only_trained = set(_SCUT_RAW) - trained, trained - set(_SCUT_RAW)
    for sample in (sample for samples in splits.values() for sample in samples):
        values = _values(sample.label)
        if values & only_raw and values & only_trained:
            raise DataError("Raw and mapped label ids are mixed", where=sample.label, why=f"it holds {sorted(values)}")
        if values & only_raw:
            known = {raw: index for index, raw in enumerate(_SCUT_RAW)} | {SCUT.ignore: SCUT.ignore}
            return tuple(known.get(raw, UNKNOWN) for raw in range(256))
        if values & only_trained:
            return None
    raise DataError(
        "The labels are neither surely raw ids nor surely mapped to 0..9",
        where=root,
        why="they hold 0, 7 and unknown values only",
    )


def _values(path: Path) -> set[int]:
    """Return the values a label holds; none where it cannot be read, which the check of the data set tells."""
    try:
        return set(labels.decode(images.read_bytes(path, "label"), path).ravel().tolist())
    except DataError:
        return set()


def _spread(names: str) -> Classes:
    """Give each class a colour by spreading its index's bits over the three channels, as Pascal VOC does."""
    split = tuple(names.split(", "))

    def channel(index: int, first: int) -> int:
        return sum((index >> (3 * bit + first) & 1) << (7 - bit) for bit in range(3))

    return Classes(split, tuple((channel(i, 0), channel(i, 1), channel(i, 2)) for i in range(len(split))))


SODA = _spread(
    "background, person, building, tree, road, pole, grass, door, table, chair, car, bicycle, lamp, monitor, "
    "traffic cone, trash can, animal, fence, sky, river, sidewalk"
)
SCUT = _spread("background, road, person, rider, car, truck, fence, tree, bus, pole")
_SCUT_RAW = (0, 7, 24, 25, 26, 27, 13, 21, 28, 17)
MFNET = replace(
    _spread("background, car, person, bike, curve, car stop, guardrail, color cone, bump"),
    colours=(
        (0, 0, 0),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
        (0, 0, 192),
        (128, 128, 0),
        (64, 64, 128),
        (192, 128, 128),
        (192, 64, 0),
    ),
)
