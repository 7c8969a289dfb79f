"""Who gets in: the token, sessions, rate limits, names, TLS, and what is refused before anything is served."""

import http.client
import logging
import socket
import ssl
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest
from live_results import CLASSES, made
from web_client import Viewer, exchange, get, own_address, port_of

from edgeunip.errors import SinkError, UsageError
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.web import access, token
from edgeunip.runtimes.web.access import OPEN, Hosts
from edgeunip.runtimes.web.server import client
from edgeunip.runtimes.web.sink import WebSink
from edgeunip.runtimes.web.throttle import Throttle

SETTING = Setting(CLASSES)
TOKEN = "Canary-" + 36 * "k"
OWN = own_address()


@pytest.fixture
def locked():
    sink = WebSink(0, SETTING, token=TOKEN)
    sink.write(made(seq=3))
    yield sink
    sink.close()


def login(sink, given, **headers):
    form = {"content_type": "application/x-www-form-urlencoded"}
    return get(sink, "/login", "POST", body=urlencode({"token": given}), **form, **headers)


def paths(sink):
    return [route.path for route in sink.site.routes]


# ---- the token


def test_every_route_but_the_open_ones_wants_the_token(locked):
    closed = [path for path in paths(locked) if path not in OPEN]
    assert len(closed) >= 11
    for path in closed:
        for method in ("GET", "HEAD", "POST"):
            status, headers, _ = get(locked, path, method)
            assert (path, method, status) == (path, method, 401)
            assert headers["www-authenticate"] == "Bearer"
            assert headers["content-security-policy"].startswith("default-src 'none'")
    assert get(locked, "/nothing")[0] == 401  # not even which paths there are


def test_negative_control_without_a_token_every_route_is_open():
    sink = WebSink(0, SETTING)
    sink.write(made())
    assert [get(sink, path)[0] for path in paths(sink) if path not in (*OPEN, "/stream", "/celsius")].count(200) >= 9
    sink.close()


def test_the_open_routes_tell_nothing(locked):
    assert get(locked, "/healthz")[2] == b"degraded\n"
    for path in OPEN:
        status, _, body = get(locked, path)
        assert status == (503 if path == "/healthz" else 200)
        assert b"person" not in body
        assert TOKEN.encode() not in body


@pytest.mark.parametrize("given", [TOKEN, f" {TOKEN} "])
def test_a_bearer_sees_everything(locked, given):
    status, _, body = get(locked, "/status.json", Authorization=f"Bearer {given}")
    assert status == 200
    assert b'"cameras"' in body
    with Viewer(locked, Authorization=f"bearer {TOKEN}") as viewer:
        assert viewer.next()["seq"] == 3


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Bearer \xe9"]
)
def test_any_other_bearer_is_refused(locked, header):
    assert get(locked, "/status.json", Authorization=header)[0] == 401


def test_login_gives_a_session_that_is_not_the_token(locked):
    status, headers, _ = login(locked, TOKEN)
    cookie = headers["set-cookie"]
    name, value = cookie.split(";")[0].split("=")
    assert (status, headers["location"]) == (303, "/")
    assert name == f"edgeunip-{port_of(locked)}"
    assert len(value) == 43
    assert TOKEN not in cookie
    assert {part.strip().lower() for part in cookie.split(";")[1:]} == {
        "httponly", "samesite=strict", "path=/", "max-age=604800",
    }  # fmt: skip
    assert get(locked, "/", Cookie=f"{name}={value}")[0] == 200
    assert get(locked, "/metrics", Cookie=f"other=1; {name}={value}")[0] == 200
    assert get(locked, "/metrics", Cookie=f"{name}={value[:-1]}")[0] == 401
    assert get(locked, "/metrics", Cookie=f"{name}={TOKEN}")[0] == 401


def test_a_session_ends(locked, monkeypatch):
    cookie = login(locked, TOKEN)[1]["set-cookie"].split(";")[0]
    assert get(locked, "/metrics", Cookie=cookie)[0] == 200
    monkeypatch.setattr(access, "_SESSION_S", -1.0)
    assert get(locked, "/metrics", Cookie=cookie)[0] == 401


