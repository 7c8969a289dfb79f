import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_runtime import MemoryCamera, MemorySink, SlowRuntime, frames, tiny_manifest

from edgeunip.errors import InferenceError, SinkError, SourceError, StorageError, UsageError
from edgeunip.runtimes.stream import stream
from edgeunip.thermal import Agc

MANIFEST = tiny_manifest()


def closes(totals):
    return totals.captured == totals.written + totals.skipped


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_a_file_is_written_whole_and_in_order(runtime, concurrency):
    slow = SlowRuntime(runtime, seconds=0.002, concurrency=concurrency, jitter=np.random.default_rng(concurrency))
    slow._runtime = lambda picture: np.zeros((4, 16, 24), np.float32)
    sink, other = MemorySink(), MemorySink("other", seconds=0.003)
    totals = stream(MemoryCamera(frames(60)), slow, MANIFEST, [sink, other])
    assert sink.seqs == other.seqs == list(range(60))
    assert (totals.captured, totals.inferred, totals.written, totals.skipped, totals.lost) == (60, 60, 60, 0, 0)
    assert slow.most <= concurrency
    assert slow.most == concurrency or concurrency == 4
    assert (sink.closed, other.closed) == (1, 1)
    assert (totals.failed_sinks, dict(totals.sink_drops)) == ((), {})
    assert 0 < totals.latency_ms[0] <= totals.latency_ms[1]


def test_a_live_camera_skips_to_the_newest_and_every_frame_is_accounted_for(runtime):
    sink = MemorySink()
    camera = MemoryCamera(frames(60), live=True, period_s=0.005)
    totals = stream(camera, SlowRuntime(runtime, seconds=0.03), MANIFEST, [sink])
    assert totals.captured == 60
    assert totals.skipped > 20
    assert totals.inferred == totals.written == len(sink.results) == 60 - totals.skipped
    assert closes(totals)
    assert sink.seqs == sorted(set(sink.seqs))
    assert sink.seqs[-1] == 59
    # Result.dropped tells what had been skipped before this frame was taken.
    for place, result in enumerate(sink.results):
        assert result.dropped == result.frame.seq - place
    # At most one inference time of waiting and one of its own, plus scheduling.
    assert totals.latency_ms[0] < 2 * 30 + 10


def test_frames_lost_at_the_source_are_counted_apart(runtime):
    numbered = [frame for frame in frames(20) if frame.seq not in (3, 4, 5, 11)]
    totals = stream(MemoryCamera(numbered), runtime, MANIFEST, [MemorySink()])
    assert (totals.captured, totals.written, totals.skipped, totals.lost) == (16, 16, 0, 4)


@pytest.mark.parametrize("live", [False, True])
def test_a_number_of_frames(runtime, live):
    sink = MemorySink()
    camera = MemoryCamera(frames(500), live=live, period_s=0.002 if live else 0)
    totals = stream(camera, runtime, MANIFEST, [sink], frames=7)
    assert totals.written == len(sink.results) == 7
    assert closes(totals)
    assert live or totals.captured == 7


def test_no_number_of_frames(runtime):
    with pytest.raises(UsageError, match="at least 1: 0"):
        stream(MemoryCamera(frames(1)), runtime, MANIFEST, [], frames=0)


def test_an_empty_source_and_no_sink(runtime):
    totals = stream(MemoryCamera([]), runtime, MANIFEST, [MemorySink()])
    assert (totals.captured, totals.written, totals.latency_ms) == (0, 0, (0.0, 0.0))
    assert stream(MemoryCamera(frames(5)), runtime, MANIFEST, []).written == 5


def test_a_failing_sink_harms_no_other(runtime):
    good, bad = MemorySink("good"), MemorySink("bad", fail_at=3)
    totals = stream(MemoryCamera(frames(20)), runtime, MANIFEST, [bad, good])
    assert good.seqs == list(range(20))
    assert bad.seqs == [0, 1, 2]
    assert totals.failed_sinks == ("bad",)
    assert bad.closed == good.closed == 1
    assert (totals.written, totals.skipped) == (20, 0)


def test_every_sink_failing_ends_the_stream(runtime):
    reports = []
    bad = [MemorySink("one", fail_at=2), MemorySink("two", fail_at=4, error=StorageError("Cannot write", where="x"))]
    with pytest.raises(SinkError, match=r"Every sink has failed: one, two \(Worn out: one\)"):
        stream(MemoryCamera(frames(2000), period_s=0.001), runtime, MANIFEST, bad, report=reports.append)
    assert reports[-1].captured < 2000
    assert reports[-1].written == 4
    assert closes(reports[-1])
    with pytest.raises(StorageError, match="Cannot write: x"):
        stream(MemoryCamera(frames(5)), runtime, MANIFEST, [MemorySink(fail_at=0, error=bad[1]._error)])


def test_a_slow_sink_of_a_live_camera_loses_its_own_results_only(runtime):
    slow, quick = MemorySink("slow", seconds=0.05), MemorySink("quick")
    camera = MemoryCamera(frames(40), live=True, period_s=0.01)
    totals = stream(camera, runtime, MANIFEST, [slow, quick])
    assert len(quick.results) == totals.inferred == totals.written
    assert totals.sink_drops == {"slow": totals.inferred - len(slow.results)}
    assert totals.sink_drops["slow"] > 15
    assert slow.seqs == sorted(slow.seqs)
    assert slow.seqs[-1] == quick.seqs[-1]
    assert closes(totals)


