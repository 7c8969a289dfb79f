"""What needs no broker: how the sink is written, its topics, and what it tells Home Assistant."""

import json
import logging
import socket
import subprocess
import sys
import time

import pytest
from live_results import CLASSES, made

from edgeunip.classes import Classes
from edgeunip.errors import SinkError, UsageError
from edgeunip.redaction import clean
from edgeunip.runtimes.mqtt_topics import Topics, base, discovery, levels
from edgeunip.runtimes.outlet import Outlet, Port
from edgeunip.runtimes.sharing import Shared
from edgeunip.runtimes.sinks import Setting, open_sink, slug

CANARY = "c4nary-Secret"
SETTING = Setting(CLASSES)


@pytest.fixture(autouse=True)
def no_password(monkeypatch):
    monkeypatch.delenv("EDGEUNIP_MQTT_PASSWORD", raising=False)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "password"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mqtt:host", r"no topic to publish to"),
        ("mqtt:/topic", r"written mqtt:HOST\[:PORT\]/TOPIC"),
        ("mqtt:host:0/topic", r"written mqtt:HOST\[:PORT\]/TOPIC"),
        ("mqtt:host:x/topic", r"written mqtt:HOST\[:PORT\]/TOPIC"),
        ("mqtt:a:1:2/topic", r"written mqtt:HOST\[:PORT\]/TOPIC"),
        ("mqtt:host/a/#", r"no topic to publish to: a/#"),
        ("mqtt:host/a//b", r"no topic to publish to"),
        ("mqtt:host/$SYS/a", r"no topic to publish to"),
        ("mqtt:host/a?user=x&rate=0", r"rate=0 \(it must be a number above 0\)"),
        ("mqtt:host/a?tls=yes", r"tls=yes \(write 1 or 0\)"),
        ("mqtt:host/a?spol=x", r"no option spol\. Did you mean spool"),
    ],
)
def test_grammar(text, message):
    with pytest.raises(UsageError, match=message):
        open_sink(text, SETTING)


@pytest.mark.parametrize(
    "text", [f"mqtt:me:{CANARY}@host/a", f"mqtt:host/a?user=me&password={CANARY}", f"mqtt:host/a?PASSWD={CANARY}"]
)
def test_a_password_on_the_command_line_is_refused_and_not_repeated(text):
    with pytest.raises(
        UsageError, match=r"where every user may read it\. Write \?user=NAME&password_file=FILE"
    ) as told:
        open_sink(text, SETTING)
    assert CANARY not in str(told.value)


def test_a_password_does_not_cross_an_open_network(secret, monkeypatch):
    with pytest.raises(UsageError, match=r"everybody to read: broker\.example\. Write \?tls=1, or &insecure=1"):
        open_sink(f"mqtt:broker.example/a?user=me&password_file={secret}", SETTING)
    with pytest.raises(UsageError, match="needs a user"):
        open_sink(f"mqtt:127.0.0.1/a?password_file={secret}", SETTING)
    monkeypatch.setenv("EDGEUNIP_MQTT_PASSWORD", CANARY)
    with pytest.raises(UsageError, match="everybody to read"):
        open_sink("mqtt:192.0.2.1/a?user=me", SETTING)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_it_may_within_this_machine(secret, host):
    sink = open_sink(f"mqtt:{host}/a?user=me&password_file={secret}", SETTING)
    assert sink.name == f"mqtt:{host}/a"
    sink.close()


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(SinkError, match=r"password file cannot be read: .*/none \(No such file"):
        open_sink(f"mqtt:127.0.0.1/a?user=me&password_file={tmp_path}/none", SETTING)
    with pytest.raises(SinkError, match=r"file of certificates is not there: .*/none"):
        open_sink(f"mqtt:127.0.0.1/a?tls=1&ca={tmp_path}/none", SETTING)


def test_a_password_others_may_read_is_warned_of(secret, caplog):
    secret.chmod(0o640)
    open_sink(f"mqtt:127.0.0.1:1/a?user=me&password_file={secret}", SETTING).close()
    assert f"Run: chmod 600 {secret}" in caplog.text
    assert CANARY not in caplog.text
    assert clean(f"the password is {CANARY}!") == "the password is ***!"


