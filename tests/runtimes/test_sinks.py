import json
import resource
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_runtime import CLASSES, frames, tiny_manifest

from edgeunip.errors import SinkError, StorageError, UsageError
from edgeunip.runtimes.jsonl import JsonlSink
from edgeunip.runtimes.plain import plain
from edgeunip.runtimes.segment import Segmenter
from edgeunip.runtimes.sinks import Setting, open_sink, slug
from edgeunip.runtimes.video import VideoSink

LIVE = Setting(CLASSES)
FILE = Setting(CLASSES, rate_hz=9.0)


@pytest.fixture
def results(runtime):
    segmenter = Segmenter(tiny_manifest(), rate_hz=0.0)
    return [segmenter(frame, runtime) for frame in frames(30)]


def read_video(path):
    with av.open(path) as video:
        return [(round(frame.time * 1000), frame.width, frame.height) for frame in video.decode(video=0)]


def test_grammar(tmp_path):
    with pytest.raises(UsageError, match=r"Unknown sink: vidoe\. Did you mean video"):
        open_sink("vidoe:x.mkv", LIVE)
    with pytest.raises(UsageError, match=r"A jsonl sink needs more\. Write jsonl:FILE"):
        open_sink("jsonl", LIVE)
    with pytest.raises(UsageError, match=r"as \.mkv or \.mp4: .*a\.avi"):
        open_sink(f"video:{tmp_path}/a.avi", LIVE)
    with pytest.raises(UsageError, match=r"A jsonl sink has no option minuets\. Did you mean minutes\?"):
        open_sink(f"jsonl:{tmp_path}/a.jsonl?minuets=5", LIVE)
    with pytest.raises(UsageError, match=r"^Standard output has no options"):
        open_sink("jsonl:-?minutes=5", LIVE)
    for option in ("minutes=0", "mb=-1", "keep=0", "keep=2.5", "free=-1", "mb=nan", "minutes=ten"):
        with pytest.raises(UsageError, match=f"^An option of the video sink is wrong: {option}"):
            open_sink(f"video:{tmp_path}/a.mkv?{option}", LIVE)
    assert open_sink(f"jsonl:{tmp_path}/deep/er/a:b.jsonl", LIVE).name.endswith("a:b.jsonl")
    assert (tmp_path / "deep/er/a:b.jsonl").is_file()


def test_what_several_cameras_may_share(tmp_path):
    two = Setting(CLASSES, cameras=("/dev/video0", "rtsp://***@host/live"))
    with pytest.raises(UsageError, match=r"^One video file cannot hold several cameras: .*a\.mkv\. Write \{camera\}"):
        open_sink(f"video:{tmp_path}/a.mkv", two)
    open_sink(f"jsonl:{tmp_path}/all.jsonl", two).close()
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


def test_a_camera_as_a_part_of_a_name():
    assert [slug(name) for name in ("/dev/video0", "rtsp://***@host/live")] == ["dev-video0", "rtsp-host-live"]


@pytest.mark.parametrize("spec", ["jsonl:{}/file/a.jsonl", "video:{}/file/a.mkv"])
def test_a_place_that_cannot_be_written(tmp_path, spec):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"^Cannot write: .*file/a\.\w+ \(.*\)"):
        open_sink(spec.format(tmp_path), LIVE)


def read_lines(path):
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


def test_jsonl_holds_one_whole_line_a_result(tmp_path, results):
    sink = JsonlSink(tmp_path / "a.jsonl")
    for result in results:
        sink.write(result)
    sink.close()
    sink.close()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines == [plain(result) for result in results]


def test_jsonl_of_a_file_replaces_and_of_a_camera_goes_on(tmp_path, results):
    path = tmp_path / "a.jsonl"
    for setting, expected in ((FILE, [0]), (FILE, [1]), (LIVE, [1, 2]), (LIVE, [1, 2, 3])):
        sink = open_sink(f"jsonl:{path}", setting)
        sink.write(results[expected[-1]])
        sink.close()
        assert read_lines(path) == expected
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("torn", ["{", '{"seq":9', "x" * 200_000, ""])
@pytest.mark.parametrize("before", [0, 3, 2000])
def test_a_torn_line_of_an_earlier_run_is_cut_off(tmp_path, results, torn, before):
    path = tmp_path / "a.jsonl"
    path.write_text('{"seq":0,"more":"........................................"}\n' * before + torn)
    sink = open_sink(f"jsonl:{path}", LIVE)
    sink.write(results[1])
    sink.write(results[2])
    sink.close()
    assert read_lines(path) == [0] * before + [1, 2]


