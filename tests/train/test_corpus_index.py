"""From folders to an index: what is kept, what is not and why, the file's bytes, shards, and reading it all again."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from corpus_scenes import COPIES, build, folder, jpeg, scene
from dataset_trees import counts, encode, put
from dataset_trees import folder as labelled_folder

from edgeunip.cli import main
from edgeunip.errors import DataError, UsageError
from edgeunip.train.corpus import index, shards
from edgeunip.train.corpus.corpus import Corpus, open_corpus
from edgeunip.train.corpus.pictures import AGC


def names(report: Any) -> list[str]:
    return [Path(row.path).name for row in report.rows]


def test_a_row_an_image(tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.jpg", jpeg(scene(0)))
    put(tmp_path / "in" / "b.png", encode(scene(1).astype(np.uint16) * 40))
    put(tmp_path / "in" / "c.png", encode(np.stack([scene(2)] * 3, axis=-1)))
    table = pq.read_table(build(tmp_path / "out", f"{tmp_path / 'in'},crop=3,licence=CC0").path)
    assert table.column_names == ["path", "set", "width", "height", "bits", "channels", "sha256", "phash", "crop"]
    first, second, third = table.to_pylist()
    assert first["path"] == str((tmp_path / "in" / "a.jpg").resolve())
    assert (first["set"], first["width"], first["height"], first["crop"]) == ("in", 128, 96, 3)
    assert [(row["bits"], row["channels"]) for row in (first, second, third)] == [(8, 1), (16, 1), (8, 3)]
    assert all(len(row["sha256"]) == 64 and row["phash"] is not None for row in (first, second, third))
    facts = json.loads(table.schema.metadata[b"edgeunip"])
    assert facts["licences"] == {"in": "CC0"}
    assert facts["sets"] == {"in": {"files": 3, "taken": 3, "kept": 3}}
    assert facts["sources"][0]["crop"] == 3 and facts["agc"] == AGC.to_json()
    assert facts["versions"].keys() >= {"edgeunip", "pyarrow"}


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 30)
    one = build(tmp_path / "one", source, per_shard=8)
    two = build(tmp_path / "two", source, per_shard=8)
    files = [sorted(path.relative_to(report.path.parent) for path in report.path.parent.rglob("*"))
             for report in (one, two)]  # fmt: skip
    assert files[0] == files[1] and len(files[0]) == 6
    for file in files[0]:
        if (tmp_path / "one" / file).is_file():
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_list_hash_is_that_of_what_is_trained_on(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 6)
    moved = folder(tmp_path / "elsewhere", 6)
    base = build(tmp_path / "a", source).facts["list_sha256"]
    assert build(tmp_path / "b", f"{moved},set=x", per_shard=2).facts["list_sha256"] == base
    assert (
        open_corpus(str(moved)).fingerprint() == base == open_corpus(str(tmp_path / "a" / "mix.parquet")).fingerprint()
    )
    assert build(tmp_path / "c", f"{source},crop=1").facts["list_sha256"] != base
    put(moved / "0003.png", encode(scene(77)))
    assert open_corpus(str(moved)).fingerprint() != base


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_others_are_not(tmp_path: Path, kind: str) -> None:
    source = folder(tmp_path / "in", 10)
    for number in (2, 5):
        put(source / f"z{number}.img.jpg", COPIES[kind](scene(number)))
    report = build(tmp_path / "out", source)
    assert names(report) == [f"{number:04d}.png" for number in range(10)]
    assert report.counts["in"] == {"files": 12, "taken": 12, "near duplicate": 2, "kept": 10}
    assert len(build(tmp_path / "out", source, near=-1).rows) == 12


def test_the_first_of_equal_files_is_kept_across_sets(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one", 4), folder(tmp_path / "two", 6, first=2)
    report = build(tmp_path / "out", two, one)
    assert [row.set for row in report.rows] == ["two"] * 6 + ["one"] * 2
    assert report.counts["one"] == {"files": 4, "taken": 4, "duplicate": 2, "kept": 2}
    assert report.counts["two"]["kept"] == 6


def test_blank_pictures_are_duplicates_only_byte_for_byte(tmp_path: Path) -> None:
    for gray in range(0, 250, 50):
        put(tmp_path / "in" / f"{gray:03d}.png", encode(np.full((40, 40), gray, np.uint8)))
    put(tmp_path / "in" / "again.png", encode(np.full((40, 40), 100, np.uint8)))
    report = build(tmp_path / "out", tmp_path / "in")
    assert report.counts["in"] == {"files": 6, "taken": 6, "duplicate": 1, "kept": 5}


def test_evaluation_images_are_kept_out(tmp_path: Path) -> None:
    held = labelled_folder(tmp_path / "soda")
    for number, stem in enumerate("abcdefgh"):
        put(held / "images" / f"{stem}.png", encode(scene(number)))
    source = folder(tmp_path / "in", 12)  # 0..7 as bytes; 4..7 are val and test
    put(source / "0006.png", jpeg(scene(6), 70))
    report = build(tmp_path / "out", source, exclude=[str(held)])
    assert names(report) == ["0008.png", "0009.png", "0010.png", "0011.png"]
    assert report.counts["in"] == {
        "files": 12, "taken": 12, "evaluation duplicate": 7, "evaluation near duplicate": 1, "kept": 4
    }  # fmt: skip
    half = build(tmp_path / "out", source, exclude=[f"{held},splits=val+test"])
    assert names(half)[:4] == ["0000.png", "0001.png", "0002.png", "0003.png"] and len(half.rows) == 8
    (held / "images" / "e.png").unlink()
    with pytest.raises(DataError, match=r"cannot be read: .*e\.png"):
        build(tmp_path / "out", source, exclude=[str(held)])
    with pytest.raises(DataError, match=r"No split vall"):
        build(tmp_path / "out", source, exclude=[f"{held},splits=vall"])


def test_dark_images_are_left_out_by_peak(tmp_path: Path) -> None:
    for level in (19, 20, 21):
        picture = scene(level) % 10
        picture[5, 5] = level
        put(tmp_path / "in" / f"{level}.png", encode(picture))
    report = build(tmp_path / "out", f"{tmp_path / 'in'},peak=20")
    assert names(report) == ["21.png"]
    assert report.counts["in"]["dark"] == 2


def test_unreadable_images_are_named_and_counted(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 3)
    for number in range(5):
        put(source / f"bad{number}.png", b"" if number else encode(scene(0))[:-40])
    put(Path(os.fsdecode(os.fsencode(source) + b"/\xff.png")), encode(scene(9)))
    told: list[str] = []
    report = index.build("mix", [str(source)], out=tmp_path / "out", say=told.append)
    assert report.counts["in"] == {"files": 9, "taken": 9, "unreadable": 6, "kept": 3}
    assert len(told) == 4 and "bad0.png" in told[0] and told[-1].endswith("and 3 more images that cannot be read")
    with pytest.raises(DataError, match=r"^No image is left to index \(of 3: 3 dark\)$"):
        build(tmp_path / "none", f"{folder(tmp_path / 'dark', 3)},peak=255")
    assert not (tmp_path / "none").exists()


def test_wrong_names_and_numbers(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 1)
    for name in ("a/b", "", ".x", ".parquet"):
        with pytest.raises(UsageError, match="plain name"):
            index.build(name, [str(source)], out=tmp_path, say=print)
    with pytest.raises(UsageError, match="near must be 11 or less"):
        build(tmp_path, source, near=12)
    with pytest.raises(UsageError, match="needs a source"):
        build(tmp_path)


def test_a_corpus_reads_what_was_indexed(tmp_path: Path) -> None:
    raw = counts(4, (40, 50), np.uint16).astype(np.uint16)
    put(tmp_path / "in" / "b.png", encode(raw))
    put(tmp_path / "in" / "a.png", encode(scene(0)))
    for packed in (0, 1):
        corpus = open_corpus(str(build(tmp_path / f"out{packed}", f"{tmp_path / 'in'},crop=2", per_shard=packed).path))
        assert len(corpus) == 2
        np.testing.assert_array_equal(corpus.read(0), scene(0)[2:-2, 2:-2])
        np.testing.assert_array_equal(corpus.read(1), AGC.picture(raw[2:-2, 2:-2]))
        assert corpus.facts()["sets"] == {"in": 2}
        assert corpus.facts()["list_sha256"] == corpus.fingerprint()
        assert pickle.loads(pickle.dumps(corpus)).fingerprint() == corpus.fingerprint()


def test_a_folder_is_a_corpus(tmp_path: Path) -> None:
    corpus = open_corpus(str(folder(tmp_path / "in", 4)))
    assert (len(corpus), corpus.location) == (4, str((tmp_path / "in").resolve()))
    np.testing.assert_array_equal(corpus.read(3), scene(3))
    assert corpus.facts()["licences"] == {"in": "not stated"}
    again: Corpus = pickle.loads(pickle.dumps(corpus))
    np.testing.assert_array_equal(again.read(3), scene(3))
    with pytest.raises(DataError, match="A labelled data set"):
        open_corpus(str(labelled_folder(tmp_path / "soda")))


def test_what_has_changed_since_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 3)
    corpus = open_corpus(str(build(tmp_path / "out", source).path))
    sent = pickle.dumps(corpus)
    put(source / "0001.png", encode(scene(50)))
    with pytest.raises(DataError, match=r"has changed since it was indexed: .*0001\.png\. Build the index again"):
        corpus.read(1)
    (source / "0001.png").unlink()
    with pytest.raises(DataError, match=r"The image cannot be read: .*0001\.png \(No such file"):
        corpus.read(1)
    build(tmp_path / "out", source)
    with pytest.raises(DataError, match="replaced while it was read"):
        pickle.loads(sent)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 no", b"x" * 100])
def test_what_is_no_index(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.parquet"
    if content is not None:
        put(path, content)
    with pytest.raises(DataError, match=r"(No such index|Not an index).*x\.parquet.*edgeunip data index"):
        open_corpus(str(path))


def test_another_table_or_format_is_no_index(tmp_path: Path) -> None:
    report = build(tmp_path / "out", folder(tmp_path / "in", 2))
    table = pq.read_table(report.path)
    for metadata, told in (({}, "Not an index"), ({b"edgeunip": b'{"format": 9}'}, "format 9; this version reads 1")):
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=told):
            open_corpus(str(tmp_path / "x.parquet"))


def test_shards_hold_the_files_bytes_for_webdataset_too(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 7)
    put(source / "last.JPEG", jpeg(scene(40)))
    report = build(tmp_path / "out", source, per_shard=3)
    tars = sorted((tmp_path / "out").rglob("*.tar"))
    assert [path.name for path in tars] == ["000000.tar", "000001.tar", "000002.tar"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the closing of its files to the collector
        samples = list(webdataset.WebDataset([str(path) for path in tars], shardshuffle=False))
        gc.collect()
    assert [sample["__key__"] for sample in samples] == [f"{number:08d}" for number in range(8)]
    for sample, row in zip(samples, report.rows, strict=True):
        suffix = Path(row.path).suffix.lower().removeprefix(".")
        assert sample[suffix] == Path(row.path).read_bytes()
        assert json.loads(sample["json"])["sha256"] == row.sha256
    for name, known in report.facts["shards"].items():
        data = (tmp_path / "out" / name).read_bytes()
        assert known["bytes"] == len(data)
        assert known["sha256"] == hashlib.sha256(data).hexdigest()


def test_an_index_with_its_shards_can_be_moved(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", 4)
    build(tmp_path / "out", source, per_shard=3)
    (tmp_path / "out").rename(tmp_path / "moved")
    for path in source.iterdir():
        path.unlink()
    corpus = open_corpus(str(tmp_path / "moved" / "mix.parquet"))
    np.testing.assert_array_equal(corpus.read(3), scene(3))


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    report = build(tmp_path / "out", folder(tmp_path / "in", 4), per_shard=2)
    first, second = sorted((tmp_path / "out").rglob("*.tar"))
    second.write_bytes(second.read_bytes()[:700])
    data = bytearray(first.read_bytes())
    data[600] ^= 1
    first.write_bytes(data)
    corpus = open_corpus(str(report.path))
    with pytest.raises(DataError, match=r"changed since it was indexed: .*000000\.tar, image 0"):
        corpus.read(0)
    with pytest.raises(DataError, match=r"The shard is truncated: .*000001\.tar"):
        corpus.read(2)
    shards._opened.cache_clear()
    second.unlink()
    with pytest.raises(DataError, match=r"The shard cannot be read: .*000001\.tar \(No such file"):
        corpus.read(2)


def test_an_image_that_changes_while_it_is_packed(tmp_path: Path) -> None:
    report = build(tmp_path / "out", folder(tmp_path / "in", 4))
    before = report.path.read_bytes()
    put(tmp_path / "in" / "0002.png", encode(scene(9)))
    with pytest.raises(DataError, match=r"changed since it was indexed: .*0002\.png"):
        shards.pack(report.rows, tmp_path / "out", "mix", per_shard=2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mix.parquet"]
    assert report.path.read_bytes() == before


def test_an_interrupt_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A real SIGINT while images are read and packed, at several moments."""
    source = folder(tmp_path / "in", 300)
    code = (
        "import sys\nfrom edgeunip.train.corpus import index\nprint('go', flush=True)\n"
        "while True:\n index.build('mix', sys.argv[1:2], out=__import__('pathlib').Path(sys.argv[2]), "
        "say=print, per_shard=20)\n"
    )
    out = tmp_path / "out"
    for pause in (0.1, 0.7):
        process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)], stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (-signal.SIGINT, 130, 1)
        process.stdout.close()
        left = sorted(path.name for path in out.iterdir()) if out.exists() else []
        assert not [name for name in left if name.startswith(".")], left
        if "mix.parquet" in left:
            corpus = open_corpus(str(out / "mix.parquet"))
            assert len(corpus) == 300
            np.testing.assert_array_equal(corpus.read(299), scene(299))


