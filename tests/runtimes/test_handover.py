import threading

from hypothesis import given
from hypothesis import strategies as st

from edgeunip.runtimes.handover import Handover


def test_newest_drops_the_oldest_and_counts():
    handover = Handover(2, newest=True)
    for item in range(5):
        handover.put(item)
    assert (handover.offered, handover.dropped) == (5, 3)
    assert [handover.get(), handover.get()] == [3, 4]
    handover.close()
    handover.put(5)
    assert handover.get() is None
    assert (handover.offered, handover.taken, handover.dropped) == (6, 2, 4)


def test_waits_for_room_and_loses_nothing():
    handover = Handover(2, newest=False)
    writer = threading.Thread(target=lambda: [handover.put(item) for item in range(100)] and handover.close())
    writer.start()
    got = []
    while (item := handover.get()) is not None:
        got.append(item)
    writer.join(1)
    handover.close()
    assert got == list(range(100))
    assert handover.dropped == 0


def test_close_releases_a_waiting_writer():
    handover = Handover(1, newest=False)
    handover.put("first")
    writer = threading.Thread(target=handover.put, args=("second",))
    writer.start()
    handover.close(discard=True)
    writer.join(1)
    assert not writer.is_alive()
    assert (handover.offered, handover.taken, handover.dropped) == (2, 0, 2)


@given(st.lists(st.sampled_from(["put", "get", "close", "discard"]), max_size=60), st.integers(1, 4))
def test_counts_always_close(steps, capacity):
    handover = Handover(capacity, newest=True)
    expected: list[int] = []
    for number, step in enumerate(steps):
        if step == "put":
            handover.put(number)
            expected = expected if handover.closed else [*expected, number][-capacity:]
        elif step == "get":
            if not expected and not handover.closed:
                continue
            assert handover.get() == (expected.pop(0) if expected else None)
        else:
            handover.close(discard=step == "discard")
            expected = [] if step == "discard" else expected
        assert handover.offered == handover.taken + handover.dropped + len(expected)
