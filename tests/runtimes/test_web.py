import http.client
import logging
import signal
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest
from live_results import CLASSES, made, noisy
from web_client import Viewer, all_of, ask, eventually, exchange, get, port_of

from edgeunip.errors import SinkError
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.web import server as http_server
from edgeunip.runtimes.web.sink import WebSink

SETTING = Setting(CLASSES)

ASSETS = {
    "/": "text/html; charset=utf-8",
    "/page.js": "text/javascript; charset=utf-8",
    "/stream.js": "text/javascript; charset=utf-8",
    "/picture.js": "text/javascript; charset=utf-8",
    "/cursor.js": "text/javascript; charset=utf-8",
    "/chart.js": "text/javascript; charset=utf-8",
    "/panels.js": "text/javascript; charset=utf-8",
    "/common.js": "text/javascript; charset=utf-8",
    "/page.css": "text/css; charset=utf-8",
    "/icon.svg": "image/svg+xml",
}


@pytest.fixture
def sink():
    sink = WebSink(0, SETTING)
    yield sink
    sink.close()


@pytest.fixture(scope="module")
def server():
    """A sink for tests that leave nothing behind."""
    sink = WebSink(0, SETTING)
    yield sink
    sink.close()


# ---- what is served


@pytest.mark.parametrize(("path", "kind"), ASSETS.items())
def test_page_and_assets(server, path, kind):
    status, headers, body = get(server, path)
    assert status == 200
    assert headers == {
        "content-type": kind,
        "content-length": str(len(body)),
        "content-security-policy": "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; "
        "style-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "connection": "close",
    }
    head_status, head_headers, nothing = get(server, path, "HEAD")
    assert (head_status, head_headers, nothing) == (200, headers, b"")


def test_the_page_loads_nothing_from_elsewhere(server):
    for path in ASSETS:
        text = get(server, path)[2].decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
        assert "//cdn" not in text


def test_the_stream_has_the_guarding_headers_too(sink):
    status, headers, body = get(sink, "/stream", "HEAD")
    assert (status, body, headers["content-type"]) == (200, b"", "application/octet-stream")
    assert headers["content-security-policy"].startswith("default-src 'none';")
    with Viewer(sink) as viewer:
        assert viewer.reply.headers["cross-origin-resource-policy"] == "same-origin"


def test_numbers_are_the_results(sink):
    result = made(seq=5, dropped=2)
    sink.write(result)
    with Viewer(sink) as viewer:
        packet = viewer.next()
    assert (packet["seq"], packet["dropped"], packet["age_ms"]) == (5, 2, 42.0)
    person = result.classes["person"]
    entry = packet["classes"][1]
    told = [entry[key] for key in ("mean_c", "area", "hotspot")]
    assert told == [round(person.mean_c, 2), round(person.area, 4), list(person.hotspot)]


def test_rate_is_results_a_second(sink):
    first = made()
    for seq in range(40):
        sink.write(replace(first, done_ns=first.done_ns + seq * 40_000_000))
    with Viewer(sink) as viewer:
        assert viewer.next()["fps"] == pytest.approx(25.0)


def test_a_late_viewer_is_told_how_old_the_newest_is(sink):
    sink.write(replace(made(), done_ns=time.monotonic_ns() - 3_000_000_000))
    with Viewer(sink) as viewer:
        assert 3000 <= viewer.next()["waited"] < 4000


# ---- what is refused


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", "", "localhost"]
)
@pytest.mark.parametrize("path", [*ASSETS, "/stream", "/nothing"])
def test_a_foreign_host_is_refused(server, host, path):
    status, headers, body = get(server, path, Host=host.format(port=port_of(server)))
    assert status == 421
    assert body.decode() == f"Not served under this name: open {server.url}\n"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "[::1]"])
def test_its_own_names_are_served(server, host):
    assert get(server, Host=f"{host}:{port_of(server)}")[0] == 200