def edgeunip(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["edgeunip", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "in", 5)
    put(source / "copy.png", encode(scene(1)))
    put(source / "bad.png", b"")
    words = ["data", "index", "mix", "--source", source, "--out", tmp_path / "out", "--shards", 2]
    assert edgeunip(*words, "--json", tmp_path / "r.json", monkeypatch=monkeypatch) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == [
        "set  files  taken  unreadable  duplicate  kept",
        "in       7      7           1          1     5",
    ]
    assert "5 images, 3 shards, list " in told.out
    assert "warning: left out: The image is empty (0 bytes): " in told.err
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["index"] == str(tmp_path / "out" / "mix.parquet")
    assert found["sets"]["in"] == {"files": 7, "taken": 7, "unreadable": 1, "duplicate": 1, "kept": 5}
    assert edgeunip(*words, "--json", "-", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 5
    assert edgeunip("data", "index", "mix", "--source", tmp_path / "no", monkeypatch=monkeypatch) == 1
    assert "No such folder" in capsys.readouterr().err


@pytest.mark.skipif("EDGEUNIP_DATA" not in os.environ, reason="EDGEUNIP_DATA names no folder of real data")
def test_real_data_without_its_evaluation_images(tmp_path: Path) -> None:
    held = Path(os.environ["EDGEUNIP_DATA"]) / "hit-uav-thermal"
    report = build(tmp_path, f"{held / 'images'},set=hit", exclude=[f"{held},splits=val+test"])
    train = set((held / "train.txt").read_text().split())
    counts = report.counts["hit"]
    assert counts["evaluation duplicate"] == counts["taken"] - len(train)
    assert {Path(row.path).stem for row in report.rows} < train
    assert sum(counts[key] for key in counts if key not in ("files", "taken")) == counts["taken"] == 639