def test_no_broker_no_wait(caplog):
    caplog.set_level(logging.WARNING)
    began = time.monotonic()
    sink = open_sink("mqtt:127.0.0.1:1/a?rate=1000", SETTING)
    results = [made(seq) for seq in range(3)]
    for seq in range(3000):
        sink.write(results[seq % 3])
        if seq % 500 == 0:
            time.sleep(0.002)
    assert time.monotonic() - began < 10
    while sink.trouble is None:
        time.sleep(0.01)
    assert str(sink.trouble) == "The MQTT broker cannot be reached: mqtt:127.0.0.1:1 (connection refused)"
    time.sleep(0.5)
    assert len(caplog.records) == 1  # several attempts, one line
    sink.close()
    sink.close()


def test_why_messages_wait_is_seen_in_the_status_also_through_a_lease():
    lease = Shared("mqtt", lambda: open_sink("mqtt:127.0.0.1:1/a", SETTING)).lease()
    outlet = Outlet(Port.of(lease), live=True, on_end=lambda _: None)
    outlet.queue.put((made(), lambda: None))
    while not outlet.status.message:
        time.sleep(0.01)
    status = outlet.status
    assert status.message == "The MQTT broker cannot be reached: mqtt:127.0.0.1:1 (connection refused)"
    assert status.running and status.failures == 0
    outlet.queue.close()
    outlet.join(5)
    assert outlet.ended and outlet.status.message == ""


def test_a_broker_that_talks_nonsense_is_asked_again():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        sink = open_sink(f"mqtt:127.0.0.1:{server.getsockname()[1]}/a", SETTING)
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(1000)
                connection.sendall(b"\x20\x02\x00\x00\x32\x01\x00")  # welcome, and a message without its topic
                while connection.recv(1000):
                    pass
        sink.close()


def test_paho_is_named_where_it_is_missing():
    code = (
        "import sys; sys.modules['paho'] = None; sys.modules['paho.mqtt'] = None\n"
        "from edgeunip.classes import Classes; from edgeunip.runtimes.sinks import *\n"
        "try: open_sink('mqtt:127.0.0.1/a', Setting(Classes(('a',), ((0, 0, 0),))))\n"
        "except Exception as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "The package paho.mqtt is not installed. Run: pip install 'edgeunip[mqtt]'\n"


def test_names_become_different_levels():
    assert levels(["a b", "a/b", "a-b", "人", "x+#"]) == {
        "a b": "a-b",
        "a/b": "a-b-2",
        "a-b": "a-b-3",
        "人": "人",
        "x+#": "x-",
    }
    assert levels(["/dev/video0", "人", "門"], slug) == {"/dev/video0": "dev-video0", "人": "camera", "門": "camera-2"}
    assert base("/house/door/") == "house/door"


def test_home_assistant_is_told_everything_once():
    cameras = levels(["/dev/video0", "yard"], slug)
    topics = Topics("house/door", cameras, levels(CLASSES.names), levels(["fever"]))
    messages = {topic: json.loads(payload) for topic, payload in discovery("homeassistant", topics).items()}
    assert len(messages) == 2 * (1 + 2 * len(CLASSES) + 1)
    assert len({fields["unique_id"] for fields in messages.values()}) == len(messages)
    heat = messages["homeassistant/sensor/edgeunip_house_door_dev-video0_person_max/config"]
    assert heat == {
        "name": "person max",
        "state_topic": "house/door/dev-video0/class/person",
        "value_template": "{{ value_json.max_c }}",
        "device_class": "temperature",
        "unit_of_measurement": "°C",
        "state_class": "measurement",
        "unique_id": "edgeunip_house_door_dev-video0_person_max",
        "availability_topic": "house/door/status",
        "device": {"identifiers": ["edgeunip_house_door_dev-video0"], "name": "house door dev-video0"},
    }
    alarm = messages["homeassistant/binary_sensor/edgeunip_house_door_yard_alarm_fever/config"]
    assert (alarm["state_topic"], alarm["payload_on"]) == ("house/door/yard/alarm/fever", "raised")


def test_identifiers_stay_apart_for_any_names():
    names = ("background", "a b", "a-b", "a_b", "人", "a.b")
    classes = Classes(names, tuple((n, n, n) for n in range(len(names))))
    topics = Topics("t", {"": "camera"}, levels(classes.names), {})
    found = discovery("homeassistant", topics)
    assert len(found) == 1 + 2 * len(names)
    assert all(part.isascii() for topic in found for part in topic.split("/"))
