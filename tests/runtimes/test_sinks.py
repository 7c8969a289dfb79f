import json
import math
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from tiny_runtime import CLASSES, frames, tiny_manifest

from edgeunip.errors import SinkError, StorageError, UsageError
from edgeunip.frame import ClassStatistics, State
from edgeunip.runtimes.jsonl import JsonlSink, to_json
from edgeunip.runtimes.segment import Segmenter
from edgeunip.runtimes.sinks import open_sink
from edgeunip.runtimes.video import VideoSink


@pytest.fixture
def results(runtime):
    segmenter = Segmenter(tiny_manifest(), rate_hz=0.0)
    return [segmenter(frame, runtime) for frame in frames(30)]


def read_video(path):
    with av.open(path) as video:
        return [(round(frame.time * 1000), frame.width, frame.height) for frame in video.decode(video=0)]


def test_grammar(tmp_path):
    with pytest.raises(UsageError, match=r"Unknown sink: vidoe:x\.mkv\. Did you mean video\?"):
        open_sink("vidoe:x.mkv", classes=CLASSES)
    with pytest.raises(UsageError, match=r"needs a file or a port: jsonl\. Write jsonl:FILE"):
        open_sink("jsonl", classes=CLASSES)
    with pytest.raises(UsageError, match=r"as \.mkv or \.mp4: .*a\.avi"):
        open_sink(f"video:{tmp_path}/a.avi", classes=CLASSES)
    for port in ("-1", "65536", "http", "80.0"):
        with pytest.raises(UsageError, match=f"port, 0 to 65535: web:{port}"):
            open_sink(f"web:{port}", classes=CLASSES)
    assert open_sink(f"jsonl:{tmp_path}/deep/er/a:b.jsonl", classes=CLASSES).name.endswith("a:b.jsonl")
    assert (tmp_path / "deep/er/a:b.jsonl").is_file()


@pytest.mark.parametrize("spec", ["jsonl:{}/file/a.jsonl", "video:{}/file/a.mkv"])
def test_a_place_that_cannot_be_written(tmp_path, spec):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"^Cannot write: .*file/a\.\w+ \(.*\)"):
        open_sink(spec.format(tmp_path), classes=CLASSES)


def test_jsonl_holds_one_whole_line_a_result(tmp_path, results):
    sink = JsonlSink(tmp_path / "a.jsonl")
    for result in results:
        sink.write(result)
    sink.close()
    sink.close()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["seq"] for line in lines] == list(range(30))
    first, result = lines[0], results[0]
    assert list(first) == ["seq", "t_ns", "age_ms", "state", "dropped", "classes"]
    assert (first["t_ns"], first["state"], first["dropped"]) == (result.frame.t_ns, "live", 0)
    assert list(first["classes"]) == list(CLASSES.names)
    hot = first["classes"]["hot"]
    assert list(hot) == ["pixels", "area", "min_c", "mean_c", "max_c", "hotspot"]
    assert hot["pixels"] == result.classes["hot"].pixels
    assert hot["mean_c"] == round(result.classes["hot"].mean_c, 2)
    assert hot["hotspot"] == list(result.classes["hot"].hotspot)


def test_jsonl_says_null_for_what_is_unknown_and_never_nan(results):
    classes = {"a": ClassStatistics(0, 0.0), "b": ClassStatistics(1, 1 / 3, math.nan, math.inf, 1.006, (1, 2))}
    frame = replace(results[0].frame, state=State.FFC)
    value = to_json(replace(results[0], frame=frame, classes=classes, dropped=4))
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["classes"] == {
        "a": {"pixels": 0, "area": 0.0, "min_c": None, "mean_c": None, "max_c": None, "hotspot": None},
        "b": {"pixels": 1, "area": 0.3333, "min_c": None, "mean_c": None, "max_c": 1.01, "hotspot": [1, 2]},
    }
    assert (value["state"], value["dropped"]) == ("ffc", 4)


def test_jsonl_to_standard_output(capfdbinary, results):
    sink = open_sink("jsonl:-", classes=CLASSES)
    sink.write(results[3])
    sink.close()
    assert json.loads(capfdbinary.readouterr().out)["seq"] == 3
    assert not sys.stdout.closed


_CLOSED_PIPE = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_runtime import *
from edgeunip.errors import EdgeunipError
from edgeunip.runtimes.sinks import open_sink
from edgeunip.runtimes.stream import stream
try:
    camera = MemoryCamera(frames(500), period_s=0.01)
    stream(camera, OpenVinoRuntime(tiny_model()), tiny_manifest(), [open_sink("jsonl:-", classes=CLASSES)])
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
    assert message[-1] == "SinkError The reader of standard output has gone: jsonl:-"
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
    sink = open_sink(f"{kind}:{tmp_path}/a.{suffix}", classes=CLASSES, rate_hz=9.0)
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