def test_no_host_at_all_is_refused(server):
    assert exchange(server, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert exchange(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", [*ASSETS, "/stream"])
def test_only_reading(server, path, method):
    status, headers, _ = get(server, path, method)
    assert status == 405
    assert set(headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "path",
    [
        "/nothing", "/index.html", "/page/", "/page.js/", "/page.js%00", "//", "//page.js", "/../page.js", "/./page.js",
        "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc/passwd", "/%252e%252e/page.js",
        "/..%5c..%5cweb.py", "/\\..\\web.py", "/page.js;x", "/PAGE.JS", "/stream/", "/web.py", "http://evil.example/",
    ],
)  # fmt: skip
def test_there_are_no_other_paths(server, path):
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port_of(server)}\r\n\r\n"
    assert exchange(server, request.encode()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "request_",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
        b"GET /" + b"a" * 200_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_harms_nobody(server, request_, capfd):
    assert exchange(server, request_)[:10] in (b"HTTP/1.1 4", b"")
    server.write(made(seq=1))
    with Viewer(server) as viewer:
        assert viewer.next()["seq"] == 1
    assert capfd.readouterr() == ("", "")


def test_pipelined_requests_get_one_answer(server):
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port_of(server)}\r\n\r\n".encode()
    assert exchange(server, request * 50).count(b"HTTP/1.1 200 ") == 1


def test_a_client_that_never_ends_its_header_is_cut_off(monkeypatch):
    monkeypatch.setattr(http_server, "HEADER_TIMEOUT_S", 0.3)
    sink = WebSink(0, SETTING)
    started = time.monotonic()
    with Viewer(sink) as idle:
        assert exchange(sink, b"GET / HTTP/1.1\r\nHost:") == b""
        assert 0.2 < time.monotonic() - started < 2
        sink.write(made(seq=3))
        assert idle.next()["seq"] == 3  # a stream without frames has made its request: it stays
    sink.close()


# ---- who may watch


def test_sixteen_streams_and_no_more(sink):
    with ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(sink)) for _ in range(16)]
        assert [viewer.status for viewer in viewers] == [200] * 16
        status, _, body = get(sink, "/stream")
        assert (status, body) == (503, b"16 pages are open already: close one.\n")
        assert get(sink)[0] == 200
        sink.write(made(seq=9))
        assert [viewer.next()["seq"] for viewer in viewers] == [9] * 16
    sink.write(made(seq=10))

    def free_again():
        with Viewer(sink) as viewer:
            return viewer.status == 200

    eventually(free_again)


def numbered(result, seq):
    return replace(result, frame=replace(result.frame, seq=seq))


def collect(viewer, last, into):
    while not into or into[-1] < last:
        into.append(viewer.next()["seq"])


def test_the_newest_frame_wins(sink):
    results = [noisy(0), noisy(1)]
    sink.write(results[0])
    seen = []
    with Viewer(sink) as viewer:
        assert viewer.next()["seq"] == 0
        for seq in range(1, 61):  # 25 MB: more than all buffers on the way hold
            sink.write(numbered(results[seq % 2], seq))
            time.sleep(0.01)
        collect(viewer, 60, seen)
    assert seen == sorted(set(seen))
    assert len(seen) < 20, len(seen)


def test_negative_control_a_client_that_keeps_up_gets_almost_every_frame(sink):
    result, seen = made(), []
    with Viewer(sink) as viewer:
        thread = threading.Thread(target=collect, args=(viewer, 60, seen))
        thread.start()
        for seq in range(61):
            sink.write(numbered(result, seq))
            time.sleep(0.02)
        thread.join(5)
    assert seen == sorted(set(seen))
    assert len(seen) > 50


def test_stalled_clients_slow_nobody_down(sink):
    result, seen, slowest = noisy(height=240, width=320), [], 0.0
    with ExitStack() as stack:
        for _ in range(15):
            stack.enter_context(ask(sink, receive_buffer=4096))
        viewer = stack.enter_context(Viewer(sink))
        thread = threading.Thread(target=collect, args=(viewer, 59, seen))
        thread.start()
        for seq in range(60):
            next_one = numbered(result, seq)
            started = time.perf_counter()
            sink.write(next_one)
            slowest = max(slowest, time.perf_counter() - started)
            time.sleep(1 / 30)
        thread.join(5)
    print(f"slowest write {1e3 * slowest:.2f} ms, {len(seen)} of 60 frames seen")
    assert slowest < 0.1
    assert len(seen) >= 57


