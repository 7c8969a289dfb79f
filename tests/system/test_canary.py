"""A unique secret in every credential, the faults that show credentials elsewhere, and not one hit in what comes out.

What comes out: standard output and error, every file, every page, every MQTT message, what the supervisor is told, and
the command lines of the process and its children.
"""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from services import free_port, mosquitto, needs, set_passwords, wait_for
from streams import MAIN, Streaming, make_bundle

pytestmark = pytest.mark.system

USER = "watchman"
CAMERA, CAMERA_TOKEN = "cAmErA/p@ss-51d0", "cAmErAtOkEn-88ab"
BROKER = "bRoKeR-pass-77c1"
WEB = "wEbToKeN-" + "x7Yq" * 10
OUT = "rTsPoUt-pass-90ef"
# What hides nothing: the checks must then find the secrets.
LEAKY = "import edgeunip.address as a, edgeunip.redaction as r; a.redact = lambda s: s; r.clean = lambda t: t; "


def spellings():
    """Every way a secret may be written."""
    found = set()
    for secret in (CAMERA, CAMERA_TOKEN, BROKER, WEB, OUT):
        pair = base64.b64encode(f"{USER}:{secret}".encode()).decode().rstrip("=")
        plain = base64.b64encode(secret.encode()).decode().rstrip("=")
        found |= {secret, quote(secret), quote(secret, safe=""), pair, plain}
    return {one.encode() for one in found}


def hits(outcome):
    """(where, secret) of every secret found."""
    return [(where, one.decode()) for where, data in outcome.items() for one in spellings() if one in data]