def test_sessions_are_bounded(locked):
    first = login(locked, TOKEN)[1]["set-cookie"].split(";")[0]
    for _ in range(64):
        last = login(locked, TOKEN)[1]["set-cookie"].split(";")[0]
    assert get(locked, "/metrics", Cookie=first)[0] == 401
    assert get(locked, "/metrics", Cookie=last)[0] == 200


def test_the_root_shows_the_login_form(locked):
    status, headers, body = get(locked, "/")
    assert status == 401
    assert headers["content-type"].startswith("text/html")
    assert b'<form class="panel" method="post" action="/login">' in body


def test_a_wrong_token_is_told_and_soon_refused_unheard(locked):
    for _ in range(5):
        status, _, body = login(locked, "wrong")
        assert status == 401
        assert b"That is not the token." in body
    status, headers, _ = login(locked, TOKEN)  # even the right one: guessing must not go on
    assert status == 429
    assert 1 <= int(headers["retry-after"]) <= 12
    assert get(locked, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 429
    assert get(locked, "/")[0] == 401  # who gives no token does not guess


def test_a_session_goes_on_while_others_guess(locked):
    cookie = login(locked, TOKEN)[1]["set-cookie"].split(";")[0]
    for _ in range(8):
        login(locked, "wrong")
    assert get(locked, "/metrics", Cookie=cookie)[0] == 200


@pytest.mark.parametrize("body", [b"", b"token", b"x" * 5000, b"\xff\xfe", b"&" * 100, b"token=" + b"%00" * 50])
def test_a_strange_form_is_a_wrong_token(locked, body):
    assert get(locked, "/login", "POST", body=body)[0] in (400, 401)
    assert get(locked, "/healthz")[0] == 503
    locked.write(made())  # and harms nobody


def test_a_form_that_never_comes_is_given_up(locked, monkeypatch):
    monkeypatch.setattr(access, "HEADER_TIMEOUT_S", 0.2)
    head = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port_of(locked)}\r\nContent-Length: 60\r\n\r\ntoken="
    assert exchange(locked, head.encode()).startswith(b"HTTP/1.1 401 ")


def test_no_get_changes_anything(locked):
    """Every route that takes another method than GET is the login form's."""
    others = {route.path for route in locked.site.routes if route.methods - {"GET", "HEAD"}}
    assert others == {"/login"}
    assert "set-cookie" not in get(locked, f"/login?token={TOKEN}")[1]


def test_the_token_is_nowhere(locked, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    login(locked, TOKEN)
    login(locked, TOKEN + "x")
    for path in paths(locked):
        if path != "/stream":
            status, headers, body = get(locked, path, Authorization=f"Bearer {TOKEN}")
            assert TOKEN not in f"{status} {headers} {body!r}"
    assert TOKEN not in caplog.text
    assert TOKEN not in "".join(capfd.readouterr())
    assert TOKEN not in locked.name + locked.url


def test_a_throttle_refills():
    throttle = Throttle(3, 10.0)
    for _ in range(3):
        assert throttle.wait_s("a") == 0
        throttle.count("a")
    assert 9 < throttle.wait_s("a") <= 10
    assert throttle.wait_s("b") == 0
    for number in range(2000):
        throttle.count(number)
    assert throttle.wait_s("a") == 0  # forgotten: the table is bounded


# ---- where the token comes from


def test_a_token_file_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "web.token"
    made_token = token.find(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(made_token) == 43
    assert token.find(path) == made_token


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o620, 0o602, 0o666])
def test_a_token_file_for_everybody_is_refused(tmp_path, mode):
    path = tmp_path / "web.token"
    token.find(path)
    path.chmod(mode)
    with pytest.raises(SinkError) as told:
        token.find(path)
    assert str(told.value) == (
        f"Others can get at the web page's token: {path} (mode {mode:04o}). "
        f"Run: chmod 600 {path}, and delete it if others may have read it: a new one is made."
    )