def test_negative_control_a_blocking_write_would_stall():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.2)  # twice the bound above
        with pytest.raises(TimeoutError):
            ours.sendall(bytes(50_000_000))


def test_a_stalled_client_gives_its_place_back(monkeypatch):
    monkeypatch.setattr(http_server, "WRITE_TIMEOUT_S", 0.3)
    sink = WebSink(0, SETTING)
    with ExitStack() as stack:
        for _ in range(16):
            stack.enter_context(ask(sink, receive_buffer=4096))
        eventually(lambda: get(sink, "/stream", "HEAD")[0] == 503)
        for seq in range(3):
            sink.write(noisy(seq))
        eventually(lambda: get(sink, "/stream", "HEAD")[0] == 200)
    sink.close()


def test_nothing_is_encoded_while_nobody_watches(sink, monkeypatch):
    calls = []
    monkeypatch.setattr("edgeunip.runtimes.web.feed.encode", lambda *_: calls.append(1))
    for seq in range(20):
        sink.write(made(seq))
    assert get(sink)[0] == 200  # the loop has gone round since
    assert calls == []


def test_a_frame_is_encoded_once_for_all(sink, monkeypatch):
    from edgeunip.runtimes.web.packet import encode

    calls = []
    monkeypatch.setattr("edgeunip.runtimes.web.feed.encode", lambda *args: calls.append(1) or encode(*args))
    sink.write(made(4))
    with Viewer(sink) as one, Viewer(sink) as other:
        assert one.next()["seq"] == other.next()["seq"] == 4
    assert calls == [1]


# ---- start, failure, end


def test_a_taken_port_is_told_in_one_line(server):
    with pytest.raises(SinkError) as told:
        WebSink(port_of(server), SETTING)
    assert str(told.value) == (
        f"Cannot serve the web page: 127.0.0.1:{port_of(server)} (Address already in use). "
        "Choose another port from 1024 to 65535; 0 picks a free one."
    )


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_port_at_all(port):
    with pytest.raises(SinkError, match=rf"127\.0\.0\.1:{port} \(not in 0\.\.65535\)"):
        WebSink(port, SETTING)


def test_only_this_machine_can_connect(server):
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", port_of(server)))


def test_a_result_that_cannot_be_shown_is_told_by_the_next_write(sink, capfd):
    good = made()
    with Viewer(sink) as viewer:
        sink.write(replace(good, classes={}))
        with pytest.raises((EOFError, http.client.IncompleteRead)):
            viewer.next()
        with pytest.raises(SinkError) as told:
            sink.write(good)
    assert str(told.value) == (
        f"The web page has stopped: {sink.url} (KeyError: 'background'). Start the stream again."
    )
    assert capfd.readouterr() == ("", "")


def test_close_ends_at_once_with_clients_connected():
    before = threading.active_count()
    sink = WebSink(0, SETTING)
    sink.write(noisy())
    with ExitStack() as stack:
        stalled = [stack.enter_context(ask(sink, receive_buffer=4096)) for _ in range(4)]
        silent = stack.enter_context(socket.create_connection(("127.0.0.1", port_of(sink)), 5))
        viewer = stack.enter_context(Viewer(sink))
        viewer.next()
        started = time.monotonic()
        sink.close()
        assert time.monotonic() - started < 1.0
        assert threading.active_count() == before
        with pytest.raises((EOFError, http.client.IncompleteRead, ConnectionResetError)):
            viewer.next()
        for raw in [*stalled, silent]:
            all_of(raw)  # returns: the connection has ended


def test_close_twice_and_write_after(sink):
    sink.close()
    sink.close()
    with pytest.raises(SinkError, match="it was closed"):
        sink.write(made())


def test_the_port_is_free_after_close():
    first = WebSink(0, SETTING)
    with Viewer(first):
        first.close()
    second = WebSink(port_of(first), SETTING)
    assert second.url == first.url
    second.close()


def test_the_process_is_left_as_it_was(capfd):
    def state():
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return signals, logging.getLogger().handlers, logging.getLogger().level, threading.active_count()

    before = state()
    sink = WebSink(0, SETTING)
    get(sink)
    get(sink, "/nothing")
    assert state()[:3] == before[:3]
    sink.close()
    assert state() == before
    assert capfd.readouterr() == ("", "")
