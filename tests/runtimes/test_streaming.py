"""The whole stream put together: cameras, model, sinks, scene, board."""

import fcntl
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from tiny_runtime import save_tiny

from edgeunip import streaming
from edgeunip.devices.open import open_camera
from edgeunip.errors import SinkError, SourceError, UsageError
from edgeunip.frame import State
from edgeunip.health import Board, CameraStatus, SinkStatus, Totals
from edgeunip.streaming import Options

LEPTON, BOSON = "synthetic://lepton?seed=1", "synthetic://tc001?seed=2"


@pytest.fixture
def model(tmp_path):
    return save_tiny(tmp_path / "tiny.bundle").path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_cameras_one_model_one_file(model, tmp_path):
    out = tmp_path / "all.jsonl"
    sinks = [f"jsonl:{out}", f"record:{tmp_path}/{{camera}}.mkv", f"video:{tmp_path}/{{camera}}-overlay.mkv"]
    totals = streaming.run([LEPTON, BOSON], model, sinks, Options(frames=6))
    assert totals.keys() == {LEPTON, BOSON}
    assert all(one.written == 6 and one.captured == one.written + one.skipped for one in totals.values())
    found = lines(out)
    for name in (LEPTON, BOSON):
        seqs = [line["seq"] for line in found if line["camera"] == name]
        assert len(seqs) == 6 and seqs == sorted(seqs)
    recordings = sorted(path.name for path in tmp_path.glob("synthetic*.mkv") if "overlay" not in path.name)
    assert [name.split("-seed")[0] for name in recordings] == ["synthetic-lepton", "synthetic-tc001"]
    with open_camera(str(tmp_path / recordings[0])) as camera:
        replayed = list(camera)
    assert len(replayed) >= 6 and replayed[0].radiometry is not None and replayed[0].counts.shape == (120, 160)


_BLOCKED = """
import sys
from pathlib import Path
from edgeunip import streaming
try:
    streaming.run(sys.argv[2:], Path(sys.argv[1]), ["jsonl:-"], streaming.Options(frames=12))
except Exception as error:
    sys.stderr.write(str(error))
"""


def test_a_shared_sink_that_hangs_does_not_hold_up_the_end(model):
    command = [sys.executable, "-c", _BLOCKED, str(model), LEPTON, BOSON]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # full after a few lines, which nobody reads
        assert process.wait(30) == 0
        assert "The sink did not finish in time: jsonl:-" in process.stderr.read()


