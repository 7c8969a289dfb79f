from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import counts, encode, label, pair, put
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip.errors import DataError
from edgeunip.train import layouts
from edgeunip.train.check import check
from edgeunip.train.datasets import open_data

MANY = [f"{number:05d}D" for number in range(60)]
STEMS = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1).filter(
    lambda name: not name.startswith(("#", "\ufeff")) and "." not in name
)


@settings(deadline=None)
@given(st.lists(STEMS), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["", ".png", ".JPG"]))
def test_a_list_reads_the_same_however_it_was_saved(stems: list[str], newline: str, suffix: str) -> None:
    lines = ["# a comment", "", *(f"  {stem}{suffix}\t" for stem in stems), "   ", ""]
    assert layouts.parse_list(newline.join(lines)) == tuple(stems)


def test_a_suffix_that_is_no_image_belongs_to_the_stem() -> None:
    assert layouts.parse_list("a.1\nb.png\n.png\nseq/c.tif\n") == ("a.1", "b", ".png", "seq/c")


def test_about_a_tenth_is_held_out_and_always_the_same() -> None:
    held = [stem for stem in map(str, range(10_000)) if layouts.is_held_out(stem)]
    assert 900 < len(held) < 1100
    assert held[:4] == ["0", "7", "9", "10"]


