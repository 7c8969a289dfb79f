from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
from dataset_trees import CLASSES, counts, encode, folder, label, put
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip.classes import Classes
from edgeunip.errors import DataError
from edgeunip.thermal import Linear
from edgeunip.train.datasets import DataSet, Sample, open_data

THREE = Classes(("a", "b", "c"), ((0, 0, 0),) * 3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_folder_format(tmp_path: Path, dtype: type[np.generic]) -> None:
    data = open_data(str(folder(tmp_path, dtype)))
    assert data.source == str(tmp_path)
    assert data.classes.names == ("background", "cat", "dog")
    assert (data.radiometry, data.remap, data.channel) == (None, None, None)
    assert {name: len(samples) for name, samples in data.splits.items()} == {"train": 4, "val": 2, "test": 2}
    sample = data.split("val")[0]
    assert (sample.stem, sample.image.name, sample.label.parent.name) == ("e", "e.png", "labels")
    image = data.read_image(sample)
    assert image.dtype == dtype
    np.testing.assert_array_equal(image, counts(4, dtype=dtype))
    np.testing.assert_array_equal(data.read_label(sample), label(0, 1, 2))


def test_a_data_set_reaches_loader_processes(tmp_path: Path) -> None:
    data = open_data(str(folder(tmp_path)))
    assert pickle.loads(pickle.dumps(data)) == data


def test_lists_of_a_sub_folder_and_nested_stems(tmp_path: Path) -> None:
    folder(tmp_path)
    put(tmp_path / "images" / "seq" / "x.TIF", encode(counts(9), ".tif"))
    put(tmp_path / "labels" / "seq" / "x.png", encode(label(1)))
    put(tmp_path / "bydate" / "train.txt", b"\xef\xbb\xbfseq/x\r\n\r\n# end\r\n")
    data = open_data(str(tmp_path), splits="bydate")
    assert list(data.splits) == ["train"]
    assert data.split("train")[0].image == tmp_path / "images" / "seq" / "x.TIF"
    np.testing.assert_array_equal(data.read_image(data.split("train")[0]), counts(9))
    with pytest.raises(DataError, match=r"No split list: .*by_date.*sub-folder that holds them: bydate"):
        open_data(str(tmp_path), splits="by_date")


def test_radiometry_stands_in_the_class_list(tmp_path: Path) -> None:
    folder(tmp_path)
    linear = {"model": "linear", "scale": 0.01, "offset": -273.15}
    put(tmp_path / "classes.json", json.dumps({**CLASSES, "radiometry": linear}).encode())
    assert open_data(str(tmp_path)).radiometry == Linear(0.01, -273.15)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"classes": [{"name": "a"}]}', b"\xff\xfe{\0", b"3"]
    + [json.dumps({**CLASSES, "radiometry": bad}).encode() for bad in ({}, {"model": "magic"}, {"model": "planck"}, 3)],
)
def test_a_broken_class_list_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    put(folder(tmp_path) / "classes.json", content)
    with pytest.raises(DataError, match=r"classes\.json") as caught:
        open_data(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["images", "labels", "classes.json"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    path = folder(tmp_path) / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=missing):
        open_data(str(tmp_path))


def test_unknown_folder_kind_and_split(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such data-set folder: /nowhere"):
        open_data("/nowhere")
    with pytest.raises(DataError, match="Did you mean mfnet"):
        open_data(f"mfnett:{tmp_path}")
    data = open_data(str(folder(tmp_path)))
    with pytest.raises(DataError, match=r"No split vall: .*Did you mean val"):
        data.split("vall")
    with pytest.raises(DataError, match=r"Known: test, train, val\."):
        data.split("holdout")


def test_no_list_at_all(tmp_path: Path) -> None:
    folder(tmp_path)
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").unlink()
    with pytest.raises(DataError, match=r"No split list: .*Write train.txt"):
        open_data(str(tmp_path))


def test_a_list_in_another_encoding_is_named(tmp_path: Path) -> None:
    put(folder(tmp_path) / "val.txt", "é\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"not UTF-8 text: .*val\.txt"):
        open_data(str(tmp_path))


def test_reading_names_the_file(tmp_path: Path) -> None:
    data = open_data(str(folder(tmp_path)))
    sample = data.split("train")[0]
    put(sample.label, encode(label(0, 3, 7, 7)))
    with pytest.raises(
        DataError, match=r"out of range: .*a\.png \(3 \(48 pixels\), 7 \(96 pixels\); allowed are 0\.\.2 a"
    ):
        data.read_label(sample)
    sample.label.unlink()
    with pytest.raises(DataError, match=r"The label cannot be read: .*labels/a\.png \(No such file"):
        data.read_label(sample)
    sample.image.unlink()
    os.mkfifo(sample.image)
    with pytest.raises(DataError, match=r"images/a\.png \(not a regular file\)"):
        data.read_image(sample)


def test_fingerprint_follows_names_and_contents_only(tmp_path: Path) -> None:
    one = folder(tmp_path / "one")
    other = Path(shutil.copytree(one, tmp_path / "other"))
    put(other / "train.txt", b"d\nc\r\nb\na\n")
    first = open_data(str(one)).fingerprint("train")
    assert len(first) == 64
    assert open_data(str(other)).fingerprint("train") == first
    assert open_data(str(one)).fingerprint("val") != first
    (other / "labels" / "a.png").write_bytes(encode(label(0, 1)))
    assert open_data(str(other)).fingerprint("train") != first
    shutil.copy(one / "labels" / "a.png", other / "labels" / "a.png")
    assert open_data(str(other)).fingerprint("train") == first
    for kind in ("images", "labels"):  # a name is part of the set, even where the order stays
        (other / kind / "a.png").rename(other / kind / "aa.png")
    put(other / "train.txt", b"aa\nb\nc\nd\n")
    assert open_data(str(other)).fingerprint("train") != first


@settings(deadline=None)
@given(st.randoms(use_true_random=False), st.binary(min_size=1, max_size=64))
def test_remap(tmp_path_factory: pytest.TempPathFactory, random: Random, raw: bytes) -> None:
    remap = tuple(random.choices([0, 1, 2, 255, 254], weights=[9, 9, 9, 9, 1], k=256))
    data = DataSet("x", THREE, {}, None, remap, None)
    path = tmp_path_factory.getbasetemp() / "remap.png"
    sample = Sample("remap", path, put(path, encode(np.array([list(raw)], np.uint8))))
    unknown = [value for value in sorted(set(raw)) if remap[value] == 254]
    if unknown:
        with pytest.raises(DataError, match=rf"\({unknown[0]} \({raw.count(unknown[0])} pixels\)"):
            data.read_label(sample)
    else:
        assert data.read_label(sample).tolist() == [[remap[value] for value in raw]]


def test_data_sets_need_no_torch() -> None:
    command = "import sys, edgeunip.train.check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


@pytest.fixture
def real() -> Path:
    where = os.environ.get("EDGEUNIP_DATA")
    if not where:
        pytest.skip("EDGEUNIP_DATA is not set: no real data")
    return Path(where)


def test_real_set(real: Path) -> None:
    data = open_data(str(real / "hit-uav-thermal"))
    assert {name: len(samples) for name, samples in data.splits.items()} == {"train": 419, "val": 90, "test": 130}
    sample = data.split("test")[0]
    assert data.read_image(sample).shape == data.read_label(sample).shape == (512, 640)
    dated = open_data(str(real / "hit-uav-thermal"), splits="bydate")
    assert [len(dated.split(name)) for name in ("train", "val", "test")] == [526, 39, 74]
