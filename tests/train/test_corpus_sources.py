"""Sources: what is taken from a folder, by which rules, and how wrong ones are told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus_scenes import scene
from dataset_trees import encode, folder, put

from edgeunip.errors import DataError, UsageError
from edgeunip.train.corpus.sources import Source, listing, parse, split_options


def say(_: str) -> None: ...


def tree(root: Path, *names: str) -> Path:
    for name in names:
        put(root / name, b"")
    return root


def taken(spec: object) -> list[str]:
    (source,) = parse(str(spec), say)
    return [path.relative_to(source.root).as_posix() for path in listing(source)[1]]


def test_a_folder_is_listed_sorted_and_to_the_bottom(tmp_path: Path) -> None:
    tree(tmp_path, "b.PNG", "a.jpeg", "B.jpg", "sub/deep/x.tif", "sub/a.bmp", "notes.txt", ".hidden.png", "a.b.jpg")
    assert taken(tmp_path) == ["B.jpg", "a.b.jpg", "a.jpeg", "b.PNG", "sub/a.bmp", "sub/deep/x.tif"]


def test_every_kth_frame_of_each_folder(tmp_path: Path) -> None:
    tree(tmp_path, *(f"v{video}/{frame:03d}.jpg" for video in (1, 2) for frame in range(7)))
    assert taken(f"{tmp_path},every=3") == [f"v{v}/{f:03d}.jpg" for v in (1, 2) for f in (0, 3, 6)]


def test_n_of_each_class(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{name}/part{part}/{n}.jpg" for name in "ab" for part in (1, 2) for n in range(3)), "c/0.jpg")
    assert taken(f"{tmp_path},per-class=4") == [
        *(f"{name}/{rest}.jpg" for name in "ab" for rest in ("part1/0", "part1/1", "part1/2", "part2/0")),
        "c/0.jpg",
    ]


def test_a_list_names_what_is_taken(tmp_path: Path) -> None:
    tree(tmp_path / "set", "a.jpg", "b.png", "sub/c.jpg")
    lines = put(tmp_path / "train.txt", b"sub/c\r\na.jpg\n# end\n")
    assert taken(f"{tmp_path / 'set'},list={lines}") == ["a.jpg", "sub/c.jpg"]
    put(lines, b"a\nx\ny\nz\nw\n")
    with pytest.raises(DataError, match=r"^4 listed images are not there: .*set \(w, x, y, \.\. of .*train\.txt\)$"):
        taken(f"{tmp_path / 'set'},list={lines}")


def test_options_become_rules(tmp_path: Path) -> None:
    (source,) = parse(f"{tmp_path},crop=100,peak=20,set=drone,licence=CC BY 4.0", say)
    assert source == Source(tmp_path.resolve(), "drone", crop=100, peak=20, licence="CC BY 4.0")
    assert source.rules()["peak"] == 20


def test_a_folder_whose_name_reads_like_an_option(tmp_path: Path) -> None:
    odd = tmp_path / "a,every=2"
    tree(odd, "0.jpg", "1.jpg")
    assert taken(odd) == ["0.jpg", "1.jpg"]
    assert taken(f"{odd},every=2") == ["0.jpg"]
    assert split_options("x,y,every=2", ("every",)) == ("x,y", {"every": "2"})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("evry=3", r"Unknown option of a source: evry in .*Did you mean every"),
        ("every=0", r"every must be a whole number from 1 on, not '0'"),
        ("crop=-1", r"crop must be a whole number from 0 on"),
        ("per-class=many", r"per-class must be a whole number"),
    ],
)
def test_wrong_options(tmp_path: Path, options: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse(f"{tmp_path},{options}", say)


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^No such folder: .*nowhere$"):
        parse(str(tmp_path / "nowhere"), say)
    with pytest.raises(DataError, match=r"Did you mean imagenet"):
        parse(f"imagnet:{tmp_path}", say)
    tree(tmp_path, "a.tar", "b.tar", "c")
    with pytest.raises(DataError, match=r"No image in the folder or below: .*\(it holds 2 \.tar, 1 without suffix\)"):
        taken(tmp_path)
    labelled = folder(tmp_path / "labelled")
    with pytest.raises(DataError, match=r"its labels are no images to learn from: .*Name .*labelled/images; .*list="):
        parse(str(labelled), say)


def test_infpre_leaves_rgb_alone(tmp_path: Path) -> None:
    tree(tmp_path, "zset/thermal/0.jpg", "zset/rgb/0.jpg", "aset/thermal/v/1.png", "other/0.jpg")
    found = parse(f"infpre:{tmp_path},every=2", say)
    assert [(source.set, source.every) for source in found] == [("aset", 2), ("zset", 2)]
    assert [path.name for source in found for path in listing(source)[1]] == ["1.png", "0.jpg"]
    with pytest.raises(DataError, match="No set is laid out as SET/thermal"):
        parse(f"infpre:{tmp_path / 'other'}", say)


def test_msip_has_a_rule_for_each_set(tmp_path: Path) -> None:
    names = ["DroneVehicle", "SCUT_FIR_Pedestrian", "LLVIP", "Infrared Aerial Photography", "LSOTB-TIR", "LasHeR"]
    names += ["infrared-ship", "InfraredSecurity"]
    tree(tmp_path, *(f"{name}/thermal/{frame:02d}.jpg" for name in names for frame in range(20)))
    found = {source.set: source for source in parse(f"msip:{tmp_path}", say)}
    assert found["DroneVehicle"].crop == 100
    assert (found["SCUT_FIR_Pedestrian"].every, found["SCUT_FIR_Pedestrian"].peak) == (10, 20)
    counts = {name: len(listing(source)[1]) for name, source in found.items()}
    assert counts == dict(zip(sorted(names), (20, 10, 20, 20, 2, 2, 2, 20), strict=True))
    tree(tmp_path, "FLIR/thermal/0.jpg")
    with pytest.raises(DataError, match=r"Not a set of MSIP: .*FLIR"):
        parse(f"msip:{tmp_path}", say)


def test_infmix_is_its_three_parts(tmp_path: Path) -> None:
    tree(tmp_path, "infpre/llvip/thermal/0.jpg", "coco/train2017/1.jpg", "coco/val2017/2.jpg")
    tree(tmp_path, *(f"imagenet/train/n{c}/n{c}_{n}.JPEG" for c in (1, 2) for n in range(201)))
    found = parse(f"infmix:{tmp_path}", say)
    assert [source.set for source in found] == ["llvip", "imagenet", "coco"]
    assert [len(listing(source)[1]) for source in found] == [1, 400, 1]
    assert "n1/n1_99.JPEG" not in taken(f"imagenet:{tmp_path / 'imagenet'}"), "the last by code point of 201"
    with pytest.raises(DataError, match="A part of InfMix is missing"):
        parse(f"infmix:{tmp_path / 'imagenet'}", say)


def test_a_data_set_in_the_hub_cache(tmp_path: Path) -> None:
    """The real library, offline, over a cache as it leaves it."""
    place = tmp_path / "hub" / "datasets--me--mix"
    commit = "0123456789abcdef0123456789abcdef01234567"
    put(place / "refs" / "main", commit.encode())
    put(place / "snapshots" / commit / "README.md", b"---\nlicense: apache-2.0\n---\n")
    put(place / "snapshots" / commit / "boats" / "thermal" / "0.png", encode(scene(0)))
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    code = "from edgeunip.train.corpus.sources import parse\nprint(parse('hf:me/mix', lambda line: None))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "set='boats'" in done.stdout
    assert "licence='apache-2.0, as me/mix states it'" in done.stdout
