import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_runtime import CLASSES, MemoryCamera, MemorySink, SlowRuntime, frames, tiny_manifest

from edgeunip.budget import BUDGET, Budget
from edgeunip.errors import InferenceError, SinkError, SourceError, StorageError, UsageError
from edgeunip.frame import State
from edgeunip.runtimes.gate import Gate
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.rules import parse_rule
from edgeunip.runtimes.scene import Scene
from edgeunip.runtimes.stream import stream
from edgeunip.runtimes.turns import Turns
from edgeunip.thermal import Agc

MANIFEST = tiny_manifest()


def ports(*sinks):
    return [Port.of(sink) for sink in sinks]


def closes(totals):
    return totals.captured == totals.written + totals.skipped


@pytest.mark.parametrize("concurrency", [1, 2, 4])
def test_a_file_is_written_whole_and_in_order(runtime, concurrency):
    slow = SlowRuntime(runtime, seconds=0.002, concurrency=concurrency, jitter=np.random.default_rng(concurrency))
    slow._runtime = lambda picture: np.zeros((4, 16, 24), np.float32)
    sink, other = MemorySink(), MemorySink("other", seconds=0.003)
    totals = stream(MemoryCamera(frames(60)), slow, MANIFEST, ports(sink, other))
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
    totals = stream(camera, SlowRuntime(runtime, seconds=0.03), MANIFEST, ports(sink))
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
    totals = stream(MemoryCamera(numbered), runtime, MANIFEST, ports(MemorySink()))
    assert (totals.captured, totals.written, totals.skipped, totals.lost) == (16, 16, 0, 4)


@pytest.mark.parametrize("live", [False, True])
def test_a_number_of_frames(runtime, live):
    sink = MemorySink()
    camera = MemoryCamera(frames(500), live=live, period_s=0.002 if live else 0)
    totals = stream(camera, runtime, MANIFEST, ports(sink), frames=7)
    assert totals.written == len(sink.results) == 7
    assert closes(totals)
    assert live or totals.captured == 7


def test_no_number_of_frames(runtime):
    with pytest.raises(UsageError, match="at least 1: 0"):
        stream(MemoryCamera(frames(1)), runtime, MANIFEST, [], frames=0)


def test_an_empty_source_and_no_sink(runtime):
    totals = stream(MemoryCamera([]), runtime, MANIFEST, ports(MemorySink()))
    assert (totals.captured, totals.written, totals.latency_ms) == (0, 0, (0.0, 0.0))
    assert stream(MemoryCamera(frames(5)), runtime, MANIFEST, []).written == 5


def test_a_failing_sink_harms_no_other(runtime):
    good, bad = MemorySink("good"), MemorySink("bad", fail_at=3)
    totals = stream(MemoryCamera(frames(20)), runtime, MANIFEST, ports(bad, good))
    assert good.seqs == list(range(20))
    assert bad.seqs == [0, 1, 2]
    assert totals.failed_sinks == ("bad",)
    assert bad.closed == good.closed == 1
    assert (totals.written, totals.skipped) == (20, 0)


def test_every_sink_failing_ends_the_stream(runtime):
    reports = []
    bad = [MemorySink("one", fail_at=2), MemorySink("two", fail_at=4, error=StorageError("Cannot write", where="x"))]
    with pytest.raises(SinkError, match=r"Every sink has failed: one, two \(Worn out: one\)"):
        stream(MemoryCamera(frames(2000), period_s=0.001), runtime, MANIFEST, ports(*bad), report=reports.append)
    assert reports[-1].captured < 2000
    assert reports[-1].written == 4
    assert closes(reports[-1])
    with pytest.raises(StorageError, match="Cannot write: x"):
        stream(MemoryCamera(frames(5)), runtime, MANIFEST, ports(MemorySink(fail_at=0, error=bad[1]._error)))


def test_a_slow_sink_of_a_live_camera_loses_its_own_results_only(runtime):
    slow, quick = MemorySink("slow", seconds=0.05), MemorySink("quick")
    camera = MemoryCamera(frames(40), live=True, period_s=0.01)
    totals = stream(camera, runtime, MANIFEST, ports(slow, quick))
    assert len(quick.results) == totals.inferred == totals.written
    assert totals.sink_drops == {"slow": totals.inferred - len(slow.results)}
    assert totals.sink_drops["slow"] > 15
    assert slow.seqs == sorted(slow.seqs)
    assert slow.seqs[-1] == quick.seqs[-1]
    assert closes(totals)