def test_the_only_sink_being_slow_the_account_still_closes(runtime):
    slow = MemorySink("slow", seconds=0.05)
    totals = stream(MemoryCamera(frames(30), live=True, period_s=0.01), runtime, MANIFEST, [slow])
    assert totals.written == len(slow.results) < totals.inferred
    assert totals.captured == 30
    assert closes(totals)


def test_a_lost_camera_is_told_once_all_it_gave_is_written(runtime):
    sink = MemorySink(seconds=0.002)
    camera = MemoryCamera(frames(12), error=SourceError("The camera was unplugged", where="memory"))
    with pytest.raises(SourceError, match="unplugged: memory"):
        stream(camera, runtime, MANIFEST, [sink])
    assert sink.seqs == list(range(12))
    assert sink.closed == 1


@pytest.mark.parametrize("error", [InferenceError("The device is gone"), ZeroDivisionError("a bug")])
def test_a_failing_runtime_is_told_and_its_sinks_are_closed(runtime, error):
    sink, reports = MemorySink(), []
    failing = SlowRuntime(runtime, concurrency=2, error=error, fail_at=5)
    with pytest.raises(type(error), match=str(error)):
        stream(MemoryCamera(frames(2000), period_s=0.001), failing, MANIFEST, [sink], report=reports.append)
    assert sink.seqs[:5] == [0, 1, 2, 3, 4]
    assert 5 not in sink.seqs
    assert sink.closed == 1
    assert closes(reports[-1])


def test_a_fault_of_the_program_in_a_sink_is_not_taken_for_a_full_disk(runtime):
    sinks = [MemorySink("good"), MemorySink("bad", fail_at=1, error=KeyError("a bug"))]
    with pytest.raises(KeyError, match="a bug"):
        stream(MemoryCamera(frames(2000), period_s=0.001), runtime, MANIFEST, sinks)
    assert sinks[0].closed == 1


def test_preprocessing_that_cannot_be_done_is_told(runtime):
    bare = [type(frame)(frame.counts, frame.seq, frame.t_ns) for frame in frames(3)]
    with pytest.raises(UsageError, match="needs temperatures"):
        stream(MemoryCamera(bare), runtime, tiny_manifest(agc=Agc(mode="window")), [MemorySink()])


@pytest.mark.parametrize("live", [False, True])
def test_stop_ends_everything_in_two_seconds(runtime, live):
    class Silent(MemoryCamera):
        """Gives its frames, then nothing for ever, as a camera whose cable hangs."""

        def __iter__(self):
            yield from super().__iter__()
            threading.Event().wait(30)

    stop, sink, stuck = threading.Event(), MemorySink(), MemorySink("stuck", seconds=30)
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    totals = stream(Silent(frames(3), live=live), runtime, MANIFEST, [sink, stuck], stop=stop)
    assert time.monotonic() - start < 0.2 + 2.0
    assert sink.closed == 1
    assert totals.failed_sinks == ("stuck",)
    assert closes(totals)


def test_stop_without_a_stuck_sink_is_quick(runtime):
    stop, sink = threading.Event(), MemorySink()
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    totals = stream(MemoryCamera(frames(200), live=True, period_s=0.01), runtime, MANIFEST, [sink], stop=stop)
    assert time.monotonic() - start < 0.7
    assert totals.captured < 40
    assert closes(totals)


def test_reports_come_every_second_and_at_the_end(runtime):
    reports = []
    camera = MemoryCamera(frames(25), live=True, period_s=0.05)
    totals = stream(camera, runtime, MANIFEST, [MemorySink()], report=reports.append)
    assert len(reports) == 2
    assert reports[-1] == totals
    assert 0.9 < reports[0].seconds < 1.3
    assert 0 < reports[0].captured < totals.captured == 25


def test_no_thread_stays_behind(runtime):
    before = threading.active_count()
    for _ in range(20):
        stream(MemoryCamera(frames(5)), runtime, MANIFEST, [MemorySink(), MemorySink()])
    assert threading.active_count() <= before


_SIGNALLED = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_runtime import *
from edgeunip.runtimes.sinks import open_sink
from edgeunip.runtimes.stream import stream
camera = MemoryCamera(frames(3000), live=True, period_s=0.02)
sinks = [open_sink(spec, classes=CLASSES) for spec in sys.argv[2:]]
print("ready", flush=True)
totals = stream(camera, OpenVinoRuntime(tiny_model()), tiny_manifest(), sinks)
assert totals.captured == totals.written + totals.skipped
print(totals.written, flush=True)
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_recordings_survive_signals(tmp_path, kind):
    import av

    specs = [f"video:{tmp_path}/out/a.mkv", f"video:{tmp_path}/out/a.mp4", f"jsonl:{tmp_path}/out/a.jsonl"]
    command = [sys.executable, "-c", _SIGNALLED, str(Path(__file__).parent), *specs]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(1.7)
        process.send_signal(kind)
        start = time.monotonic()
        written = process.stdout.read()
        assert process.wait(5) == (0 if kind is signal.SIGINT else -signal.SIGKILL)
    assert time.monotonic() - start < 2.0
    lines = (tmp_path / "out/a.jsonl").read_text().splitlines(keepends=True)
    assert all(line.endswith("}\n") for line in lines)
    for name in ("a.mkv", "a.mp4"):
        with av.open(tmp_path / "out" / name) as video:
            shown = [frame.time for frame in video.decode(video=0)]
        if kind is signal.SIGINT:
            assert len(shown) == len(lines) == int(written)
        else:
            # A cluster of a second may be lost, of frames every 20 ms, and nothing more.
            assert len(lines) - len(shown) <= 60
            assert len(shown) >= 20
        assert shown == sorted(set(shown))