class StubbornCamera:
    """An RTSP server that asks for a password, answers with what it was given, and never lets anybody in."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked = b""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            while request := connection.recv(65536):
                self.asked += request
                number = request.partition(b"CSeq: ")[2].partition(b"\r\n")[0]
                head = b"RTSP/1.0 401 Go away " + request.split(b" ")[1] + b"\r\nCSeq: " + number
                connection.sendall(head + b'\r\nWWW-Authenticate: Basic realm="thermal"\r\n\r\n')

    def close(self):
        self._listener.close()


def get(port, path, token=None, host=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            body = b"" if path == "/stream" else answer.read()
            return answer.status, str(answer.headers).encode() + body
    except urllib.error.HTTPError as error:
        return error.code, str(error.headers).encode() + error.read()


def command_lines(pid):
    """Command lines of a process and everything below it."""
    found = b""
    with contextlib.suppress(OSError):
        found += Path(f"/proc/{pid}/cmdline").read_bytes()
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += command_lines(int(child))
    return found


class Faults:
    """One whole run: cameras that refuse and that are away, a broker that is killed and changes its passwords, pages
    without, with a wrong and with the right token, a push that fails, until SIGTERM."""

    def __init__(self, folder, *, options=(), patch=""):
        self.folder, self.keys = folder / "run", folder / "keys"
        self.keys.mkdir(parents=True)
        self.outcome = {}
        self.camera, self.web, gone = StubbornCamera(), free_port(), free_port()
        self.broker = mosquitto(self.keys, users={USER: BROKER})
        rtsp = f"{USER}:{quote(CAMERA, safe='')}@127.0.0.1:{self.camera.port}/live?token={CAMERA_TOKEN}"
        environment = {
            "YARD": f"rtsp://{USER}:{CAMERA}@127.0.0.1:{gone}/live",
            "EDGEUNIP_WEB_TOKEN": WEB,
            "NOTIFY_SOCKET": str(self.keys / "notify"),
            "WATCHDOG_USEC": "2000000",
        }
        words = [self._key("camera", f"rtsp://{rtsp}"), "$YARD", "synthetic://lepton"]
        mqtt = f"mqtt:127.0.0.1:{self.broker.port}/yard?user={USER}&password_file={self._key('broker', BROKER)[1:]}"
        push = f"rtsp://127.0.0.1:{gone}/out-{{camera}}?user={USER}&password_file={self._key('push', OUT)[1:]}"
        for sink in ("jsonl:out.jsonl", "video:{camera}.mkv", "record:{camera}-raw.mkv", f"web:{self.web}", mqtt, push):
            words += ["--sink", sink]
        words += ["--model", make_bundle(folder)]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(environment["NOTIFY_SOCKET"])
        self.listener = None
        self.stream_of = lambda: Streaming(self.folder, *words, env=environment, options=options, patch=patch)

    def _key(self, name, text):
        (self.keys / name).write_text(text)
        (self.keys / name).chmod(0o600)
        return f"@{self.keys / name}"

    def run(self):
        with self.broker, self.stream_of() as stream, (self.keys.parent / "heard").open("wb") as heard:
            listen = ["mosquitto_sub", "-p", str(self.broker.port), "-u", USER, "-P", BROKER, "-t", "#", "-v"]
            self.listener = subprocess.Popen(listen, stdout=heard, stderr=subprocess.DEVNULL)
            stream.wait_until_it_says("Streaming ")
            wait_for((self.folder / "out.jsonl").read_bytes, 20, "the first line")
            wait_for(lambda: self.camera.asked.count(b"Authorization: Basic") > 1, 20, "a try with the password")
            self._ask_pages("before")
            self.outcome["command lines"] = command_lines(stream.process.pid)
            wait_for((self.keys.parent / "heard").read_bytes, 10, "MQTT")
            self._trouble_broker()
            self._ask_pages("after")
            code, _ = stream.stop()
            assert code == 0, stream.said
        self.listener.kill()
        self.listener.wait()
        self._collect()
        return self.outcome

    def _trouble_broker(self):
        set_passwords(self.keys, {USER: "another"})
        self.broker.kill()
        time.sleep(1)
        self.broker.start()
        time.sleep(2)

    def _ask_pages(self, when):
        paths = ("/", "/healthz", "/metrics", "/status.json", "/stream", "/login", "/nothing", f"/?token={WEB[:-1]}")
        for path in paths:
            for token, host in ((None, None), (WEB[::-1], None), (WEB, None), (WEB, "evil.example")):
                status, data = get(self.web, path, token, host)
                self.outcome[f"{when}: {path} {token is WEB} {host} {status}"] = data
        seen = " ".join(self.outcome)
        assert "/metrics True None 200" in seen and "/metrics False None 401" in seen, seen

    def _collect(self):
        self.camera.close()
        for path in self.folder.rglob("*"):
            self.outcome[f"name {path.name}"] = str(path).encode()
            if path.is_file():
                self.outcome[f"file {path.name}"] = path.read_bytes()
        self.outcome["MQTT"] = (self.keys.parent / "heard").read_bytes()
        self.notify.setblocking(False)
        told = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                told += self.notify.recv(65536)
        self.outcome["supervisor"] = told
        self.notify.close()


@pytest.mark.parametrize("options", [(), ("--debug",)])
def test_no_secret_comes_out_of_a_stream_full_of_faults(options, tmp_path):
    needs("mosquitto", "mosquitto_sub")
    faults = Faults(tmp_path, options=options)
    outcome = faults.run()
    # It was worth looking: the secrets were used, the faults came, and what is searched holds what was said.
    assert base64.b64encode(f"{USER}:{CAMERA}".encode()) in faults.camera.asked
    said = outcome["file err.txt"]
    assert b"401" in said or b"uthor" in said, said
    assert said.count(b"***@127.0.0.1") >= 2, said
    assert b"yard/status online" in outcome["MQTT"]
    assert b"READY=1" in outcome["supervisor"] and b"***@127.0.0.1" in outcome["supervisor"]
    assert any(name.startswith("file synthetic-lepton-raw") for name in outcome), sorted(outcome)
    assert hits(outcome) == []


def test_negative_control_what_hides_nothing_is_found(tmp_path):
    needs("mosquitto", "mosquitto_sub")
    found = {where for where, _ in hits(Faults(tmp_path, patch=LEAKY).run())}
    assert {"file err.txt", "supervisor"} <= found, found


@pytest.mark.parametrize("options", [[], ["--debug"]])
@pytest.mark.parametrize("words", [["stream", "{url}", "--once"], ["doctor"], ["cameras", "probe", "{url}"]])
def test_no_secret_comes_out_of_a_command_that_fails(words, options, tmp_path):
    camera = StubbornCamera()
    url = f"rtsp://{USER}:{quote(CAMERA, safe='')}@127.0.0.1:{camera.port}/live?token={CAMERA_TOKEN}"
    if words[0] == "stream":
        words = [*words, "--model", str(make_bundle(tmp_path)), "--sink", "jsonl:-"]
    environment = {**os.environ, "EDGEUNIP_WEB_TOKEN": WEB, "EDGEUNIP_MQTT_PASSWORD": BROKER, "WATCHDOG_USEC": WEB}
    command = [sys.executable, "-c", MAIN, *options, *(word.format(url=url) for word in words)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    camera.close()
    assert done.stdout or done.stderr
    assert hits({"out": done.stdout, "err": done.stderr}) == []
    if words[0] == "stream":
        assert camera.asked and done.returncode == 1 and b"Check user name and password" in done.stderr, done.stderr
    if words[0] == "stream" and options:
        assert b"Traceback" in done.stderr