def test_a_group_that_reads_is_warned_about(tmp_path, caplog):
    path = tmp_path / "web.token"
    token.find(path)
    path.chmod(0o640)
    token.find(path)
    assert "The group of" in caplog.text


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 60, b"x" * 20 + b"\n" + b"y" * 40])
def test_a_weak_token_is_refused(tmp_path, content):
    path = tmp_path / "web.token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SinkError) as told:
        token.find(path)
    assert "y" * 40 not in str(told.value)


def test_the_environment_gives_a_token(monkeypatch):
    monkeypatch.setenv("EDGEUNIP_WEB_TOKEN", TOKEN)
    sink = open_sink("web:0", SETTING)
    assert get(sink, "/metrics")[0] == 401
    assert get(sink, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    sink.close()
    monkeypatch.setenv("EDGEUNIP_WEB_TOKEN", "guess")
    with pytest.raises(SinkError, match=r"too easy to guess: the environment's EDGEUNIP_WEB_TOKEN"):
        open_sink("web:0", SETTING)


# ---- where it is served


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_host_needs_a_token(host, monkeypatch):
    monkeypatch.delenv("EDGEUNIP_WEB_TOKEN", raising=False)
    with pytest.raises(UsageError) as told:
        open_sink(f"web:0?host={host}", SETTING)
    assert str(told.value) == (
        f"A web page for other machines needs a token: host={host}. "
        "Add token_file=FILE (it is made if it is not there), or set EDGEUNIP_WEB_TOKEN."
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("web:http", r"A web sink needs a port, 0 to 65535: web:http"),
        ("web:65536", r"A web sink needs a port, 0 to 65535"),
        ("web:0?hots=::1", r"A web sink has no option hots. Did you mean host\?"),
        ("web:0?host=camera.local", r"host=camera.local \(it takes an address"),
        ("web:0?cert=a.pem", r"needs cert and key together"),
        ("web:0?cert=a.pem&key=b.pem", r"Cannot use the certificate: a.pem, b.pem \(No such file"),
        ("web:0?host=192.0.2.77", r"Cannot serve the web page: 192.0.2.77:0 \(Cannot assign requested address\)"),
    ],
)
def test_what_cannot_be_served_is_told(spec, message, monkeypatch):
    monkeypatch.setenv("EDGEUNIP_WEB_TOKEN", TOKEN)
    with pytest.raises((UsageError, SinkError), match=message):
        open_sink(spec, SETTING)


def test_an_open_page_without_tls_is_warned_about(tmp_path, caplog):
    sink = open_sink(f"web:0?host=0.0.0.0&token_file={tmp_path / 'token'}", SETTING)
    assert "unencrypted" in caplog.text
    assert sink.url == f"http://127.0.0.1:{port_of(sink)}/"
    assert sink.name == f"web page {sink.url} on 0.0.0.0"
    sink.close()


def test_names_that_are_given_are_served():
    sink = WebSink(0, SETTING, names=("cam.local", "proxy.example:8443"))
    port = port_of(sink)
    assert get(sink, Host=f"cam.local:{port}")[0] == 200
    assert get(sink, Host=f"CAM.local:{port}")[0] == 200
    assert get(sink, Host="proxy.example:8443")[0] == 200
    for wrong in ("cam.local", "cam.local:1", f"proxy.example:{port}", f"x.cam.local:{port}", f"cam.local:{port}x"):
        assert get(sink, Host=wrong)[0] == 421
    sink.close()


