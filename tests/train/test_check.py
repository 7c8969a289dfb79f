"""A corpus of damage, each kind found and named, alone and all together in one pass."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import counts, encode, folder, label, png, put
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip.errors import DataError
from edgeunip.train.check import Defect, check, require_sound
from edgeunip.train.datasets import open_data


def image(root: Path, stem: str) -> Path:
    return root / "images" / f"{stem}.png"


def mask(root: Path, stem: str) -> Path:
    return root / "labels" / f"{stem}.png"


def cut(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangle(path: Path) -> None:
    path.symlink_to("gone.png")


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text() + line + "\n")


GRADIENT = np.resize(np.arange(3, 60, dtype=np.uint8), (12, 16))
TRUE_COLOURS = counts(1, (12, 16, 3))
PALETTE_OUT = png(label(0, 1, 9), 8, 3, (b"PLTE", bytes(30)))

# name: (what is done to an image and its mask, kind of the defect, a part of its text)
SAMPLE_DAMAGE: dict[str, tuple[Callable[[Path, Path], object], str, str]] = {
    "image missing": (lambda i, m: i.unlink(), "missing image", "images/a.png"),
    "image link to nothing": (lambda i, m: instead(i, dangle), "missing image", "images/a.png"),
    "image empty": (lambda i, m: put(i, b""), "zero-byte image", "images/a.png"),
    "image cut": (lambda i, m: cut(i, 0.6), "truncated image", "images/a.png"),
    "jpeg cut": (
        lambda i, m: (i.unlink(), put(i.with_suffix(".jpg"), encode(counts(77), ".jpg")[:-40])),
        "truncated image",
        "images/a.jpg",
    ),
    "image bit flip": (lambda i, m: flip(i), "undecodable image", "damaged"),
    "image is text": (lambda i, m: put(i, b"<html>"), "undecodable image", "images/a.png"),
    "image in colour": (lambda i, m: put(i, encode(TRUE_COLOURS)), "colour image", "one channel"),
    "image is a folder": (lambda i, m: instead(i, Path.mkdir), "unreadable image", "not a regular file"),
    "image is a pipe": (lambda i, m: instead(i, os.mkfifo), "unreadable image", "not a regular file"),
    "image links to itself": (lambda i, m: instead(i, loop), "unreadable image", "symbolic links"),
    "image of another size": (
        lambda i, m: put(i, encode(counts(0, (12, 20)))),
        "size differs between image and mask",
        "labels/a.png (16x12, its image 20x12)",
    ),
    "mask missing": (lambda i, m: m.unlink(), "missing mask", "labels/a.png"),
    "mask empty": (lambda i, m: put(m, b""), "zero-byte mask", "labels/a.png"),
    "mask cut": (lambda i, m: cut(m, 0.7), "truncated mask", "labels/a.png"),
    "mask bit flip": (lambda i, m: flip(m), "undecodable mask", "checksum"),
    "mask is a jpeg": (lambda i, m: put(m, encode(label(0, 1), ".jpg")), "undecodable mask", "not a PNG"),
    "mask in colour": (lambda i, m: put(m, encode(TRUE_COLOURS)), "colour mask", "labels/a.png"),
    "mask of 16 bits": (lambda i, m: put(m, encode(counts(0, dtype=np.uint16))), "16-bit mask", "16 bits"),
    "mask is a pipe": (lambda i, m: instead(m, os.mkfifo), "unreadable mask", "not a regular file"),
    "label out of range": (
        lambda i, m: put(m, encode(label(0, 3, 9, 9))),
        "label out of range",
        "3 (48 pixels), 9 (96 pixels); allowed are 0..2 and 255",
    ),
    "palette label out of range": (lambda i, m: put(m, PALETTE_OUT), "label out of range", "9 (64 pixels)"),
    "anti-aliased mask": (lambda i, m: put(m, encode(GRADIENT)), "label out of range", "nearest neighbour"),
    "image of 16 bits": (
        lambda i, m: put(i, encode(counts(0, dtype=np.uint16))),
        "wrong depth",
        "16 bits, the others have 8",
    ),
}
# name: (what is done to the set, kind of the defect, a part of its text)
SET_DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "list missing": (lambda r: (r / "val.txt").unlink(), "missing list", "val (val.txt is not there)"),
    "list empty": (lambda r: put(r / "val.txt", b"\r\n\n# none\n"), "empty list", "val"),
    "stem twice in a list": (lambda r: append(r / "train.txt", "a"), "duplicate in a list", "a (2 times in train)"),
    "stem in two splits": (lambda r: append(r / "val.txt", "a"), "split leak", "a (in train and val)"),
    "same bytes in two splits": (
        lambda r: put(image(r, "e"), image(r, "a").read_bytes()),
        "split leak",
        "images/a.png, in train and val",
    ),
    "empty class": (
        lambda r: [put(mask(r, stem), encode(label(0, 1))) for stem in "abcd"],
        "empty class",
        "dog (no pixel in train)",
    ),
    "nothing labelled": (
        lambda r: [put(mask(r, stem), encode(label(255))) for stem in "abcd"],
        "no labelled pixel",
        "train",
    ),
}


def test_a_sound_set_has_no_defect(tmp_path: Path) -> None:
    report = check(open_data(str(folder(tmp_path))))
    assert report.defects == report.warnings == ()
    assert report.images == 8
    assert report.class_pixels == {
        name: {"background": 64 * count, "cat": 64 * count, "dog": 64 * count}
        for name, count in (("train", 4), ("val", 2), ("test", 2))
    }


@pytest.mark.parametrize("name", SAMPLE_DAMAGE)
def test_each_damage_of_a_sample_is_named(tmp_path: Path, name: str) -> None:
    damage, kind, text = SAMPLE_DAMAGE[name]
    folder(tmp_path)
    damage(image(tmp_path, "a"), mask(tmp_path, "a"))
    assert_one_defect(tmp_path, kind, text)


@pytest.mark.parametrize("name", SET_DAMAGE)
def test_each_damage_of_a_set_is_named(tmp_path: Path, name: str) -> None:
    damage, kind, text = SET_DAMAGE[name]
    damage(folder(tmp_path))
    assert_one_defect(tmp_path, kind, text)


def assert_one_defect(root: Path, kind: str, text: str) -> None:
    defects = check(open_data(str(root))).defects
    assert [defect.kind for defect in defects] == [kind]
    assert text in str(defects[0])
    assert "\n" not in str(defects[0])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_whatever_the_bytes_the_check_goes_on(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    """A file cut short is always a defect; one with flipped bytes never stops the check."""
    root = folder(tmp_path_factory.getbasetemp() / f"fuzz{suffix}")
    (root / "images" / "a.png").unlink(missing_ok=True)
    whole = encode(counts(1000), suffix)
    path = put(root / "images" / f"a{suffix}", whole[: data.draw(st.integers(0, len(whole) - 12))])
    damaged = check(open_data(str(root))).defects
    assert [defect.where for defect in damaged] == [str(path)]
    flipped = bytearray(whole)
    for _ in range(4):
        flipped[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    put(path, bytes(flipped))
    put(mask(root, "b"), bytes(data.draw(st.binary(max_size=200))))
    report = check(open_data(str(root)))
    assert report.images == 8
    assert str(mask(root, "b")) in [defect.where for defect in report.defects]


def test_all_damage_in_one_pass(tmp_path: Path) -> None:
    folder(tmp_path)
    expected = {("split leak", "b"), ("split leak", "f"), ("duplicate in a list", "c"), ("missing list", "val")}
    for number, (damage, kind, _) in enumerate(SAMPLE_DAMAGE.values()):
        stem = f"s{number}"
        put(image(tmp_path, stem), encode(counts(100 + number)))
        put(mask(tmp_path, stem), encode(label(0, 1, 2)))
        damage(image(tmp_path, stem), mask(tmp_path, stem))
        append(tmp_path / "train.txt", stem)
        expected.add((kind, stem))
    (tmp_path / "val.txt").unlink()
    append(tmp_path / "train.txt", "c")
    append(tmp_path / "test.txt", "b\nf")
    put(image(tmp_path, "f"), image(tmp_path, "d").read_bytes())
    found = [(defect.kind, Path(defect.where).stem) for defect in check(open_data(str(tmp_path))).defects]
    assert len(found) == len(SAMPLE_DAMAGE) + 4 == 28
    assert set(found) == expected


def set_aside(root: Path) -> None:
    put(root / "images" / "a.jpg", encode(counts(50), ".jpg"))


WARNED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "class absent from val": (
        lambda r: [put(mask(r, stem), encode(label(0, 2))) for stem in "ef"],
        "empty class",
        "cat (no pixel in val)",
    ),
    "mask all ignored": (lambda r: put(mask(r, "a"), encode(label(255))), "mask ignored as a whole", "labels/a.png"),
    "one odd size": (
        lambda r: (put(image(r, "a"), encode(counts(0, (6, 8)))), put(mask(r, "a"), encode(label(0, 1, shape=(6, 8))))),
        "odd size",
        "images/a.png (8x6, 7 of 8 images are 16x12)",
    ),
    "same image twice in a split": (
        lambda r: put(image(r, "b"), image(r, "a").read_bytes()),
        "identical images",
        "images/b.png",
    ),
    "two files of one stem": (set_aside, "ambiguous image", "a.jpg has the same stem"),
}


@pytest.mark.parametrize("name", WARNED)
def test_warnings_do_not_stop_training(tmp_path: Path, name: str) -> None:
    damage, kind, text = WARNED[name]
    damage(folder(tmp_path))
    report = check(open_data(str(tmp_path)))
    assert report.defects == ()
    assert [warning.kind for warning in report.warnings] == [kind]
    assert text in str(report.warnings[0])


@pytest.mark.parametrize("widths", [(20, 20, 16, 16, 16, 16, 16, 16), (20, 22, 24, 26, 16, 16, 16, 16)])
def test_sizes_that_recur_or_vary_are_not_odd(tmp_path: Path, widths: tuple[int, ...]) -> None:
    folder(tmp_path)
    for seed, (stem, width) in enumerate(zip("abcdefgh", widths, strict=True)):
        put(image(tmp_path, stem), encode(counts(seed, (12, width))))
        put(mask(tmp_path, stem), encode(label(0, 1, 2, shape=(12, width))))
    report = check(open_data(str(tmp_path)))
    assert report.defects == report.warnings == ()


def test_no_permission(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    image(folder(tmp_path), "a").chmod(0)
    (defect,) = check(open_data(str(tmp_path))).defects
    assert str(defect) == f"unreadable image: {image(tmp_path, 'a')} (Permission denied)"


def test_only_the_splits_named_are_looked_at(tmp_path: Path) -> None:
    image(folder(tmp_path), "a").unlink()
    (tmp_path / "test.txt").unlink()
    data = open_data(str(tmp_path))
    assert check(data, names=["val"]).defects == ()
    assert check(data, names=["val"]).images == 2
    assert [defect.kind for defect in check(data, names=["val", "test"]).defects] == ["missing list"]
    assert [defect.kind for defect in check(data).defects] == ["missing image"]  # a set may do without a test split


def test_the_report_does_not_depend_on_the_threads(tmp_path: Path) -> None:
    folder(tmp_path)
    for stem, (damage, _, _) in zip("abcdefgh", SAMPLE_DAMAGE.values(), strict=False):
        damage(image(tmp_path, stem), mask(tmp_path, stem))
    data = open_data(str(tmp_path))
    seen: list[int] = []
    assert check(data, workers=1) == check(data, workers=8, progress=seen.append)
    assert seen == list(range(1, 9))


def test_an_interrupt_does_not_wait_for_the_queue(tmp_path: Path) -> None:
    class Interrupt(BaseException):
        pass

    def stop(done: int) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        check(open_data(str(folder(tmp_path))), progress=stop)


def test_require_sound(tmp_path: Path) -> None:
    data = open_data(str(folder(tmp_path)))
    assert require_sound(data, ["train", "val"]).images == 6
    for stem in "abcde":
        put(image(tmp_path, stem), b"")
    with pytest.raises(DataError) as caught:
        require_sound(data, ["train", "val"])
    message = str(caught.value)
    assert message.startswith(f"The data set has 5 defects: {tmp_path} (zero-byte image: {image(tmp_path, 'a')}; ")
    assert message.endswith(f"; ...). `edgeunip data check {tmp_path}` lists all.")
    assert message.count("zero-byte") == 3


def test_one_line_a_defect() -> None:
    assert str(Defect("missing image", "x.png")) == "missing image: x.png"
    assert str(Defect("split leak", "a", "in train\nand val")) == "split leak: a (in train and val)"


@pytest.mark.parametrize(
    ("name", "splits", "count"),
    [("hit-uav-thermal", None, 639), ("hit-uav-thermal", "bydate", 639), ("buffalo-udder-thermal", None, 894)],
)
def test_real_sets_are_sound(name: str, splits: str | None, count: int) -> None:
    where = os.environ.get("EDGEUNIP_DATA")
    if not where:
        pytest.skip("EDGEUNIP_DATA is not set: no real data")
    start = time.monotonic()
    report = check(open_data(str(Path(where, name)), splits=splits))
    assert report.defects == ()
    assert report.images == count
    assert time.monotonic() - start < 30
    udder = {split: pixels["udder"] for split, pixels in report.class_pixels.items() if "udder" in pixels}
    assert udder in ({}, {"train": 10_398_894, "val": 1_965_626, "test": 2_475_574})
