import itertools
import threading
import time
from dataclasses import replace

import pytest

from edgeunip.budget import BUDGET
from edgeunip.errors import SinkError
from edgeunip.runtimes.outlet import Outlet, Port

QUICK = replace(BUDGET, sink_retry_s=(0.02, 0.08), sink_slow_s=0.2)


class Memory:
    """A sink that keeps what it takes, and fails or hangs when told."""

    def __init__(self, *, fails=lambda item: False, name="memory"):
        self.name, self.fails = name, fails
        self.items = []
        self.closed = 0
        self.gate = threading.Event()
        self.gate.set()

    def write(self, item):
        self.gate.wait(20)
        if self.fails(item):
            raise SinkError("It fails", where=self.name, why=item)
        self.items.append(item)

    def close(self):
        self.closed += 1


def outlet(port, *, live, ended=None, **options):
    return Outlet(port, live=live, on_end=lambda outlet: ended and ended.set(), budget=QUICK, **options)


def until(condition, limit_s=10.0):
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def finish(one, *, discard=False):
    one.queue.close(discard=discard)
    one.join(10)
    assert one.ended


def closes(one):
    """At the end: offered == written + dropped."""
    return one.queue.offered == one.status.written + one.status.dropped


def put(one, item, written=lambda: None):
    one.queue.put((item, written))


def test_a_file_is_written_whole_and_in_order():
    sink, ended, told = Memory(), threading.Event(), []
    one = outlet(Port.of(sink), live=False, ended=ended)
    for item in range(100):
        put(one, item, lambda item=item: told.append(item))
    finish(one)
    assert sink.items == told == list(range(100)) and sink.closed == 1 and ended.is_set()
    status = one.status
    assert (status.name, status.running, status.message) == ("memory", True, "")
    assert (status.written, status.dropped, status.failures) == (100, 0, 0)
    assert one.error is None


def test_for_a_file_the_first_error_is_the_end(caplog):
    sink, opened = Memory(fails=lambda item: item == 3), []
    one = outlet(Port("memory", lambda: opened.append(1) or sink, sink), live=False)
    for item in range(20):
        put(one, item)
    one.join(10)
    assert one.ended and not opened and sink.items == [0, 1, 2] and sink.closed == 1
    assert str(one.error) == "It fails: memory (3)"
    assert (one.status.running, one.status.message, one.status.failures) == (False, "It fails: memory (3)", 1)
    assert closes(one)
    assert "The stream goes on without the sink memory. It fails: memory (3)" in caplog.text


def test_a_live_sink_is_opened_anew_after_growing_pauses(caplog):
    sinks, times = [], []

    def open_sink():
        times.append(time.monotonic())
        if len(times) < 5:
            raise SinkError("The broker is away", where="memory")
        sinks.append(Memory())
        return sinks[-1]

    first = Memory(fails=lambda item: item == 2)
    one = outlet(Port("memory", open_sink, first), live=True)
    for item in range(3):
        put(one, item)
        until(lambda: one.queue.taken == one.queue.offered)
    until(lambda: not one.status.running)
    put(one, "kept")
    until(lambda: one.status.written == 3)
    assert one.status.running and one.status.message == "" and one.error is None
    assert one.status.failures == 5
    assert first.items == [0, 1] and first.closed == 1 and sinks[0].items == ["kept"]
    pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert all(pause >= least for pause, least in zip(pauses, [0.04, 0.08, 0.08, 0.08], strict=False))
    assert "The sink memory works again" in caplog.text
    finish(one)
    assert closes(one) and one.status.dropped == 1


def test_a_live_sink_without_a_way_to_open_it_ends():
    one = outlet(Port.of(Memory(fails=lambda item: True)), live=True)
    put(one, 0)
    one.join(10)
    assert one.ended and str(one.error) == "It fails: memory (0)" and closes(one)


