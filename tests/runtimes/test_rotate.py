import json
import re
import time
from dataclasses import replace
from datetime import datetime, timedelta

import av
import pytest
from tiny_runtime import CLASSES, frames, tiny_manifest

from edgeunip.errors import SinkError
from edgeunip.runtimes import rotate
from edgeunip.runtimes.rotate import Limits, Parts
from edgeunip.runtimes.segment import Segmenter
from edgeunip.runtimes.sinks import Setting, open_sink

NOON = datetime(2026, 11, 21, 12)


class Clock(datetime):
    """A wall clock that a test sets."""

    at = NOON

    @classmethod
    def now(cls, tz=None):
        return cls.at


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(rotate, "datetime", Clock)
    Clock.at = NOON
    return Clock


@pytest.fixture(scope="module")
def results(runtime):
    segmenter = Segmenter(tiny_manifest(), rate_hz=0.0)
    return [segmenter(frame, runtime) for frame in frames(60)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(parts, size=1):
    parts.file.write(b"x" * size)
    parts.used = True
    return parts


def test_without_limits_there_is_one_file(tmp_path, clock):
    parts = fill(Parts(tmp_path / "a.mkv"))
    assert not parts.is_due(1e9)
    parts.close()
    fill(Parts(tmp_path / "a.mkv"), 3).close()
    assert names(tmp_path) == ["a.mkv"] and (tmp_path / "a.mkv").stat().st_size == 3


def test_of_a_live_camera_nothing_is_replaced(tmp_path, clock):
    for _ in range(3):
        fill(Parts(tmp_path / "a.mkv", live=True)).close()
    assert names(tmp_path) == ["a-20261121-120000-1.mkv", "a-20261121-120000.mkv", "a.mkv"]
    (tmp_path / "b.mkv").touch()
    fill(Parts(tmp_path / "b.mkv", live=True)).close()  # an empty file holds nothing to lose
    assert [name for name in names(tmp_path) if name[0] == "b"] == ["b.mkv"]


def test_parts_by_length_and_size(tmp_path, clock):
    parts = Parts(tmp_path / "a.mkv", Limits(minutes=0.5, megabytes=0.001))
    assert not parts.is_due(29.9) and parts.is_due(30.0)
    fill(parts, 999)
    assert not parts.is_due(0.0)
    fill(parts, 1)
    assert parts.is_due(0.0)
    clock.at += timedelta(seconds=7)
    parts.next().write(b"new")
    parts.used = True
    assert not parts.is_due(0.0)
    parts.close()
    assert names(tmp_path) == ["a-20261121-120000.mkv", "a-20261121-120007.mkv"]


def test_the_order_of_the_names_is_the_order_of_the_parts_whatever_the_clock_does(tmp_path, clock):
    written = []
    for minutes in (0, 1, -600_000, 1, 1, 600_000, -30_000_000, 0, 0, 2):
        clock.at += timedelta(minutes=minutes)
        parts = fill(Parts(tmp_path / "a.mkv", Limits(keep=100)), len(written) + 1)
        written.append(parts.file.path.name)
        parts.close()
    assert len(set(written)) == 10
    parts = fill(Parts(tmp_path / "a.mkv", Limits(keep=4)))
    parts.close()
    assert names(tmp_path) == sorted([*written[-3:], parts.file.path.name])  # the newest, by when they were written


def test_two_writers_of_one_name_never_share_a_part(tmp_path, clock):
    parts = [Parts(tmp_path / "a.mkv", Limits(minutes=1)) for _ in range(5)]
    assert len({one.file.path for one in parts}) == 5
    for one in parts:
        one.close()


def test_only_parts_of_this_very_name_are_removed(tmp_path, clock):
    others = ("a.mkv", "a-b-20200101-000000.mkv", "b-20200101-000000.mkv", "a-20200101-000000.mp4", "a-2020-01-01.mkv")
    others += (
        "a-20200101-000000-x.mkv",
        "xa-20200101-000000.mkv",
        "a-20200101-000000.mkv.txt",
        "a-20200101-0000000.mkv",
    )
    for name in (*others, "a-20200101-000000.mkv", "a-20200101-000000-7.mkv", "a-20200101-000000-12.mkv"):
        (tmp_path / name).touch()
    fill(Parts(tmp_path / "a.mkv", Limits(keep=2))).close()
    assert set(names(tmp_path)) == {*others, "a-20200101-000000-12.mkv", "a-20261121-120000.mkv"}


def test_a_name_with_signs_of_a_pattern(tmp_path, clock):
    for _ in range(3):
        fill(Parts(tmp_path / "a+(1)[x].mkv", Limits(keep=1))).close()
    assert len(names(tmp_path)) == 1


class SmallDisk(Parts):
    """Parts on a disk of 10 kB."""

    def _free_mb(self):
        return 0.01 - sum(path.stat().st_size for path in self._path.parent.iterdir()) / 1e6


def test_the_oldest_parts_go_where_room_is_short(tmp_path, clock):
    for _ in range(4):
        fill(SmallDisk(tmp_path / "a.mkv", Limits(keep=99, free=0.002)), 2000).close()
        clock.at += timedelta(seconds=1)
    assert [name[-8:-4] for name in names(tmp_path)] == ["0000", "0001", "0002", "0003"]
    parts = fill(SmallDisk(tmp_path / "a.mkv", Limits(keep=99, free=0.002)), 2500)
    assert [name[-8:-4] for name in names(tmp_path)] == ["0001", "0002", "0003", "0004"]
    parts._look_s = 0.0
    parts.watch()
    assert [name[-8:-4] for name in names(tmp_path)] == ["0002", "0003", "0004"]
    fill(parts, 7000)
    parts._look_s = 0.0
    with pytest.raises(
        SinkError, match=r"^The disk is nearly full: .*a\.mkv \(0 MB are free, 0 shall be\)\. Free some"
    ):
        parts.watch()
    parts.close()
    assert names(tmp_path) == ["a-20261121-120004.mkv"]  # its own file stays


def test_files_that_nobody_allowed_to_remove_stay(tmp_path, clock):
    (tmp_path / "a-20200101-000000.mkv").write_bytes(b"x" * 9900)
    with pytest.raises(SinkError, match="nearly full"):
        SmallDisk(tmp_path / "a.mkv", live=True)  # no option: nothing but one file was asked for
    assert names(tmp_path) == ["a-20200101-000000.mkv"]


def test_the_reserve_of_a_live_camera_is_200_mb(tmp_path):
    class Disk(Parts):
        def _free_mb(self):
            return 219.0

    with pytest.raises(SinkError, match=r"219 MB are free, 220 shall be"):
        Disk(tmp_path / "a.mkv", live=True)
    Disk(tmp_path / "a.mkv").close()
    Disk(tmp_path / "b.mkv", Limits(free=0), live=True).close()


def test_a_file_that_was_removed_is_noticed(tmp_path):
    parts = Parts(tmp_path / "a.mkv")
    parts.watch()
    (tmp_path / "a.mkv").unlink()
    parts.watch()  # it looks once a second
    parts._look_s = time.monotonic()
    with pytest.raises(SinkError, match=r"^The file was removed or replaced while it was written: .*a\.mkv"):
        parts.watch()
    parts.close()


def test_a_failure_between_two_parts_costs_none_of_them(tmp_path, clock, monkeypatch):
    parts = fill(Parts(tmp_path / "a.mkv", Limits(keep=3)))
    monkeypatch.setattr(parts, "_forget", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        parts.next()
    parts.close()
    assert (tmp_path / "a-20261121-120000.mkv").stat().st_size == 1


def test_a_part_that_was_not_used_is_removed(tmp_path, clock):
    parts = Parts(tmp_path / "a.mkv", Limits(keep=3))
    parts.next()
    assert len(names(tmp_path)) == 1
    parts.close()
    assert names(tmp_path) == []
    Parts(tmp_path / "a.mkv").close()
    assert names(tmp_path) == ["a.mkv"]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_video_in_parts_loses_no_frame(tmp_path, clock, results, suffix):
    sink = open_sink(f"video:{tmp_path}/a.{suffix}?minutes=0.02", Setting(CLASSES))
    for index, result in enumerate(results):
        sink.write(replace(result, frame=replace(result.frame, t_ns=10**15 + index * 100_000_000)))
    sink.close()
    shown = []
    for path in sorted(tmp_path.iterdir(), key=lambda path: int(re.search(r"000(?:-(\d+))?\.m", path.name)[1] or 0)):
        with av.open(path) as video:
            times = [frame.time for frame in video.decode(video=0)]
        assert times[0] == 0
        shown.append(len(times))
    assert shown == [13, 13, 13, 13, 8]  # 1.2 s at 10 frames a second


def test_json_lines_in_parts_lose_no_line(tmp_path, clock, results):
    sink = open_sink(f"jsonl:{tmp_path}/a.jsonl?mb=0.008", Setting(CLASSES))
    for result in results:
        sink.write(result)
    sink.close()
    paths = sorted(tmp_path.iterdir(), key=lambda path: (len(path.name), path.name))
    assert len(paths) > 3 and all(path.stat().st_size < 12000 for path in paths)
    lines = [json.loads(line)["seq"] for path in paths for line in path.read_text().splitlines()]
    assert lines == list(range(60))
