"""Hostile clients against a page in a process of its own: a viewer must not notice, and memory must not grow."""

import http.client
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from web_client import Viewer, all_of, ask, eventually, exchange, get, port_of

STALLED, SLOW = 64, 200
MIB = 2**20


@contextmanager
def page(mode):
    script = Path(__file__).with_name("web_process.py")
    command = [sys.executable, str(script), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield SimpleNamespace(url=process.stdout.readline().strip(), pid=process.pid)
            process.communicate(timeout=10)
        finally:
            process.kill()


def rss(page):
    """Resident memory in MiB."""
    return int(Path(f"/proc/{page.pid}/statm").read_text().split()[1]) * 4096 / MIB


def watched(page, seconds):
    """The share of the frames of so many seconds that a viewer gets."""
    with Viewer(page) as viewer:
        first = last = viewer.next()["seq"]
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            last, count = viewer.next()["seq"], count + 1
    return count / (last - first)


def slowly(page):
    """A client that sends its header a byte at a time, and never ends it."""
    raw = socket.create_connection(("127.0.0.1", port_of(page)), 5)
    raw.sendall(b"GET / HTTP/1.1\r\nX: ")
    return raw


@contextmanager
def attacked(page):
    """64 clients that stall and 200 that never end their header, until the block ends; yields the slow ones."""
    with ExitStack() as stack:
        # They take the stream's places one after the other, as they are thrown out of them.
        for _ in range(STALLED):
            stack.enter_context(ask(page, receive_buffer=4096))
        slow = [stack.enter_context(slowly(page)) for _ in range(SLOW)]
        stop = threading.Event()

        def drip():
            while not stop.wait(0.3):
                for raw in slow:
                    with suppress(OSError):  # cut off, as it should be
                        raw.send(b"a")

        thread = threading.Thread(target=drip)
        thread.start()
        yield slow
        stop.set()
        thread.join()


def measure(page):
    """(share of frames seen, growth of memory in MiB, slow clients that are still there) under attack."""
    watched(page, 0.5)  # what a first viewer costs once is no growth
    before = rss(page)
    with Viewer(page) as early:  # holds its place, as somebody who was there before the attack
        early.next()
        with attacked(page) as slow:
            end, first = time.monotonic() + 4, early.next()["seq"]
            seen, most = [first], before
            while time.monotonic() < end:
                seen.append(early.next()["seq"])
                most = max(most, rss(page))
            share = (len(seen) - 1) / (seen[-1] - first)
            left = sum(not ended(raw) for raw in slow)
    return share, most - before, left


def ended(raw):
    raw.setblocking(False)
    try:
        return raw.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_viewer_notices_nothing_and_memory_stays():
    with page("limited") as attacked_page:
        share, growth, left = measure(attacked_page)
        print(f"{100 * share:.1f} % of the frames, {growth:+.1f} MiB, {left} of {SLOW} slow clients left")
        assert share >= 0.95
        assert growth < 10
        assert left == 0
        assert get(attacked_page)[0] == 200


def test_negative_control_without_limits_memory_grows_and_they_stay():
    with page("unlimited") as attacked_page:
        share, growth, left = measure(attacked_page)
        print(f"{100 * share:.1f} % of the frames, {growth:+.1f} MiB, {left} of {SLOW} slow clients left")
        assert growth > 10
        assert left == SLOW


def test_beyond_the_maximum_is_told():
    with page("limited") as full, ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(full)) for _ in range(17)]
        assert [viewer.status for viewer in viewers] == [200] * 16 + [503]


@pytest.fixture(scope="module")
def victim():
    with page("limited") as victim:
        yield victim


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 2000,
        b"GET /stream?camera=" + b"9" * 4000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /celsius?at=%ff%fe,1 HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n" + b"a" * 70000,
        b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFF\r\n" + b"a" * 70000,
        b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
        bytes(range(256)) * 64,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    ],
)
def test_what_is_no_honest_request_ends_in_a_refusal(victim, raw):
    assert exchange(victim, raw)[:10] in (b"HTTP/1.1 4", b"")
    assert get(victim)[0] == 200


def test_six_hundred_connections_at_once_leave_the_page_standing(victim):
    with Viewer(victim) as viewer, ExitStack() as stack:
        first = viewer.next()["seq"]
        for _ in range(600):
            with suppress(OSError):  # refused: that is one way to survive
                raw = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(victim)), 1))
                raw.sendall(b"G")
        assert viewer.next()["seq"] > first

    def serves():
        try:
            return get(victim)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    eventually(serves)


def test_a_connection_that_is_half_closed_ends(victim):
    with socket.create_connection(("127.0.0.1", port_of(victim)), 5) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost:")
        raw.shutdown(socket.SHUT_WR)
        all_of(raw)
