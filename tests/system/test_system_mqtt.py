"""MQTT against a real broker that is killed, stopped, restarted and given other passwords."""

import datetime
import itertools
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from live_results import CLASSES, made
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from services import free_port, mosquitto, set_passwords, wait_for

from edgeunip.frame import Alarm, State
from edgeunip.health import Board, CameraStatus
from edgeunip.runtimes.mqtt_link import Broker, Link
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.spool import Spool

pytestmark = pytest.mark.system
CANARY = "c4nary-Secret"


class Listener:
    """Another client: keeps what it hears, connects again by itself, and misses nothing while the broker stands."""

    def __init__(self, port, topics=("#",), *, login=None, client_id="listener", lasting=False):
        self.heard = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=not lasting)
        self._client.on_connect = lambda client, *_: client.subscribe([(topic, 1) for topic in topics])
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _, __, message: self.heard.append(message)
        self._client.reconnect_delay_set(1, 1)
        if login:
            self._client.username_pw_set(*login)
        self._ready = threading.Event()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(10)

    def of(self, topic):
        return [message.payload.decode() for message in list(self.heard) if message.topic == topic]

    def wait(self, topic, payload=None, seconds=10):
        if payload is None:
            return wait_for(lambda: self.of(topic), seconds, topic)[-1]
        wait_for(lambda: self.of(topic)[-1:] == [payload], seconds, f"{topic} {payload}")

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listen():
    opened = []

    def open_listener(*args, **options):
        opened.append(Listener(*args, **options))
        return opened[-1]

    yield open_listener
    for listener in opened:
        listener.close()


@pytest.fixture
def broker(tmp_path):
    with mosquitto(tmp_path) as broker:
        yield broker


def sink_to(broker, options="", *, setting=None):
    return open_sink(f"mqtt:127.0.0.1:{broker.port}/house/door?{options}", setting or Setting(CLASSES, ("cam",)))


def result(seq, *, camera="cam", alarms=(), state=State.LIVE):
    return replace(made(seq, state=state), camera=camera, alarms=tuple(alarms))


def fever(value=39.1):
    return Alarm("person max > 38 C", "fever", time.monotonic_ns(), value, "C", (3, 4), 1)


def seqs(listener, topic="house/door/cam/result"):
    return [json.loads(payload)["seq"] for payload in listener.of(topic)]


def test_what_a_listener_hears(broker, listen):
    listener = listen(broker.port)
    sink = sink_to(broker, "rate=1000", setting=Setting(CLASSES, ("cam", "/dev/video1"), alarms=("fever",)))
    first = result(0)
    sink.write(first)
    sink.write(result(1, alarms=[warm := fever()]))
    sink.write(result(2, alarms=[replace(warm, value=40.0)]))
    sink.write(result(3))
    sink.write(result(0, camera="/dev/video1", state=State.FFC))
    listener.wait("house/door/status", "online")
    listener.wait("house/door/dev-video1/state", "ffc")
    listener.wait("house/door/cam/state", "live")
    wait_for(lambda: seqs(listener) == [0, 1, 2, 3])
    person = json.loads(listener.of("house/door/cam/class/person")[0])
    assert person["max_c"] == pytest.approx(first.classes["person"].max_c, abs=0.2)
    changes = [json.loads(payload) for payload in listener.of("house/door/cam/alarm")]
    assert [(change["state"], change["name"], change["value"]) for change in changes] == [
        ("raised", "fever", 39.1),
        ("cleared", "fever", 40.0),
    ]
    assert datetime.datetime.fromisoformat(changes[0]["time"]).utcoffset() == datetime.timedelta(0)
    sink.close()
    listener.wait("house/door/status", "offline")
    late = listen(broker.port, client_id="late")  # values are retained
    late.wait("house/door/status", "offline")
    assert json.loads(late.wait("house/door/cam/alarm/fever"))["state"] == "cleared"
    assert json.loads(late.wait("house/door/dev-video1/alarm/fever"))["state"] == "cleared"
    assert late.of("house/door/cam/alarm") == []