def test_the_only_sink_being_slow_the_account_still_closes(runtime):
    slow = MemorySink("slow", seconds=0.05)
    totals = stream(MemoryCamera(frames(30), live=True, period_s=0.01), runtime, MANIFEST, ports(slow))
    assert totals.written == len(slow.results) < totals.inferred
    assert totals.captured == 30
    assert closes(totals)


def test_a_lost_camera_is_told_once_all_it_gave_is_written(runtime):
    sink = MemorySink(seconds=0.002)
    camera = MemoryCamera(frames(12), error=SourceError("The camera was unplugged", where="memory"))
    with pytest.raises(SourceError, match="unplugged: memory"):
        stream(camera, runtime, MANIFEST, ports(sink))
    assert sink.seqs == list(range(12))
    assert sink.closed == 1


@pytest.mark.parametrize("error", [InferenceError("The device is gone"), ZeroDivisionError("a bug")])
def test_a_failing_runtime_is_told_and_its_sinks_are_closed(runtime, error):
    sink, reports = MemorySink(), []
    failing = SlowRuntime(runtime, concurrency=2, error=error, fail_at=5)
    with pytest.raises(type(error), match=str(error)):
        stream(MemoryCamera(frames(2000), period_s=0.001), failing, MANIFEST, ports(sink), report=reports.append)
    # Two calls at once: the sixth may be that of the frame before or after.
    assert sink.seqs[:4] == [0, 1, 2, 3] and sink.seqs == sorted(sink.seqs)
    assert {4, 5, 6, 7} - set(sink.seqs)
    assert sink.closed == 1
    assert closes(reports[-1])


def test_a_fault_of_the_program_in_a_sink_is_not_taken_for_a_full_disk(runtime):
    sinks = [MemorySink("good"), MemorySink("bad", fail_at=1, error=KeyError("a bug"))]
    with pytest.raises(KeyError, match="a bug"):
        stream(MemoryCamera(frames(2000), period_s=0.001), runtime, MANIFEST, ports(*sinks))
    assert sinks[0].closed == 1


def test_preprocessing_that_cannot_be_done_is_told(runtime):
    bare = [type(frame)(frame.counts, frame.seq, frame.t_ns) for frame in frames(3)]
    with pytest.raises(UsageError, match="needs temperatures"):
        stream(MemoryCamera(bare), runtime, tiny_manifest(agc=Agc(mode="window")), ports(MemorySink()))


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
    totals = stream(Silent(frames(3), live=live), runtime, MANIFEST, ports(sink, stuck), stop=stop)
    assert time.monotonic() - start < 0.2 + 2.0
    assert sink.closed == 1
    assert totals.failed_sinks == ("stuck",)
    assert closes(totals)


def test_stop_without_a_stuck_sink_is_quick(runtime):
    stop, sink = threading.Event(), MemorySink()
    threading.Timer(0.2, stop.set).start()
    start = time.monotonic()
    totals = stream(MemoryCamera(frames(200), live=True, period_s=0.01), runtime, MANIFEST, ports(sink), stop=stop)
    assert time.monotonic() - start < 0.2 + BUDGET.grace_s
    assert totals.captured < 40
    assert closes(totals)


def test_reports_come_every_second_and_at_the_end(runtime):
    reports = []
    camera = MemoryCamera(frames(25), live=True, period_s=0.05)
    totals = stream(camera, runtime, MANIFEST, ports(MemorySink()), report=reports.append)
    assert len(reports) == 2
    assert reports[-1] == totals
    assert 0.9 < reports[0].seconds < 1.3
    assert 0 < reports[0].captured < totals.captured == 25


def test_no_thread_stays_behind(runtime):
    before = threading.active_count()
    for _ in range(20):
        stream(MemoryCamera(frames(5)), runtime, MANIFEST, ports(MemorySink(), MemorySink()))
    assert threading.active_count() <= before