def test_what_comes_while_a_sink_is_off_is_counted_and_the_newest_is_kept():
    away = threading.Event()
    sink = Memory()

    def open_sink():
        if not away.is_set():
            raise SinkError("away", where="memory")
        return sink

    one = outlet(Port("memory", open_sink), live=True)
    for item in range(1000):
        put(one, item)
    assert one.status.dropped == 996
    away.set()
    until(lambda: one.status.written == 4)
    assert sink.items == [996, 997, 998, 999]
    finish(one)
    assert closes(one)


def test_the_stream_ends_at_once_while_a_sink_is_off():
    def open_sink():
        raise SinkError("away", where="memory")

    slow = replace(QUICK, sink_retry_s=(30.0, 30.0))
    one = Outlet(Port("memory", open_sink), live=True, on_end=lambda outlet: None, budget=slow)
    put(one, 0)
    until(lambda: not one.status.running)
    begun = time.monotonic()
    finish(one)
    assert time.monotonic() - begun < 5
    assert closes(one) and one.status.dropped == 1 and str(one.error) == "away: memory"


def test_a_hanging_sink_holds_up_nobody_and_says_so():
    sink = Memory()
    sink.gate.clear()
    one = outlet(Port.of(sink), live=True)
    begun = time.monotonic()
    for item in range(10_000):
        put(one, item)
    assert time.monotonic() - begun < 5
    until(lambda: not one.status.running)
    assert one.status.message.startswith("Slow: it has taken nothing for ")
    assert one.status.written == 0 and one.status.dropped >= 10_000 - 5
    waiting = one.queue.offered - one.status.written - one.status.dropped
    assert 4 <= waiting <= 5  # the queue, and the one in its hands
    sink.gate.set()
    until(lambda: one.status.running)
    finish(one)
    assert closes(one) and len(sink.items) == one.status.written


def test_an_error_while_closing_is_told(caplog):
    class Bad(Memory):
        def close(self):
            super().close()
            raise SinkError("The trailer cannot be written", where="memory")

    one = outlet(Port.of(Bad()), live=False)
    finish(one)
    assert str(one.error) == "The trailer cannot be written: memory" and not one.status.running
    # After a failed write, closing fails for the same cause: that is told once.
    one = outlet(Port.of(Bad(fails=lambda item: True)), live=False)
    put(one, 1)
    one.join(10)
    assert str(one.error) == "It fails: memory (1)" and one.status.failures == 1


def test_any_exception_of_a_live_sink_is_survived():
    class Broken(Memory):
        def write(self, item):
            raise ZeroDivisionError("a bug")

    good = Memory()
    one = outlet(Port("memory", lambda: good, Broken()), live=True)
    put(one, 0)
    until(lambda: not one.status.running)
    put(one, 1)
    until(lambda: good.items == [1])
    finish(one)
    assert closes(one)


def test_no_credential_in_a_status():
    def open_sink():
        raise SinkError("No route", where="rtsp://joe:s3cr3t@host/x")

    one = outlet(Port("rtsp://***@host/x", open_sink), live=True)
    until(lambda: not one.status.running)
    assert "s3cr3t" not in one.status.message and "host/x" in one.status.message
    finish(one)


@pytest.mark.parametrize("seed", range(3))
def test_the_sum_closes_whatever_fails(seed):
    import random

    rng = random.Random(seed)
    made = []

    def open_sink():
        if rng.random() < 0.3:
            raise SinkError("away", where="memory")
        made.append(Memory(fails=lambda item: rng.random() < 0.05))
        return made[-1]

    quick = replace(QUICK, sink_retry_s=(0.0005, 0.002))
    one = Outlet(Port("memory", open_sink), live=True, on_end=lambda outlet: None, budget=quick)
    for item in range(20_000):
        put(one, item)
        status = one.status
        assert one.queue.offered >= status.written + status.dropped
        if item % 50 == 0:
            time.sleep(0.0005)
    finish(one, discard=rng.random() < 0.5)
    taken = [item for sink in made for item in sink.items]
    assert closes(one) and one.queue.offered == 20_000
    assert taken == sorted(taken) and len(taken) == one.status.written > 100
    assert all(sink.closed == 1 for sink in made)
