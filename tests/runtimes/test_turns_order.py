import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.runtimes.order import InOrder
from edgeunip.runtimes.turns import Turns


@pytest.mark.parametrize("places", [1, 3])
def test_no_more_than_the_places_are_inside(places):
    turns, inside, most, lock = Turns(places), 0, 0, threading.Lock()

    def work():
        nonlocal inside, most
        for _ in range(50):
            with turns:
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.0002)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, places)


def _rounds(turns):
    """How often each of three greedy users came in while every one of them wanted to."""
    counts, stop = [0, 0, 0], threading.Event()

    def work(index):
        while not stop.is_set():
            with turns:
                counts[index] += 1
                time.sleep(0.002)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    stop.set()
    for thread in threads:
        thread.join()
    return counts


def test_turns_are_fair():
    counts = _rounds(Turns(1))
    assert max(counts) - min(counts) <= 2 and min(counts) > 20


def test_a_semaphore_is_not():
    """The negative control: who has just left comes in again before the others wake up."""
    counts = _rounds(threading.Semaphore(1))
    assert max(counts) > 3 * (min(counts) + 1)


def test_a_turn_is_given_back_after_an_error():
    turns = Turns(1)
    with pytest.raises(ValueError, match="x"), turns:
        raise ValueError("x")
    with turns:
        pass


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)))
def test_results_come_in_order_whatever_finishes_first(finished, failed):
    handed = []
    order = InOrder(handed.append)
    through = [order.put(place, None if place in failed else place) for place in finished]
    assert handed == [place for place in range(12) if place not in failed]
    assert sum(through) == 12