def test_a_recording_streams_as_the_camera_did(model, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    record = tmp_path / "rec.mkv"
    streaming.run([LEPTON], model, [f"jsonl:{first}", f"record:{record}"], Options(frames=8))
    streaming.run([str(record)], model, [f"jsonl:{second}"])
    live, again = ({line["seq"]: line for line in lines(path)} for path in (first, second))
    assert live.keys() <= again.keys()
    for seq in live:
        assert live[seq]["state"] == again[seq]["state"]
        assert sum(found["pixels"] for found in again[seq]["classes"].values()) == 120 * 160
    # The first frame has no tone before it: the very same picture, class map, temperatures.
    assert live[0]["classes"] == again[0]["classes"]


def test_alarms_of_a_scene_file(model, tmp_path):
    scene = tmp_path / "scene.toml"
    scene.write_text(
        "[areas.left]\npolygon = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\nrelative = true\n"
        '[[rules]]\nname = "warm"\nrule = "any max > -40 C"\n[[rules]]\nname = "never"\nrule = "hot max > 900 C"\n'
    )
    out = tmp_path / "alarms.jsonl"
    streaming.run([LEPTON], model, [f"jsonl:{out}"], Options(frames=4, scene=scene))
    found = lines(out)
    assert {alarm["name"] for alarm in found[-1]["alarms"]} == {"warm"}
    assert found[0]["areas"]["left"]["background"]["area"] <= 1.0


@pytest.mark.parametrize(
    ("sources", "sinks", "error", "part"),
    [
        ([LEPTON, LEPTON], ["jsonl:-"], UsageError, "named twice"),
        ([LEPTON, BOSON], ["record:one.mkv"], UsageError, "{camera}"),
        ([LEPTON], ["jsnol:x"], UsageError, "jsonl"),
        ([LEPTON], ["video:x.avi"], UsageError, ".mkv"),
        (["/nowhere/at/all.mkv"], ["jsonl:-"], SourceError, "cannot be opened"),
    ],
)
def test_what_is_wrong_from_the_start_is_one_line(model, sources, sinks, error, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=part) as caught:
        streaming.run(sources, model, sinks, Options(frames=2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sink", "part"), [("jsnol:x", "mean jsonl"), ("record:", "record:FILE.mkv"), ("web", "web:PORT")]
)
def test_a_sink_written_wrong_is_told_before_the_model_is_read(tmp_path, sink, part):
    with pytest.raises(UsageError, match=part):
        streaming.run([LEPTON], tmp_path / "no.bundle", [sink])


def test_a_taken_port_ends_the_stream_only_if_nothing_else_is_left(model, tmp_path, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = f"web:{taken.getsockname()[1]}"
        with pytest.raises(SinkError, match="Cannot serve"):
            streaming.run([LEPTON], model, [web], Options(frames=2))
        totals = streaming.run([LEPTON], model, [web, f"jsonl:{tmp_path}/a.jsonl"], Options(frames=3))[LEPTON]
    assert totals.written == 3 and len(lines(tmp_path / "a.jsonl")) == 3
    assert totals.failed_sinks and "Cannot serve" in caplog.text


def test_an_absent_camera_is_waited_for_or_not(model, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    path = tmp_path / "cam.sock"
    with pytest.raises(SourceError):
        streaming.run([f"unix:{path}"], model, [f"jsonl:{tmp_path}/a.jsonl"], Options(once=True))
    command = [sys.executable, "-m", "edgeunip.devices.fakecam", str(path), "--rate", "30"]
    started = []

    def begin_late():
        time.sleep(0.7)
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    late = threading.Thread(target=begin_late)
    late.start()
    try:
        totals = streaming.run([f"unix:{path}"], model, [f"jsonl:{tmp_path}/a.jsonl"], Options(frames=10))
    finally:
        late.join()
        started[0].terminate()
        started[0].communicate(timeout=5)
    (one,) = totals.values()
    assert one.written == 10
    assert f"unix:{path}: " in caplog.text


def test_channels_of_one_recorder_have_names_of_their_own():
    """What tells them apart stands behind the question mark, which is not shown."""
    addresses = [f"rtsp://me:{user}@nvr/cam?channel={channel}" for user in "ab" for channel in (1, 2)]
    cameras = streaming._cameras(addresses, Board(), Options())
    shown = "rtsp://***@nvr/cam?***"
    assert [camera.name for camera in cameras] == [shown, f"{shown} (2)", f"{shown} (3)", f"{shown} (4)"]
    with pytest.raises(UsageError, match=r"named twice: rtsp://\*\*\*@nvr"):
        streaming._cameras([*addresses, addresses[0]], Board(), Options())


def test_the_first_stream_that_fails_ends_the_others(model, tmp_path):
    damaged = tmp_path / "folder"
    damaged.mkdir()
    (damaged / "a.png").write_bytes(b"no picture")
    begin = time.monotonic()
    with pytest.raises(Exception, match=r"a\.png"):
        streaming.run([LEPTON, str(damaged)], model, [f"jsonl:{tmp_path}/a.jsonl"])
    assert time.monotonic() - begin < 20


def test_a_board_keeps_what_each_camera_does():
    board = Board()
    board.put("a", status=CameraStatus(State.LIVE, "frame"))
    board.put("b", warnings={"histogram": "another scene"})
    board.put("a", totals=Totals(captured=3, sinks=(SinkStatus("web", running=False, message="gone"),)))
    a, b = board.read()
    assert (a.camera, a.status.state, a.totals.captured, a.ok) == ("a", State.LIVE, 3, False)
    assert a.progress_ns > 0 and b.progress_ns == 0
    assert b.status.state is State.OFFLINE and not b.ok
    shown = json.loads(json.dumps(a.to_json()))
    assert (
        shown["status"]["state"] == "live" and shown["ok"] is False and shown["totals"]["sinks"][0]["message"] == "gone"
    )
    assert replace(a, totals=Totals()).ok


def test_a_shared_sink_that_opens_later_is_every_cameras(model, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = f"web:{taken.getsockname()[1]}"
        totals = streaming.run([LEPTON, BOSON], model, [web, f"jsonl:{tmp_path}/a.jsonl"], Options(frames=3))
    assert all(len(one.sinks) == 2 and len(one.failed_sinks) == 1 for one in totals.values())