def test_results_keep_their_rate_and_alarms_do_not_wait(broker, listen):
    listener = listen(broker.port)
    sink = sink_to(broker, "rate=4")
    began = time.monotonic()
    for seq in itertools.count():
        if time.monotonic() - began > 2:
            break
        sink.write(result(seq, alarms=[fever()] if seq % 10 == 5 else []))
        time.sleep(0.01)
    sink.close()
    listener.wait("house/door/status", "offline")
    assert 4 <= len(seqs(listener)) <= 9
    raised = [payload for payload in listener.of("house/door/cam/alarm") if '"raised"' in payload]
    assert len(raised) == (seq + 4) // 10


def test_a_camera_that_is_away_is_told_by_the_board(broker, listen):
    board, listener = Board(), listen(broker.port)
    board.put("cam", status=CameraStatus(State.OFFLINE, "missing"))
    sink = sink_to(broker, setting=Setting(CLASSES, ("cam",), board=board))
    listener.wait("house/door/cam/state", "offline")
    board.put("cam", status=CameraStatus(State.LIVE, "frame"))
    listener.wait("house/door/cam/state", "live")
    sink.close()


def test_home_assistant_is_told_again_when_it_wakes(broker, listen):
    sink = sink_to(broker, "discovery=homeassistant", setting=Setting(CLASSES, ("cam",), alarms=("fever",)))
    listener = listen(broker.port)
    topic = "homeassistant/binary_sensor/edgeunip_house_door_cam_alarm_fever/config"
    listener.wait(topic)
    before = len(listener.of(topic))
    subprocess.run(["mosquitto_pub", "-p", str(broker.port), "-t", "homeassistant/status", "-m", "online"], check=True)
    wait_for(lambda: len(listener.of(topic)) > before)
    sink.close()


def test_a_killed_broker_loses_nothing_and_is_back_in_five_seconds(listen, tmp_path):
    """The broker keeps the listener's session over its kills, so what the listener misses the sink has lost."""
    with mosquitto(tmp_path, lasting=True) as broker:
        listener = listen(broker.port, lasting=True)
        sink = sink_to(broker, f"rate=100000&spool={tmp_path}/spool")
        delays, sent = [], 0
        for _ in range(3):
            for _ in range(50):
                sink.write(result(sent))
                sent += 1
            wait_for(lambda sent=sent: len(set(seqs(listener))) == sent)
            time.sleep(0.2)  # the broker's own file
            broker.kill()
            for _ in range(200):
                sink.write(result(sent))
                sent += 1
            time.sleep(1.5)
            broker.start()
            began = time.monotonic()
            wait_for(lambda: sink.trouble is None)
            delays.append(time.monotonic() - began)
            wait_for(lambda sent=sent: len(set(seqs(listener))) == sent, 20)
        sink.close()
        found = list(dict.fromkeys(seqs(listener)))
        assert found == list(range(sent))
        assert (sink.dropped, max(delays) < 5) == (0, True)


def test_events_arrive_in_order_across_an_outage(broker, listen, tmp_path):
    """A listener with a session of its own that the broker, only stopped and cut off, keeps."""
    listener = listen(broker.port)
    sink = sink_to(broker, f"rate=100000&spool={tmp_path}/spool")
    for seq in range(50):
        sink.write(result(seq))
    wait_for(lambda: seqs(listener) == list(range(50)))
    broker.stop()
    for seq in range(50, 1050):
        sink.write(result(seq))
    time.sleep(1)
    assert len(seqs(listener)) == 50
    broker.resume()
    wait_for(lambda: len(seqs(listener)) >= 1050, 20)
    assert seqs(listener) == list(range(1050))
    sink.close()
    assert sink.dropped == 0


