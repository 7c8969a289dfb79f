"""What scripts and the page ask for: temperatures, status and history, metrics, health."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_results import CLASSES, made
from prometheus_client.parser import text_string_to_metric_families
from web_client import Viewer, get

from edgeunip.budget import BUDGET
from edgeunip.frame import Alarm, ClassStatistics, State
from edgeunip.health import Board, CameraStatus, SinkStatus, Totals
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.web.history import AlarmLog, History
from edgeunip.runtimes.web.sink import WebSink

CAMERAS = ("hall", "rtsp://user:canary-7@gate/stream?token=canary-7")
NS = 10**9


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def sink(board):
    sink = WebSink(0, Setting(CLASSES, CAMERAS, None, board))
    yield sink
    sink.close()


def show(sink, result, camera=0):
    """Write a result and watch it, as a page does."""
    sink.write(replace(result, camera=CAMERAS[camera]))
    with Viewer(sink, camera=camera) as viewer:
        assert viewer.next()["seq"] == result.frame.seq


def ask(sink, path):
    status, headers, body = get(sink, path)
    assert (status, headers["content-type"]) == (200, "application/json"), body
    return json.loads(body)


# ---- degC


def test_a_temperature_is_the_frames_own(sink):
    result = made(seq=5)
    show(sink, result)
    celsius = result.frame.radiometry.celsius(result.frame.counts)
    points = [(0, 0), (159, 119), (120, 84), (44, 70)]
    answer = ask(sink, "/celsius?camera=0&seq=5" + "".join(f"&at={x},{y}" for x, y in points))
    assert answer["seq"] == 5
    assert answer["celsius"] == [float(celsius[y, x]) for x, y in points]
    hottest = result.classes["machine"]
    x, y = hottest.hotspot
    assert ask(sink, f"/celsius?seq=5&at={x},{y}")["celsius"] == [hottest.max_c]


def test_the_frame_that_is_shown_answers_not_the_newest(sink):
    for seq in range(8):
        show(sink, made(seq=seq))
    x, y = 40, 60  # where the person walks by
    for seq in range(8):
        frame = made(seq=seq).frame
        answer = ask(sink, f"/celsius?seq={seq}&at={x},{y}")
        assert answer == {"seq": seq, "celsius": [float(frame.radiometry.celsius(frame.counts)[y, x])]}


def test_a_frame_that_has_gone_is_answered_by_the_newest(sink):
    for seq in range(12):
        show(sink, made(seq=seq))
    assert ask(sink, "/celsius?seq=2&at=1,1")["seq"] == 11
    assert ask(sink, "/celsius?seq=4&at=1,1")["seq"] == 4


def test_what_has_no_temperature_is_null(sink):
    assert ask(sink, "/celsius?seq=0&at=0,0")["celsius"] == [None]  # no frame yet
    show(sink, made(seq=1))
    assert ask(sink, "/celsius?seq=1&at=160,0&at=0,120&at=159,119")["celsius"][:2] == [None, None]
    show(sink, made(seq=2, state=State.FFC))
    assert ask(sink, "/celsius?seq=2&at=0,0")["celsius"] == [None]
    show(sink, made(seq=3, radiometry=None))
    assert ask(sink, "/celsius?seq=3&at=0,0")["celsius"] == [None]


def test_each_camera_answers_for_itself(sink):
    show(sink, made(seq=1), 0)
    show(sink, made(seq=70), 1)
    assert ask(sink, "/celsius?camera=1&seq=70&at=3,3")["seq"] == 70
    assert ask(sink, "/celsius?camera=0&seq=70&at=3,3")["seq"] == 1


@pytest.mark.parametrize(
    "query",
    [
        "", "?at=", "?at=1", "?at=1,2,3", "?at=-1,2", "?at=1.5,2", "?at=x,y", "?seq=x&at=1,1", "?camera=2&at=1,1",
        "?camera=-1&at=1,1", "?camera=&at=1,1", "?at=1,1" + "&at=1,1" * 8, "?at=" + "9" * 40 + ",1",
        "?at=1,1&seq=%ff", "?at=%d9%a1,1", "?camera=%d9%a1&at=1,1",
    ],
)  # fmt: skip
def test_a_wrong_question_is_refused(sink, query):
    show(sink, made())
    status, _, body = get(sink, "/celsius" + query)
    assert (status, body) == (400, b"Ask for ?camera=NUMBER&seq=NUMBER&at=X,Y with 1 to 8 points.\n")
    sink.write(replace(made(), camera="hall"))  # and harms nobody


def test_questions_are_throttled(sink):
    show(sink, made())
    found = {get(sink, "/celsius?at=1,1")[0] for _ in range(100)}
    for _ in range(400):
        status = get(sink, "/celsius?at=1,1")[0]
        if status == 429:
            break
    assert found <= {200, 429}
    # A client that takes 10 ms a question is never throttled: then there is nothing to see here.
    if status == 429:
        assert get(sink, "/healthz")[0] == 503
        time.sleep(0.1)
        assert get(sink, "/celsius?at=1,1")[0] == 200


# ---- status and history


def status(state=State.LIVE, reason="frame", message=""):
    return CameraStatus(state, reason, message, time.monotonic_ns() - 3 * NS, 2, {"stall": 3})


def test_status_tells_health_alarms_and_history(sink, board):
    totals = Totals(100, 3, 1, 97, 2, 96, 10.0, (41.0, 63.0), (SinkStatus("jsonl:-", False, "Gone", 5, 2, 1),))
    board.put("hall", status=status(), totals=totals, warnings={"histogram": "Hotter than calibrated."})
    alarm = Alarm("machine max > 55 C", "machine", time.monotonic_ns() - 2 * NS, 59.75, "C", (120, 84), 4)
    result = replace(made(seq=1), alarms=(alarm,))
    show(sink, result)
    told = ask(sink, "/status.json")
    hall, gate = told["cameras"]
    assert (hall["camera"], hall["ok"], hall["status"]["state"], hall["status"]["since_s"]) == (
        "hall",
        False,
        "live",
        3.0,
    )
    assert hall["totals"]["captured"] == 100
    assert hall["totals"]["sinks"][0]["message"] == "Gone"
    assert hall["warnings"] == {"histogram": "Hotter than calibrated."}
    assert (gate["camera"], gate["status"]["reason"]) == ("rtsp://***@gate/stream?***", "starting")
    (raised,) = told["alarms"]["raised"]
    assert abs(raised.pop("began_s") - (time.time() - 2)) < 1
    assert raised == {
        "key": f"hall machine {alarm.since_ns}",
        "camera": "hall",
        "name": "machine",
        "rule": "machine max > 55 C",
        "unit": "C",
        "region": 4,
        "value": 59.75,
        "peak": 59.75,
        "ended_s": None,
    }
    assert told["alarms"]["past"] == []
    history = told["history"]
    assert history["classes"] == list(CLASSES.names)
    ((second, highest, mean),) = history["samples"]
    assert second == result.done_ns // NS
    assert highest == [round(one.max_c, 2) for one in result.classes.values()]
    assert mean == [round(one.mean_c, 2) for one in result.classes.values()]


def test_credentials_of_a_camera_are_nowhere(sink, board):
    said = "Cannot open rtsp://user:canary-7@gate/x?password=canary-7"
    sinks = (SinkStatus("rtsp://me:canary-7@host/x", False, said),)
    board.put(CAMERAS[1], status=status(message=said), totals=Totals(sinks=sinks), warnings={"x": said})
    show(sink, made(seq=1), 1)
    for path in ("/status.json", "/metrics", "/healthz", "/"):
        assert b"canary-7" not in get(sink, path)[2]
    with Viewer(sink, camera=1) as viewer:
        assert "canary-7" not in json.dumps(viewer.next())


def test_only_what_is_new_is_told_again(sink):
    first = made(seq=1)
    for number in range(5):
        sink.write(replace(first, done_ns=first.done_ns - (4 - number) * NS, camera="hall"))
    seconds = [sample[0] for sample in ask(sink, "/status.json")["history"]["samples"]]
    last = first.done_ns // NS
    assert seconds == [last - 4, last - 3, last - 2, last - 1, last]
    newer = ask(sink, f"/status.json?since={last - 1}")["history"]["samples"]
    assert [sample[0] for sample in newer] == [last - 1, last]
    assert ask(sink, "/status.json?camera=1")["history"]["samples"] == []


@pytest.mark.parametrize("query", ["?camera=9", "?since=x", "?since=-1", "?since=1e9", "?camera=1x"])
def test_a_wrong_status_question_is_refused(sink, query):
    assert get(sink, "/status.json" + query)[:3:2] == (400, b"Ask for ?camera=NUMBER&since=SECOND.\n")


def test_a_second_keeps_its_highest():
    history = History()
    base = made()
    for celsius, half in ((30.0, 0), (45.0, 1), (None, 1), (20.0, 2)):
        found = {"a": ClassStatistics(0, 0.0, None, celsius, celsius)}
        now = time.monotonic_ns() // NS * NS
        history.add(replace(base, classes=found, done_ns=now + half * NS // 2 - 5 * NS))
    first, second = history.since(0)
    assert (first.highest, first.mean) == ((45.0,), (None,))
    assert (second.highest, second.second) == ((20.0,), first.second + 1)


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_history_is_in_order_and_never_older_than_ten_minutes(steps):
    history, base = History(), made(height=8, width=8)
    now = time.monotonic_ns() // NS
    seconds = sorted(now - step for step in steps)
    for second in seconds:
        history.add(replace(base, done_ns=second * NS))
    told = [sample.second for sample in history.since(0)]
    assert told == sorted({second for second in seconds if second >= time.monotonic_ns() // NS - 600})


def test_alarms_begin_peak_and_end():
    log, base = AlarmLog(), made(height=8, width=8)
    for value in (40.0, 44.0, 41.0):
        log.add(replace(base, alarms=(Alarm("rule", "hot", 5, value, "C"),)))
    raised, past = log.read()
    assert (len(raised), past) == (1, [])
    assert (raised[0].alarm.value, raised[0].peak, raised[0].ended_s) == (41.0, 44.0, None)
    log.add(base)
    raised, past = log.read()
    assert raised == []
    assert (past[0].peak, past[0].alarm.name) == (44.0, "hot")
    assert abs(past[0].ended_s - time.time()) < 1


def test_an_alarm_that_passes_from_region_to_region_is_one():
    log, base = AlarmLog(), made(height=8, width=8)
    for region in (1, 2, 1, 2):
        log.add(replace(base, alarms=(Alarm("rule", "hot", 5, 40.0, "C", region=region),)))
    raised, past = log.read()
    assert ([one.alarm.region for one in raised], past) == ([2], [])
    log.add(replace(base, alarms=(Alarm("rule", "hot", 6, 40.0, "C"),)))  # its end was not seen
    raised, past = log.read()
    assert (len(raised), len(past)) == (1, 1)


@pytest.mark.parametrize("days", [-30, 30])
def test_a_recording_of_another_time_is_shown_as_if_it_were_now(days):
    one = made(seq=3)
    moved = one.done_ns + days * 86400 * NS
    alarm = Alarm("rule", "hot", moved - 2 * NS, 40.0, "C")
    then = replace(one, frame=replace(one.frame, t_ns=one.frame.t_ns + days * 86400 * NS), done_ns=moved)
    sink = WebSink(0, Setting(CLASSES, ("hall",), rate_hz=9.0))
    try:
        sink.write(replace(then, camera="hall", alarms=(alarm,)))
        with Viewer(sink) as viewer:
            packet = viewer.next()
        assert packet["waited"] < 2000 and packet["age_ms"] == 42.0
        told = ask(sink, "/status.json")
        assert len(told["history"]["samples"]) == 1
        assert abs(told["alarms"]["raised"][0]["began_s"] - (time.time() - 2)) < 1
        assert any("celsius" in key[0] for key in metrics(sink))
    finally:
        sink.close()


def test_an_alarm_for_what_is_cold_peaks_downwards_and_the_log_is_bounded():
    log, base = AlarmLog(), made(height=8, width=8)
    for number in range(150):
        for value in (5.0, -3.0, 2.0):
            log.add(replace(base, alarms=(Alarm("rule", f"cold {number}", 5, value, "C"),)))
        log.add(base)
    past = log.read()[1]
    assert len(past) == 100
    assert (past[0].alarm.name, past[0].peak) == ("cold 149", -3.0)


# ---- metrics and health


def metrics(sink):
    status_, headers, body = get(sink, "/metrics")
    assert (status_, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = text_string_to_metric_families(body.decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_metrics_are_the_boards_and_the_results(sink, board):
    totals = Totals(100, 3, 1, 97, 2, 96, 10.0, (41.0, 63.0), (SinkStatus("jsonl:-", False, "Gone", 5, 2, 1),))
    board.put("hall", status=status(State.FFC, "shutter"), totals=totals, warnings={"histogram": "Hot"})
    alarms = tuple(Alarm("rule", "machine", 0, 60.0, "C", None, number) for number in (1, 2))
    result = replace(made(seq=1), alarms=alarms)
    show(sink, result)
    found = metrics(sink)
    expected = {
        ("edgeunip_frames_captured_total", "hall"): 100,
        ("edgeunip_frames_skipped_total", "hall"): 3,
        ("edgeunip_frames_lost_total", "hall"): 1,
        ("edgeunip_frames_inferred_total", "hall"): 97,
        ("edgeunip_frames_held_total", "hall"): 2,
        ("edgeunip_frames_written_total", "hall"): 96,
        ("edgeunip_latency_seconds", "0.5", "hall"): 0.041,
        ("edgeunip_latency_seconds", "0.99", "hall"): 0.063,
        ("edgeunip_camera_faults_total", "hall", "stall"): 3,
        ("edgeunip_camera_opened_total", "hall"): 2,
        ("edgeunip_warning", "hall", "histogram"): 1,
        ("edgeunip_sink_running", "hall", "jsonl:-"): 0,
        ("edgeunip_sink_troubled", "hall", "jsonl:-"): 1,
        ("edgeunip_sink_written_total", "hall", "jsonl:-"): 5,
        ("edgeunip_sink_dropped_total", "hall", "jsonl:-"): 2,
        ("edgeunip_sink_failures_total", "hall", "jsonl:-"): 1,
        ("edgeunip_alarms", "hall", "machine"): 2,
        ("edgeunip_class_celsius", "hall", "machine", "max"): result.classes["machine"].max_c,
        ("edgeunip_class_area_ratio", "hall", "person"): result.classes["person"].area,
        ("edgeunip_web_viewers_refused",): 0,
    }
    assert {key: found[key] for key in expected} == expected
    states = {
        key[-1] if key[-1] != "hall" else key[1]: value for key, value in found.items() if "camera_state" in key[0]
    }
    assert states == {state.value: float(state is State.FFC) for state in State}
    assert 1e7 < found[("edgeunip_resident_memory_bytes",)] < 1e10
    assert found[("edgeunip_open_files",)] > 3


def test_an_old_temperature_is_no_metric(sink):
    result = made(seq=1)
    sink.write(replace(result, camera="hall", done_ns=result.done_ns - 4 * NS))
    assert not any("celsius" in key[0] for key in metrics(sink))
    sink.write(replace(result, camera="hall", done_ns=result.done_ns))
    assert any("celsius" in key[0] for key in metrics(sink))


def test_viewers_are_counted(sink):
    with Viewer(sink), Viewer(sink):
        assert metrics(sink)[("edgeunip_web_viewers",)] == 2


@pytest.mark.parametrize("state", State)
def test_healthz_is_one_word(sink, board, state):
    board.put(CAMERAS[0], status=status(), totals=Totals())
    assert get(sink, "/healthz")[:3:2] == (503, b"degraded\n")  # the other camera is not known yet
    board.put(CAMERAS[1], status=status(state), totals=Totals())
    good = state in (State.LIVE, State.FFC, State.SETTLING)
    assert get(sink, "/healthz")[:3:2] == ((200, b"ok\n") if good else (503, b"degraded\n"))


def test_healthz_sees_a_failed_sink_and_a_hung_loop(sink, board, monkeypatch):
    for camera in CAMERAS:
        board.put(camera, status=status(), totals=Totals())
    assert get(sink, "/healthz")[0] == 200
    board.put("hall", totals=Totals(sinks=(SinkStatus("x", False, "Full"),)))
    assert get(sink, "/healthz")[0] == 503
    board.put("hall", totals=Totals())
    monkeypatch.setattr("edgeunip.runtimes.web.site.BUDGET", replace(BUDGET, watchdog_s=0.0))
    assert get(sink, "/healthz")[0] == 503


def test_a_nan_is_told_as_nothing(sink):
    result = made(seq=1)
    frame = replace(result.frame, counts=np.zeros_like(result.frame.counts))
    odd = replace(result.classes["person"], max_c=float("nan"), mean_c=float("inf"))
    alarm = Alarm("rule", "odd", 0, float("nan"), "C")
    result = replace(result, frame=frame, classes={**result.classes, "person": odd}, alarms=(alarm,))
    show(sink, result)
    told = ask(sink, "/status.json")
    assert told["history"]["samples"][0][1][1] is None
    assert told["alarms"]["raised"][0]["value"] is None
    assert ("edgeunip_class_celsius", "hall", "max", "person") not in metrics(sink)
