"""SIGTERM with every sink on: exit code 0 in less than 2 s, every file closed, the broker told."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import time

import pytest
from services import free_port, mosquitto, needs, wait_for
from streams import Streaming, count, lines, make_bundle

from edgeunip.budget import BUDGET
from edgeunip.devices.open import open_camera

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def broker(tmp_path):
    needs("mosquitto", "mosquitto_sub", "ffprobe")
    with mosquitto(tmp_path) as broker:
        yield broker


def sinks(broker, web):
    wanted = ("jsonl:out.jsonl", "video:out.mkv", "record:raw.mkv", f"web:{web}", f"mqtt:127.0.0.1:{broker.port}/yard")
    return list(itertools.chain.from_iterable(("--sink", one) for one in wanted))


def one_round(folder, bundle, broker, number, seconds):
    """Stream for a while, stop, and look at everything that was left behind."""
    heard = folder / "heard.txt"
    folder.mkdir()
    listen = ["mosquitto_sub", "-p", str(broker.port), "-t", "yard/status", "-v", "-R"]
    with heard.open("wb") as out:
        listener = subprocess.Popen(listen, stdout=out)
    try:
        words = ["synthetic://tc001", "--model", bundle, *sinks(broker, free_port())]
        with Streaming(folder, *words) as stream:
            stream.wait_until_it_says("Streaming ")
            wait_for(lambda: (folder / "out.jsonl").stat().st_size, 20, "the first line")
            time.sleep(seconds)
            code, took_s = stream.stop(number)
            said = stream.said
        wait_for(lambda: heard.read_text().endswith("yard/status offline\n"), 5, "offline")
    finally:
        listener.kill()
        listener.wait()
    assert code == 0, said
    assert took_s < BUDGET.stop_s, said
    assert "Traceback" not in said and "error" not in said, said
    found = lines(folder / "out.jsonl")
    assert [line["seq"] for line in found] == sorted({line["seq"] for line in found}) and found
    assert count(folder / "out.mkv") > 0
    with open_camera(str(folder / "raw.mkv")) as recording:
        recorded = [frame.seq for frame in recording]
    assert len(recorded) >= len(found), "every captured frame is recorded"
    assert not [path.name for path in folder.iterdir() if "partial" in path.name]
    return took_s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_each_signal(number, tmp_path, bundle, broker):
    if number is signal.SIGHUP:
        with Streaming(tmp_path / "x", "synthetic://lepton", "--model", bundle, "--sink", "jsonl:out.jsonl") as stream:
            stream.wait_until_it_says("Streaming ")
            stream.process.send_signal(number)
            stream.wait_until_it_says("nothing is reloaded")
            assert stream.stop()[0] == 0
        return
    one_round(tmp_path / "x", bundle, broker, number, 0.5)


def test_five_rounds(tmp_path, bundle, broker):
    chance = random.Random(5)
    for number in range(5):
        one_round(tmp_path / str(number), bundle, broker, signal.SIGTERM, chance.uniform(0, 1.5))


@pytest.mark.slow
def test_fifty_rounds(tmp_path, bundle, broker):
    chance = random.Random(50)
    took = [one_round(tmp_path / str(n), bundle, broker, signal.SIGTERM, chance.uniform(0, 2)) for n in range(50)]
    print(f"\n50 of 50 ended well; the slowest in {max(took):.2f} s, the median in {sorted(took)[25]:.2f} s")


def test_negative_control_a_killed_stream_leaves_what_the_checks_find(tmp_path, bundle, broker):
    with pytest.raises(AssertionError):
        one_round(tmp_path / "x", bundle, broker, signal.SIGKILL, 0.5)


def test_a_camera_that_never_comes_ends_as_fast(tmp_path, bundle):
    words = ["unix:/nonexistent/cam.sock", "--model", bundle, "--sink", "jsonl:out.jsonl"]
    with Streaming(tmp_path, *words) as stream:
        stream.wait_until_it_says("Streaming ")
        time.sleep(1)
        code, took_s = stream.stop()
    assert code == 0 and took_s < BUDGET.stop_s, stream.said


def test_too_much_memory_ends_in_order_for_the_supervisor_to_start_anew(tmp_path, bundle):
    words = ["synthetic://lepton", "--model", bundle, "--sink", "jsonl:out.jsonl", "--sink", "record:raw.mkv"]
    with Streaming(tmp_path, *words, "--max-memory", 20) as stream:
        assert stream.process.wait(30) == 75, stream.said
    assert "more than the 20 it may" in stream.said and "Traceback" not in stream.said
    assert lines(tmp_path / "out.jsonl") and count(tmp_path / "raw.mkv") > 0