def test_several_threads_write_whole_lines(tmp_path, results):
    sink = open_sink(f"jsonl:{tmp_path}/a.jsonl", Setting(CLASSES, cameras=("a", "b")))
    threads = [threading.Thread(target=lambda: [sink.write(result) for result in results * 5]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    assert sorted(read_lines(tmp_path / "a.jsonl")) == sorted([*range(30)] * 20)


def test_jsonl_to_standard_output(capfdbinary, results):
    sink = open_sink("jsonl:-", LIVE)
    sink.write(results[3])
    sink.close()
    assert json.loads(capfdbinary.readouterr().out)["seq"] == 3
    assert not sys.stdout.closed


_CLOSED_PIPE = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_runtime import *
from edgeunip.errors import EdgeunipError
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.stream import stream
try:
    camera = MemoryCamera(frames(500), period_s=0.01)
    sink = open_sink("jsonl:-", Setting(CLASSES))
    stream(camera, OpenVinoRuntime(tiny_model()), tiny_manifest(), [Port.of(sink)])
except EdgeunipError as error:
    sys.exit(f"{type(error).__name__} {error}")
"""


def test_a_reader_that_leaves_ends_the_sink_in_one_line():
    command = [sys.executable, "-c", _CLOSED_PIPE, str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["seq"] == 0
        process.stdout.close()
        message = process.stderr.read().splitlines()
        assert process.wait(20) == 1
    assert message[-1] == "SinkClosedError The reader of standard output has gone: jsonl:-"
    assert not any("Traceback" in line or "ignored" in line for line in message)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_video_of_a_file_runs_at_its_rate(tmp_path, results, suffix):
    sink = VideoSink(tmp_path / f"a.{suffix}", CLASSES, rate_hz=9.0)
    for result in results:
        sink.write(result)
    sink.close()
    sink.close()
    shown = read_video(tmp_path / f"a.{suffix}")
    assert [time for time, _, _ in shown] == [round(seq * 1000 / 9) for seq in range(30)]
    assert {(width, height) for _, width, height in shown} == {(480, 360)}


def test_video_of_a_camera_runs_at_its_times_and_always_forwards(tmp_path, results):
    times = [5_000, 5_111, 5_111, 5_300, 100, 200]
    sink = VideoSink(tmp_path / "a.mkv", CLASSES)
    for time_ms, result in zip(times, results, strict=False):
        sink.write(replace(result, frame=replace(result.frame, t_ns=time_ms * 1_000_000)))
    sink.close()
    assert [time for time, _, _ in read_video(tmp_path / "a.mkv")] == [0, 111, 112, 301, 302, 402]


def test_video_shows_the_overlay(tmp_path, results):
    from edgeunip.runtimes.overlay import Overlay

    sink = VideoSink(tmp_path / "a.mkv", CLASSES, rate_hz=9.0)
    sink.write(results[0])
    sink.close()
    with av.open(tmp_path / "a.mkv") as video:
        shown = next(video.decode(video=0)).to_ndarray(format="rgb24")
    drawn = Overlay(CLASSES).draw(results[0])
    assert np.abs(shown.astype(int) - drawn).mean() < 8


def test_video_of_an_odd_size(tmp_path, results):
    result = results[0]
    picture, labels = np.zeros((121, 481), np.uint8), np.zeros((121, 481), np.uint8)
    odd = replace(result, picture=picture, class_map=labels, classes={})
    sink = VideoSink(tmp_path / "a.mkv", CLASSES)
    sink.write(odd)
    with pytest.raises(SinkError, match=r"changed its size: video:.*a\.mkv"):
        sink.write(result)
    sink.close()
    assert read_video(tmp_path / "a.mkv") == [(0, 482, 122)]


def test_video_without_a_frame(tmp_path):
    VideoSink(tmp_path / "a.mkv", CLASSES).close()
    assert (tmp_path / "a.mkv").stat().st_size == 0


@pytest.mark.parametrize(("kind", "suffix"), [("jsonl", "jsonl"), ("video", "mkv"), ("video", "mp4")])
def test_a_full_disk_is_one_clear_error(tmp_path, results, kind, suffix):
    # A limit on the file's size fails a write as a full disk does, after some have gone well.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = open_sink(f"{kind}:{tmp_path}/a.{suffix}", FILE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match=r"Cannot write: .*/a\.(mkv|mp4|jsonl) \(File too large\)"):
            for result in results * 3:
                sink.write(result)
        sink.close()
        sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / f"a.{suffix}").stat().st_size <= 4096