def test_public_class_lists() -> None:
    assert (len(layouts.SODA), len(layouts.MFNET), len(layouts.SCUT)) == (21, 9, 10)
    assert layouts.SODA.names[20] == "sidewalk"
    assert layouts.MFNET.names[7] == "color cone"
    assert layouts.SODA.colours[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    for classes in (layouts.SODA, layouts.MFNET, layouts.SCUT):
        assert len(set(classes.colours)) == len(classes)


@pytest.mark.parametrize("masks", ["SegmentationClassPNG", "SegmentationClassOne"])
@pytest.mark.parametrize("place", ["", "ImageSets/Segmentation"])
def test_soda(tmp_path: Path, masks: str, place: str) -> None:
    for seed, stem in enumerate([*MANY, "t t"]):
        pair(tmp_path / "JPEGImages" / f"{stem}.jpg", tmp_path / masks / f"{stem}.png", seed, tuple(range(21)))
    put(tmp_path / place / "train_infrared.txt", "".join(f"{stem} 1\r\n" for stem in MANY).encode())
    put(tmp_path / place / "test_infrared.txt", b"t t\n")
    data = open_data(f"soda:{tmp_path}")
    assert list(data.splits) == ["train", "val", "test"]
    assert [sample.stem for sample in data.split("test")] == ["t t"]
    val = {sample.stem for sample in data.split("val")}
    assert val == {stem for stem in MANY if layouts.is_held_out(stem)} and val
    assert val.isdisjoint(sample.stem for sample in data.split("train"))
    assert len(data.split("train")) + len(val) == 60
    assert data.read_image(data.split("test")[0]).shape == (12, 16)
    assert check(data).defects == ()


def test_soda_in_the_folder_of_its_release(tmp_path: Path) -> None:
    root = tmp_path / "InfraredSemanticLabel"
    pair(root / "JPEGImages" / "a.jpg", root / "SegmentationClassPNG" / "a.png", 0)
    put(root / "test_infrared.txt", b"a\n")
    assert open_data(f"soda:{tmp_path}").split("test")[0].image == root / "JPEGImages" / "a.jpg"


def mfnet(root: Path, pictures: str) -> None:
    for seed, (name, stem) in enumerate((("train", "1D"), ("val", "2D"), ("test", "3N"))):
        image = counts(seed, (12, 16, 4) if pictures == "images" else (12, 16))
        put(root / pictures / f"{stem}.png", encode(image))
        put(root / "labels" / f"{stem}.png", encode(label(*range(9))))
        put(root / f"{name}.txt", f"{stem}\n".encode())
    put(root / "val_test.txt", b"2D\n3N\n")


def test_mfnet_thermal_is_the_alpha_of_the_rgbt_image(tmp_path: Path) -> None:
    mfnet(tmp_path, "images")
    data = open_data(f"mfnet:{tmp_path}")
    assert (data.channel, data.remap, len(data.classes)) == (3, None, 9)
    assert {name: [sample.stem for sample in samples] for name, samples in data.splits.items()} == {
        "train": ["1D"],
        "val": ["2D"],
        "test": ["3N"],
    }
    read = data.read_image(data.split("val")[0])
    np.testing.assert_array_equal(read, counts(1, (12, 16, 4))[..., 3])
    assert check(data).defects == ()


def test_mfnet_extracted_thermal(tmp_path: Path) -> None:
    mfnet(tmp_path, "thermal_imgs")
    data = open_data(f"mfnet:{tmp_path}")
    assert data.channel is None
    np.testing.assert_array_equal(data.read_image(data.split("test")[0]), counts(2))


def test_mfnet_image_without_its_thermal_channel(tmp_path: Path) -> None:
    mfnet(tmp_path, "images")
    put(tmp_path / "images" / "2D.png", encode(counts(1, (12, 16, 3))))
    data = open_data(f"mfnet:{tmp_path}")
    with pytest.raises(DataError, match=r"not RGBT: .*2D.png \(3 channels of uint8, not 4"):
        data.read_image(data.split("val")[0])
    assert [defect.kind for defect in check(data).defects] == ["wrong channels in image"]


RAW = (0, 7, 24, 25, 26, 27, 13, 21, 28, 17)


def scut(root: Path, values: tuple[int, ...]) -> None:
    for seed, stem in enumerate(MANY):
        pair(root / "images" / f"{stem}.jpg", root / "labels" / f"{stem}.png", seed, values)
    put(root / "train.txt", "\n".join(MANY[:50]).encode())
    put(root / "val.txt", "\n".join(MANY[50:]).encode())


def test_scut_raw_ids_are_mapped(tmp_path: Path) -> None:
    scut(tmp_path, (*RAW, 255))
    data = open_data(f"scut:{tmp_path}")
    assert data.remap is not None
    read = data.read_label(data.split("test")[0])
    np.testing.assert_array_equal(read, label(*range(10), 255))
    assert [sample.stem for sample in data.split("test")] == MANY[50:]
    assert len(data.split("train")) + len(data.split("val")) == 50
    report = check(data)
    assert report.defects == ()
    assert report.class_pixels["test"]["tree"] > 0


def test_scut_mapped_ids_stay(tmp_path: Path) -> None:
    scut(tmp_path, tuple(range(10)))
    data = open_data(f"scut:{tmp_path}")
    assert data.remap is None
    np.testing.assert_array_equal(data.read_label(data.split("train")[0]), label(*range(10)))


@pytest.mark.parametrize(("values", "message"), [((0, 7), "neither surely raw"), ((1, 24), "are mixed")])
def test_scut_ids_that_cannot_be_told_are_refused(tmp_path: Path, values: tuple[int, ...], message: str) -> None:
    scut(tmp_path, values)
    with pytest.raises(DataError, match=message):
        open_data(f"scut:{tmp_path}")


def test_scut_unknown_raw_id_is_found_with_its_raw_value(tmp_path: Path) -> None:
    scut(tmp_path, RAW)
    put(tmp_path / "labels" / f"{MANY[55]}.png", encode(label(7, 33)))
    data = open_data(f"scut:{tmp_path}")
    with pytest.raises(
        DataError, match=r"out of range: .*00055D.png \(33 \(96 pixels\); allowed are the known raw ids"
    ):
        data.read_label(data.split("test")[5])
    (defect,) = check(data).defects
    assert defect.kind == "label out of range" and "33 (96 pixels)" in defect.what


def test_scut_in_the_folders_of_its_release(tmp_path: Path) -> None:
    for seed, stem in enumerate(MANY):
        split = "val" if seed < 5 else "train"
        pair(tmp_path / "image" / split / f"{stem}.jpg", tmp_path / "mask" / split / f"{stem}_labelIds.png", seed, RAW)
    data = open_data(f"scut:{tmp_path}")
    assert [sample.stem for sample in data.split("test")] == MANY[:5]
    assert data.split("test")[0].label.name == "00000D_labelIds.png"
    assert check(data).defects == ()


def test_msrs(tmp_path: Path) -> None:
    for seed, stem in enumerate(MANY):
        root = tmp_path / ("test" if seed < 5 else "train")
        pair(root / "ir" / f"{stem}.png", root / "Segmentation_labels" / f"{stem}.png", seed, tuple(range(9)))
    data = open_data(f"msrs:{tmp_path}")
    assert [sample.stem for sample in data.split("test")] == MANY[:5]
    assert {sample.stem for sample in data.split("val")} == {s for s in MANY[5:] if layouts.is_held_out(s)}
    assert data.classes == layouts.MFNET
    assert check(data).defects == ()
    with pytest.raises(DataError, match="takes no lists"):
        open_data(f"msrs:{tmp_path}", splits="bydate")


def test_msrs_names_the_missing_of_each_pair(tmp_path: Path) -> None:
    root = tmp_path / "train"
    for seed, stem in enumerate(MANY):
        pair(root / "ir" / f"{stem}.png", root / "Segmentation_labels" / f"{stem}.png", seed, tuple(range(9)))
    (root / "ir" / f"{MANY[3]}.png").unlink()
    (root / "Segmentation_labels" / f"{MANY[4]}.png").unlink()
    defects = check(open_data(f"msrs:{tmp_path}")).defects
    assert {(defect.kind, Path(defect.where).stem) for defect in defects} == {
        ("missing image", MANY[3]),
        ("missing mask", MANY[4]),
    }


@pytest.mark.parametrize("kind", ["soda", "mfnet", "scut", "msrs"])
def test_an_empty_folder_is_none_of_them(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="lacks a folder"):
        open_data(f"{kind}:{tmp_path}")
