import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip.errors import SinkError, StorageError
from edgeunip.runtimes.spool import Spool


def fill(spool, numbers):
    for number in numbers:
        spool.put("t", str(number))


def drain(spool, most=10**9, *, arrived=True):
    found = []
    while len(found) < most and (message := spool.take()) is not None:
        found.append(int(message.payload))
        if arrived:
            spool.done(message.number)
    return found


@pytest.mark.parametrize("on_disk", [True, False])
def test_first_in_first_out(tmp_path, on_disk):
    spool = Spool(tmp_path if on_disk else None)
    fill(spool, range(100))
    assert spool.waiting == 100
    assert drain(spool, 60) == list(range(60))
    fill(spool, range(100, 150))
    assert drain(spool) == list(range(60, 150))
    assert (spool.waiting, spool.dropped, spool.take()) == (0, 0, None)
    spool.close()
    spool.close()


def test_what_has_not_arrived_outlives_the_process(tmp_path):
    spool = Spool(tmp_path)
    fill(spool, range(50))
    assert drain(spool, 20) == list(range(20))
    assert drain(spool, 5, arrived=False) == list(range(20, 25))
    spool.close()
    later = Spool(tmp_path)
    assert later.waiting == 30
    fill(later, [50])
    assert drain(later) == list(range(20, 51))
    later.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_what_a_later_process_sends_is_not_sent_again(tmp_path):
    spool = Spool(tmp_path)
    fill(spool, range(50))
    spool.close()
    for first in (0, 20, 40):
        later = Spool(tmp_path)
        assert drain(later, 20) == list(range(first, min(first + 20, 50)))
        later.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_the_oldest_go_and_are_counted(tmp_path):
    spool = Spool(tmp_path, limit=20_000)
    fill(spool, range(2000))
    size = sum(path.stat().st_size for path in tmp_path.glob("*.jsonl"))
    assert 15_000 < size <= 20_000
    dropped = spool.dropped
    assert dropped + spool.waiting == 2000
    assert drain(spool) == list(range(dropped, 2000))
    spool.close()


def test_in_memory_a_thousand_wait():
    spool = Spool(None)
    fill(spool, range(1500))
    assert (spool.waiting, spool.dropped) == (1000, 500)
    assert drain(spool) == list(range(500, 1500))


def test_two_processes_do_not_share(tmp_path):
    spool = Spool(tmp_path)
    with pytest.raises(SinkError, match=r"^Another process uses this spool: .*\. Give each its own folder\.$"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"Cannot write: .*file"):
        Spool(tmp_path / "file" / "spool")


def test_a_full_disk_costs_nothing_while_memory_lasts(tmp_path, monkeypatch):
    from edgeunip import durable

    spool = Spool(tmp_path)
    fill(spool, range(10))
    full = [True]
    write = durable.Stream.write

    def failing(stream, data):
        if full[0]:
            write(stream, data[: len(data) // 2])
            raise StorageError("Cannot write", where=stream.path, why=os.strerror(errno.ENOSPC))
        return write(stream, data)

    monkeypatch.setattr(durable.Stream, "write", failing)
    fill(spool, range(10, 20))
    assert "No space left" in str(spool.trouble)
    full[0] = False
    fill(spool, range(20, 30))  # memory still holds older ones: order first
    assert drain(spool, 25) == list(range(25))
    assert drain(spool) == list(range(25, 30))
    fill(spool, range(30, 40))
    assert spool.trouble is None
    spool.close()
    again = Spool(tmp_path)
    assert (again.waiting, again.dropped) == (10, 0)
    assert drain(again) == list(range(30, 40))
    again.close()


_KILLED = """
import sys
from pathlib import Path
from edgeunip.runtimes.spool import Spool
spool = Spool(Path(sys.argv[1]))
for number in range(10**6):
    spool.put("t", str(number))
    print(number, flush=True)
"""


def test_a_kill_loses_nothing(tmp_path):
    for _ in range(3):
        command = [sys.executable, "-c", _KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            said = [process.stdout.readline() for _ in range(200)]
            process.send_signal(signal.SIGKILL)
            said += process.stdout.read().splitlines()
        spool = Spool(tmp_path)
        found = drain(spool)
        assert found == list(range(len(found)))
        assert len(found) in (len(said), len(said) + 1)
        spool.close()


@settings(max_examples=60, deadline=None)
@given(tail=st.binary(max_size=40), cut=st.integers(0, 200))
def test_a_torn_or_foreign_tail_is_passed_over(tmp_path_factory, tail, cut):
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder)
    fill(spool, range(5))
    spool.close()
    (path,) = folder.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)] + tail)
    again = Spool(folder)
    fill(again, [99])
    found = drain(again)
    again.close()
    assert found[-1] == 99
    kept = [number for number in found if number < 5]
    assert kept[: len(found) - 1] == list(range(len(kept)))
    if cut == 0 and b"\n" not in tail:
        assert kept == list(range(5))


@pytest.mark.parametrize("line", [b"6", b"[1]", b"null", b'"n"', b"\xff", b"[" * 100_000])
def test_a_foreign_line_is_passed_over(tmp_path, line):
    (tmp_path / "000000000001.jsonl").write_bytes(line + b"\n" + b'{"n":1,"topic":"t","payload":"7"}\n')
    spool = Spool(tmp_path)
    assert drain(spool) == [7]
    spool.close()


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(["put", "take", "arrive", "restart"]), max_size=80))
def test_like_a_list(tmp_path_factory, steps):
    """At least once and in order: after a restart all that had not arrived comes again, and nothing else."""
    folder = tmp_path_factory.mktemp("spool")
    spool, put, taken, arrived = Spool(folder, limit=4_000), 0, [], -1
    for step in steps:
        if step == "put":
            spool.put("t", str(put))
            put += 1
        elif step == "take":
            message = spool.take()
            assert (message is None) == (len(taken) == put)
            if message is not None:
                assert int(message.payload) == (taken[-1][1] + 1 if taken else 0)
                taken.append((message.number, int(message.payload)))
        elif step == "arrive" and taken:
            spool.done(taken[-1][0])
            arrived = taken[-1][1]
        elif step == "restart":
            spool.close()
            spool = Spool(folder, limit=4_000)
            # Nothing that was on its way then arrives now: numbers begin anew where all had arrived.
            taken = [(0, payload) for _, payload in taken if payload <= arrived]
    assert spool.dropped == 0
    assert drain(spool) == list(range(taken[-1][1] + 1 if taken else 0, put))
    spool.close()


def test_arrivals_are_noted_every_second_at_most(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    fill(spool, range(1000))
    drain(spool, 500)
    notes = [line for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines() if "done" in line]
    assert len(notes) <= 3
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 2)
    drain(spool, 1)
    lines = [json.loads(line) for path in tmp_path.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert max(line.get("done", 0) for line in lines) == 501
    spool.close()