def naive(port):
    """The obvious publisher: a client that reconnects by itself and publishes what it has."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


_SENDER = """
import sys, time
sys.path.insert(0, sys.argv[3])
from dataclasses import replace
from live_results import CLASSES, made
from edgeunip.runtimes.sinks import Setting, open_sink
sink = open_sink(f"mqtt:127.0.0.1:{sys.argv[1]}/house/door?rate=100000&{sys.argv[2]}", Setting(CLASSES, ("cam",)))
results = made(0)
for seq in range(int(sys.argv[4]), 10**6):
    frame = replace(results.frame, seq=seq)
    sink.write(replace(results, frame=frame, camera="cam"))
    print(seq, flush=True)
    time.sleep(0.002)
"""


def sender(port, options="", first=0):
    command = [
        sys.executable,
        "-c",
        _SENDER,
        str(port),
        options,
        str(Path(made.__code__.co_filename).parent),
        str(first),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kill_after(process, lines):
    """Kill it -9 once it has said so many lines; return the last number it said."""
    said = [int(process.stdout.readline()) for _ in range(lines)]
    process.kill()
    rest = [line for line in process.stdout.read().split("\n") if line]
    process.wait()
    process.stdout.close()
    return int(rest[-1]) if rest else said[-1]


def test_the_last_will_of_a_killed_process(broker, listen):
    listener = listen(broker.port)
    process = sender(broker.port)
    listener.wait("house/door/status", "online")
    kill_after(process, 100)
    listener.wait("house/door/status", "offline", 5)


def test_a_kill_of_ourselves_loses_no_event(broker, listen, tmp_path):
    """Three lives, each killed while the broker is stopped and messages are on their way."""
    listener = listen(broker.port)
    first = 0
    for life in range(3):
        process = sender(broker.port, f"spool={tmp_path}/spool", first)
        for _ in range(150):
            process.stdout.readline()
        if life != 1:
            broker.stop()
        first = kill_after(process, 150) + 1
        broker.resume()
    sink = sink_to(broker, f"spool={tmp_path}/spool&rate=1000")
    wait_for(lambda: sink.trouble is None and sink._spool.waiting == 0)
    sink.close()
    wait_for(lambda: set(seqs(listener)) >= set(range(first)), what="the arrival of every event")
    found = seqs(listener)
    fresh = list(dict.fromkeys(found))
    assert fresh == sorted(fresh)  # what came twice aside, in order
    assert len(found) - len(fresh) <= 3 * 700  # at least once: about a second's worth twice


def test_control_without_a_spool_a_kill_loses_events(broker, listen):
    listener = listen(broker.port)
    process = sender(broker.port)
    for _ in range(100):
        process.stdout.readline()
    broker.stop()
    last = kill_after(process, 300)
    broker.resume()
    listener.wait("house/door/status", "offline")
    assert len(set(seqs(listener))) < last


def test_control_a_naive_publisher_loses_what_it_says_while_the_broker_is_away(broker, listen):
    client = naive(broker.port)
    wait_for(client.is_connected)
    broker.kill()
    wait_for(lambda: not client.is_connected())
    for seq in range(100):
        client.publish("naive", str(seq), qos=0)
    broker.start()
    listener = listen(broker.port)
    wait_for(client.is_connected)
    client.publish("naive", "100", qos=0)
    listener.wait("naive", "100")
    client.disconnect()
    client.loop_stop()
    assert len(listener.of("naive")) < 101


def test_drops_are_counted_exactly(broker, listen, tmp_path):
    broker.kill()
    sink = sink_to(broker, f"rate=100000&spool={tmp_path}/spool&spool_mb=0.2")
    for seq in range(1000):
        sink.write(result(seq))
    dropped = sink.dropped
    assert 500 < dropped < 1000
    size = sum(path.stat().st_size for path in (tmp_path / "spool").glob("*.jsonl"))
    assert size <= 200_000
    broker.start()
    listener = listen(broker.port)
    wait_for(lambda: len(seqs(listener)) + dropped >= 1000 or sink._spool.waiting == 0)
    sink.close()
    assert sink.dropped == dropped
    found = seqs(listener)
    assert found == list(range(1000 - len(found), 1000))  # a listener that came late may miss the first


def link(broker, folder, limit=50_000_000):
    return Link(Broker("127.0.0.1", broker.port), Spool(folder, limit=limit), alive="status")


@pytest.mark.parametrize("events", [20_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_events_wait_on_the_disk_and_not_in_memory(broker, tmp_path, events):
    broker.kill()
    here = link(broker, tmp_path / "spool")
    process, payload = psutil.Process(), "x" * 200
    for number in range(events):
        here.event("many", f"{number} {payload}")
        here.value("now", str(number))
        if number == events // 5:
            before = process.memory_info().rss
    assert process.memory_info().rss - before < 2 << 20
    broker.start()
    command = ["mosquitto_sub", "-p", str(broker.port), "-t", "many", "-q", "1", "-C", str(events), "-W", "120"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        found = []
        while found[-1:] != [events - 1]:
            found.append(int(listener.stdout.readline().split()[0]))
        listener.kill()
    assert process.memory_info().rss - before < 4 << 20
    here.close()
    assert here._spool.dropped == 0
    assert found == list(range(events - len(found), events))  # it may have come a moment late
    assert len(found) > 0.8 * events


def test_a_broker_that_stops_is_waited_for_without_growing(broker, tmp_path):
    here = link(broker, tmp_path / "spool")
    wait_for(lambda: here.connections == 1)
    broker.stop()
    process = psutil.Process()
    for number in range(2000):
        here.value("now", str(number))
        here.event("many", str(number))
    before = process.memory_info().rss
    for number in range(40_000):
        here.value("now", "x" * 500)
        here.event("many", str(number))
    assert process.memory_info().rss - before < 4 << 20
    began = time.monotonic()
    here.close()
    assert time.monotonic() - began < 1.5
    broker.resume()


def test_a_changed_password_is_told_and_then_found(tmp_path, listen, caplog):
    caplog.set_level(logging.WARNING)
    secret = tmp_path / "secret"
    secret.write_text(CANARY + "\n")
    secret.chmod(0o600)
    with mosquitto(tmp_path, users={"me": CANARY, "other": "other"}) as broker:
        sink = sink_to(broker, f"user=me&password_file={secret}&rate=1000")
        listener = listen(broker.port, login=("other", "other"))
        listener.wait("house/door/status", "online")
        set_passwords(tmp_path, {"me": CANARY + "-2", "other": "other"})
        broker.kill()
        broker.start()
        wait_for(lambda: sink.trouble is not None and "refuses" in str(sink.trouble))
        assert str(sink.trouble) == (
            f"The MQTT broker refuses the connection: mqtt:127.0.0.1:{broker.port} (Not authorized). "
            "Check user= and the password file."
        )
        sink.write(result(7))
        later = listen(broker.port, login=("other", "other"), client_id="later")
        secret.write_text(CANARY + "-2\n")
        wait_for(lambda: sink.trouble is None, 15)
        wait_for(lambda: seqs(later) == [7])
        sink.close()
    assert CANARY not in caplog.text
    assert sum("refuses" in line for line in caplog.messages) == 1


def certificates(folder):
    """An authority of our own and a certificate for localhost: (authority, certificate, key) files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def made_by(subject, issuer, public, private, *, authority):
        now = datetime.datetime.now(datetime.timezone.utc)
        hour = datetime.timedelta(hours=1)
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - hour)
            .not_valid_after(now + hour)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(private, hashes.SHA256())
        )

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    root = made_by("root", "root", keys[0].public_key(), keys[0], authority=True)
    leaf = made_by("localhost", "root", keys[1].public_key(), keys[0], authority=False)
    files = [folder / "ca.pem", folder / "leaf.pem", folder / "key.pem"]
    files[0].write_bytes(root.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files[2].write_bytes(keys[1].private_bytes(encoding, form, serialization.NoEncryption()))
    return files


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls(tmp_path):
    authority, certificate, key = certificates(tmp_path)
    with mosquitto(tmp_path, tls=(certificate, key)) as broker:
        address = f"mqtt:localhost:{broker.port}/a"
        sink = open_sink(f"{address}?tls=1&ca={authority}", Setting(CLASSES))
        wait_for(lambda: sink._link.connections == 1)
        sink.close()
        for options, told in [
            (
                "?tls=1",
                "is not trusted: mqtt:localhost:{} (unable to get local issuer certificate). Name the authority",
            ),
            ("?tls=0", "cannot be reached: mqtt:localhost:{} ("),
        ]:
            sink = open_sink(address + options, Setting(CLASSES))
            wait_for(lambda sink=sink: sink.trouble is not None)
            assert told.format(broker.port) in str(sink.trouble)
            sink.close()
        sink = open_sink(f"{address.replace('localhost', '127.0.0.1')}?tls=1&ca={authority}", Setting(CLASSES))
        wait_for(lambda: sink.trouble is not None)
        assert "not trusted" in str(sink.trouble)
        assert "IP address mismatch" in str(sink.trouble)
        sink.close()
    with mosquitto(tmp_path) as broker:
        sink = open_sink(f"mqtt:localhost:{broker.port}/a?tls=1", Setting(CLASSES))
        wait_for(lambda: sink.trouble is not None)
        assert "cannot be reached" in str(sink.trouble)
        sink.close()


def test_many_reconnects_leave_nothing_behind(broker, tmp_path):
    here = link(broker, tmp_path / "spool")
    wait_for(lambda: here.connections == 1)
    process = psutil.Process()
    before = process.num_fds(), threading.active_count()
    for number in range(2, 12):
        broker.kill()
        broker.start()
        wait_for(lambda number=number: here.connections == number)
    assert (process.num_fds(), threading.active_count()) == before
    here.close()


def test_a_link_that_breaks_while_it_is_written_to_loses_nothing(broker, listen, monkeypatch, caplog):
    listener = listen(broker.port, lasting=True)
    publish, calls = mqtt.Client.publish, itertools.count(1)

    def breaking(client, topic, *args, **options):
        if topic == "many" and next(calls) in (5, 90, 170):
            client.socket().shutdown(socket.SHUT_RDWR)
            info = mqtt.MQTTMessageInfo(1)
            info.rc = mqtt.MQTT_ERR_CONN_LOST
            return info
        return publish(client, topic, *args, **options)

    monkeypatch.setattr(mqtt.Client, "publish", breaking)
    here = Link(Broker("127.0.0.1", broker.port), Spool(None), alive="status")
    for number in range(200):
        here.event("many", str(number))
    wait_for(lambda: set(listener.of("many")) == {str(number) for number in range(200)}, 30)
    assert here.connections == 4
    here.close()


def test_several_threads_write(broker, listen):
    cameras = tuple(f"cam{number}" for number in range(4))
    listener = listen(broker.port)
    sink = sink_to(broker, "rate=100000", setting=Setting(CLASSES, cameras))
    ready = [result(seq) for seq in range(3)]

    def write(camera):
        for seq in range(100):
            sink.write(replace(ready[seq % 3], camera=camera, alarms=(fever(),) if seq % 2 else ()))

    threads = [threading.Thread(target=write, args=(camera,)) for camera in cameras]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for camera in cameras:
        wait_for(lambda camera=camera: len(listener.of(f"house/door/{camera}/result")) == 100)
        states = [json.loads(text)["state"] for text in listener.of(f"house/door/{camera}/alarm")]
        assert states == [*["raised", "cleared"] * 49, "raised"]
    sink.close()


def test_nobody_waits_for_a_black_hole(tmp_path):
    """A host that swallows every packet: opening, writing and closing stay quick."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port), backlog=0):
        began = time.monotonic()
        sink = open_sink(f"mqtt:127.0.0.1:{port}/a", Setting(CLASSES))
        sink.write(made(0))
        assert time.monotonic() - began < 1
        time.sleep(0.3)
        began = time.monotonic()
        sink.close()
        assert time.monotonic() - began < 1.5