@pytest.mark.parametrize(
    ("reached", "host", "allowed"),
    [
        ("192.0.2.5", "192.0.2.5:8080", True),
        ("192.0.2.5", "192.0.2.6:8080", False),
        ("192.0.2.5", "192.0.2.5", False),
        ("::ffff:192.0.2.5", "192.0.2.5:8080", True),
        ("2001:db8::1", "[2001:db8::1]:8080", True),
        ("fe80::1%eth0", "[fe80::1]:8080", True),
        ("127.0.0.1", "127.0.0.2:8080", False),
        ("192.0.2.5", "evil.example:8080", False),
    ],
)
def test_a_page_answers_to_the_address_it_is_reached_at(reached, host, allowed):
    scope = {"headers": [(b"host", host.encode())], "server": (reached, 8080)}
    assert Hosts(8080, (), secure=False).allow(scope) is allowed


def test_the_usual_port_is_left_out():
    scope = {"headers": [(b"host", b"cam.local")], "server": ("192.0.2.5", 443)}
    assert Hosts(443, ("cam.local",), secure=True).allow(scope)
    assert not Hosts(443, ("cam.local",), secure=False).allow(scope)


@pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback ones")
def test_one_address_has_four_streams_and_this_machine_sixteen():
    sink = WebSink(0, SETTING, host="0.0.0.0", token=TOKEN)
    sink.write(made())
    entry = {"Authorization": f"Bearer {TOKEN}"}
    with ExitStack() as stack:
        far = [stack.enter_context(Viewer(sink, address=OWN, **entry)) for _ in range(5)]
        assert [viewer.status for viewer in far] == [200] * 4 + [503]
        near = [stack.enter_context(Viewer(sink, **entry)) for _ in range(13)]
        assert [viewer.status for viewer in near] == [200] * 12 + [503]
    sink.close()


@pytest.mark.skipif(OWN is None, reason="this machine has no address but loopback ones")
def test_one_address_has_sixty_four_connections():
    sink = WebSink(0, SETTING, host="0.0.0.0", token=TOKEN)
    with ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(socket.create_connection((OWN, port_of(sink)), 5))
        with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected, BrokenPipeError)):
            get(sink, "/healthz", address=OWN)
        assert get(sink, "/healthz")[0] == 503  # others are served
    assert get(sink, "/healthz", address=OWN)[0] == 503
    sink.close()


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    name = ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run([*command, *files, *name], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return folder


def test_tls(certificate):
    files = f"cert={certificate / 'cert.pem'}&key={certificate / 'key.pem'}"
    sink = open_sink(f"web:0?{files}&token_file={certificate / 'token'}", SETTING)
    secret = (certificate / "token").read_text().strip()
    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    connection = http.client.HTTPSConnection("localhost", port_of(sink), timeout=5, context=context)
    form = {"content-type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/login", urlencode({"token": secret}), form)
    reply = connection.getresponse()
    assert reply.status == 303
    assert "secure" in reply.headers["set-cookie"].lower()
    connection.close()
    assert sink.url == f"https://127.0.0.1:{port_of(sink)}/"
    assert exchange(sink, b"GET / HTTP/1.1\r\n\r\n")[:4] != b"HTTP"  # no word in the clear
    sink.close()


def test_a_key_of_another_certificate_is_told(certificate, tmp_path):
    subprocess.run(["openssl", "genrsa", "-out", str(tmp_path / "key.pem"), "2048"], check=True, capture_output=True)
    with pytest.raises(SinkError, match=r"Cannot use the certificate: .*cert\.pem.* Give an unencrypted key"):
        open_sink(f"web:0?cert={certificate / 'cert.pem'}&key={tmp_path / 'key.pem'}", SETTING)


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_nothing_is_left_after_a_failed_start():
    before = threading.active_count(), open_files()
    sink = WebSink(0, SETTING)
    with pytest.raises(SinkError):
        WebSink(port_of(sink), SETTING)
    sink.close()
    assert (threading.active_count(), open_files()) == before


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("127.0.0.1", None),
        ("127.8.8.8", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("192.0.2.9", "192.0.2.9"),
        ("::ffff:192.0.2.9", "192.0.2.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::5%eth0", "fe80::"),
    ],
)
def test_whom_a_request_counts_for(address, counted):
    assert client({"client": (address, 4711)}) == counted