_SIGNALLED = """
import sys
sys.path.insert(0, sys.argv[1])
from tiny_runtime import *
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.rules import parse_rule
from edgeunip.runtimes.scene import Scene
from edgeunip.runtimes.stream import stream
camera = MemoryCamera(frames(3000), live=True, period_s=0.02)
sinks = [open_sink(spec, Setting(CLASSES)) for spec in sys.argv[2:]]
runtime = OpenVinoRuntime(tiny_model())  # compiled before the seconds are counted
print("ready", flush=True)
totals = stream(camera, runtime, tiny_manifest(), [Port.of(sink) for sink in sinks])
assert totals.captured == totals.written + totals.skipped
print(*[sink.written for sink in totals.sinks], flush=True)
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
        written = [int(number) for number in process.stdout.read().split()]
        assert process.wait(5) == (0 if kind is signal.SIGINT else -signal.SIGKILL)
    assert time.monotonic() - start < 2.0
    lines = (tmp_path / "out/a.jsonl").read_text().splitlines(keepends=True)
    assert all(line.endswith("}\n") for line in lines)
    for index, name in enumerate(("a.mkv", "a.mp4")):
        with av.open(tmp_path / "out" / name) as video:
            shown = [frame.time for frame in video.decode(video=0)]
        if kind is signal.SIGINT:
            assert [len(shown), len(lines)] == [written[index], written[2]]  # what a busy machine dropped, it counted
            assert len(shown) > 0.5 * len(lines)
        else:
            # A cluster of a second may be lost, of frames every 20 ms, and nothing more.
            assert len(lines) - len(shown) <= 60
            assert len(shown) >= 20
        assert shown == sorted(set(shown))


def states(count, blind, state=State.FFC):
    return [replace(one, state=state if one.seq in blind else State.LIVE) for one in frames(count)]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("state", [State.FFC, State.FROZEN])
def test_the_class_map_is_held_while_the_shutter_is_closed(runtime, live, state):
    sink, counted = MemorySink(), SlowRuntime(runtime, seconds=0.001, concurrency=2)
    camera = MemoryCamera(states(30, range(10, 20), state), live=live, period_s=0.01 if live else 0)
    totals = stream(camera, counted, MANIFEST, ports(sink))
    held = [result for result in sink.results if result.held]
    assert {result.frame.seq for result in held} <= set(range(10, 20)) and len(held) == totals.held > 5
    before = max((one for one in sink.results if one.frame.seq < 10), key=lambda one: one.frame.seq)
    for result in held:
        assert result.frame.state is state
        np.testing.assert_array_equal(result.class_map, before.class_map)
    assert totals.inferred == totals.written and closes(totals)


def test_a_stream_that_begins_with_a_closed_shutter_has_no_map_to_hold(runtime):
    sink = MemorySink()
    stream(MemoryCamera(states(6, range(3))), runtime, MANIFEST, ports(sink))
    assert [result.held for result in sink.results] == [False, True, True, False, False, False]
    assert sink.results[0].frame.state is State.FFC


def test_another_frame_size_is_not_covered_by_an_old_map(runtime):
    sink = MemorySink()
    grown = [replace(one, counts=np.ascontiguousarray(one.counts[:60, :80]), seq=one.seq + 5) for one in frames(3)]
    grown[0] = replace(grown[0], state=State.FFC)
    stream(MemoryCamera([*frames(5), *grown]), runtime, MANIFEST, ports(sink))
    assert [result.class_map.shape for result in sink.results] == [(120, 160)] * 5 + [(60, 80)] * 3
    assert not any(result.held for result in sink.results)


def test_a_still_scene_is_inferred_once_a_second(runtime):
    class Stamped(MemoryCamera):
        def __iter__(self):
            yield from self._frames

    still = [replace(one, counts=frames(1)[0].counts, t_ns=one.seq * 100_000_000) for one in frames(30)]
    counted, sink = SlowRuntime(runtime, seconds=0.0), MemorySink()
    totals = stream(Stamped(still), counted, MANIFEST, ports(sink), gate=Gate(1.0))
    assert counted.calls == 3
    assert (totals.inferred, totals.held, totals.written) == (30, 27, 30)
    assert [one.frame.seq for one in sink.results if not one.held] == [0, 10, 20]


def test_results_say_whose_they_are_and_when_they_come_too_late(runtime):
    sink = MemorySink()
    camera = MemoryCamera(frames(8), live=True, period_s=0.05)
    slow = SlowRuntime(runtime, seconds=0.04)
    stream(camera, slow, MANIFEST, ports(sink))
    assert {one.camera for one in sink.results} == {camera.name}
    assert {one.frame.state for one in sink.results} == {State.LIVE}
    hasty = Budget(slack_s=-60.0)  # what comes at once comes too late
    late = MemorySink()
    stream(MemoryCamera(frames(8), live=True, period_s=0.05), slow, MANIFEST, ports(late), budget=hasty)
    assert {one.frame.state for one in late.results} == {State.STALE}


def test_every_frame_reaches_the_recorder_also_those_nobody_segments(runtime):
    class Recorder(MemorySink):
        def write(self, frame):
            self.results.append(frame)

    recorder, sink = Recorder("rec"), MemorySink()
    camera = MemoryCamera(frames(60), live=True, period_s=0.004)
    totals = stream(camera, SlowRuntime(runtime, seconds=0.03), MANIFEST, ports(sink), recorders=ports(recorder))
    assert [one.seq for one in recorder.results] == list(range(60))
    assert totals.written < 40 and closes(totals)
    assert [status.name for status in totals.sinks] == [sink.name, "rec"]


def test_regions_are_numbered_and_results_watched_in_order(runtime):
    seen, sink = [], MemorySink()
    quick = SlowRuntime(runtime, seconds=0.002, concurrency=4, jitter=np.random.default_rng(0))
    scene = Scene(rules=(parse_rule("hot max > 30 C", CLASSES, (), name="hot"),))
    camera = MemoryCamera(frames(40))
    stream(camera, quick, MANIFEST, ports(sink), scene=scene, watch=lambda one: seen.append(one.frame.seq))
    assert seen == list(range(40))
    assert all(region.number > 0 for one in sink.results for region in one.regions)
    assert {alarm.name for one in sink.results for alarm in one.alarms} == {"hot"}


def test_two_cameras_share_a_model_and_neither_starves(runtime):
    slow, turns = SlowRuntime(runtime, seconds=0.02), Turns(1)
    sinks = [MemorySink("a"), MemorySink("b")]
    cameras = [
        MemoryCamera(frames(1000), live=True, period_s=0.001),
        MemoryCamera(frames(60), live=True, period_s=0.02),
    ]
    totals = {}

    def run(index):
        totals[index] = stream(cameras[index], slow, MANIFEST, ports(sinks[index]), turns=turns, frames=12)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slow.most == 1
    assert all(closes(totals[index]) for index in range(2))
    assert [len(sink.results) for sink in sinks] == [12, 12]
    hurried, calm = (sink.results for sink in sinks)
    before = [sum(one.frame.t_ns < other.done_ns < one.done_ns for other in hurried) for one in calm]
    assert max(before) <= 2  # of every frame: the call that runs when it comes, and one that was waiting
    # Frames of the camera that is not in a hurry are as old as a period and two calls of the model; a busy machine's
    # scheduling may hold single ones up.
    assert statistics.median(one.age_ms for one in calm) < 20 + 2 * 20 + 60


def test_a_live_stream_outlives_its_only_sink(runtime, caplog):
    flaky = MemorySink(fail_at=3, error=StorageError("The disk is full"))
    opened = []

    def reopen():
        opened.append(MemorySink("again"))
        return opened[-1]

    camera = MemoryCamera(frames(60), live=True, period_s=0.02)
    hasty = Budget(sink_retry_s=(0.1, 0.2))
    totals = stream(camera, runtime, MANIFEST, [Port("flaky", reopen, flaky)], budget=hasty)
    (status,) = totals.sinks
    assert (status.failures, status.running, len(opened)) == (1, True, 1)
    assert len(flaky.results) == 3 and len(opened[0].results) > 30
    assert status.written == totals.written and status.dropped >= 1 and closes(totals)


def test_a_model_that_hangs_gives_no_sign_of_life(runtime):
    reports = []

    class Hanging(SlowRuntime):
        def __call__(self, picture):
            time.sleep(2.5)
            return super().__call__(picture)

    camera = MemoryCamera(frames(3), live=True, period_s=0.01)
    stream(
        camera,
        Hanging(runtime, seconds=0),
        MANIFEST,
        [],
        report=reports.append,
        budget=Budget(inference_s=0.5),
        frames=1,
    )
    assert [round(one.seconds) for one in reports if one.seconds < 2] == []


def test_waiting_for_the_last_results_after_a_stop_costs_no_processor(runtime):
    stop = threading.Event()
    camera = MemoryCamera(frames(40), live=True, period_s=0.02)
    threading.Timer(0.1, stop.set).start()
    begin = time.thread_time()
    stream(camera, SlowRuntime(runtime, seconds=0.7), MANIFEST, ports(MemorySink()), stop=stop)
    assert time.thread_time() - begin < 0.25
