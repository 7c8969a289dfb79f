"""Results for a house or a plant: ``mqtt:HOST[:PORT]/TOPIC``.

=========================  ======  ====================================================================
topic                      kind    what it says
=========================  ======  ====================================================================
TOPIC/status               value   ``online``, ``offline``; the broker says the latter when we are gone
TOPIC/CAMERA/state         value   ``live``, ``ffc``, ``offline`` and so on
TOPIC/CAMERA/class/NAME    value   area and temperatures of a class, ``rate`` times a second
TOPIC/CAMERA/alarm/NAME    value   the newest change of an alarm
TOPIC/CAMERA/alarm         event   every change of an alarm: ``raised`` or ``cleared``
TOPIC/CAMERA/result        event   the newest result, ``rate`` times a second
=========================  ======  ====================================================================

Values are retained. Events wait while the broker is away, and arrive in order, at least once: what was on its way
when the broker or this process died may come twice, and its ``time`` tells. Home Assistant finds all of it by itself
with ``discovery=homeassistant``.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeunip.errors import SinkError, UsageError, missing_dependency
from edgeunip.frame import Alarm, Result, State
from edgeunip.runtimes.mqtt_topics import Topics, base, discovery, levels
from edgeunip.runtimes.plain import plain, plain_alarm, plain_statistics
from edgeunip.runtimes.secret import login, loopback, refuse_credentials
from edgeunip.runtimes.sinks import Setting, slug
from edgeunip.runtimes.spec import Spec, positive
from edgeunip.runtimes.spool import Spool

if TYPE_CHECKING:
    from edgeunip.runtimes.mqtt_link import Broker

PASSWORD = "EDGEUNIP_MQTT_PASSWORD"
_OPTIONS = ("user", "password_file", "tls", "ca", "insecure", "spool", "spool_mb", "discovery", "rate")


class MqttSink:
    """Publishes results. Never waits for the broker. Several threads may write.

    Attributes:
        name: the broker's address and the topic.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        setting: Setting,
        *,
        spool: Spool,
        rate_hz: float = 1.0,
        prefix: str | None = None,
    ) -> None:
        """Start connecting; the broker may be away.

        Args:
            broker: where to.
            topic: what all topics begin with.
            setting: cameras, classes, alarms and health of the stream.
            spool: what keeps the events; the sink closes it.
            rate_hz: the most results a second of each camera.
            prefix: of Home Assistant's discovery topics; None: it is told nothing.
        """
        from edgeunip.runtimes.mqtt_link import Link

        self.name = f"{broker}/{topic}"
        cameras, classes = levels(setting.cameras, slug), levels(setting.classes.names)
        self._topics = Topics(topic, cameras, classes, levels(setting.alarms))
        self._board, self._prefix, self._period_s = setting.board, prefix, 1 / rate_hz
        self._lock = threading.Lock()
        self._states: dict[str, State] = {}
        self._raised: dict[str, dict[tuple[str, int], Alarm]] = {camera: {} for camera in setting.cameras}
        self._due_s = dict.fromkeys(setting.cameras, 0.0)
        heard = None if prefix is None else (f"{prefix}/status", self._house_woke)
        with self._lock:  # the link's thread looks and hears at once
            self._link = Link(broker, spool, alive=self._topics.alive, every=self._look, heard=heard)
        self._spool = spool
        self._begin()

    @property
    def trouble(self) -> Exception | None:
        """Why messages wait: the broker is away, or the spool cannot be written; None while all is well."""
        return self._link.trouble or self._spool.trouble

    @property
    def dropped(self) -> int:
        """Events that nobody will get: the spool was full."""
        return self._spool.dropped

    def write(self, result: Result) -> None:
        """Say what is new about a camera: its alarms at once, the rest at the rate."""
        camera = result.camera if result.camera in self._due_s else next(iter(self._due_s))
        now_s = time.monotonic()
        with self._lock:
            self._say_alarms(camera, result)
            if not any(health.camera == camera for health in self._board.read()):
                self._say_state(camera, result.frame.state)
            if now_s < self._due_s[camera]:
                return
            self._due_s[camera] = now_s + self._period_s
        for name, found in result.classes.items():
            if name in self._topics.classes:
                self._link.value(self._topics.of_class(camera, name), _json(plain_statistics(found)))
        self._link.event(self._topics.result(camera), _json({"time": _now(), **plain(result)}))

    def close(self) -> None:
        """Hand over what is left for a moment and say ``offline``; the spool keeps the rest. May be called twice."""
        self._link.close()

    def _begin(self) -> None:
        """What an earlier process left at the broker is no longer so."""
        for camera in self._topics.cameras:
            for name in self._topics.alarms:
                self._link.value(self._topics.alarm(camera, name), _json({"state": "cleared", "name": name}))
        self._announce()

    def _announce(self) -> None:
        if self._prefix is not None:
            for topic, payload in discovery(self._prefix, self._topics).items():
                self._link.value(topic, payload)

    def _house_woke(self, said: str) -> None:
        if said == "online" and self._prefix is not None:
            with self._lock:
                self._link.say_again(f"{self._prefix}/")

    def _look(self) -> None:
        """A camera that is away gives no result that could say so."""
        with self._lock:
            for health in self._board.read():
                if health.camera in self._due_s:
                    self._say_state(health.camera, health.status.state)

    def _say_state(self, camera: str, state: State) -> None:
        if self._states.get(camera) is not state:
            self._states[camera] = state
            self._link.value(self._topics.state(camera), state.value)

    def _say_alarms(self, camera: str, result: Result) -> None:
        before, now = self._raised[camera], {(alarm.name, alarm.since_ns): alarm for alarm in result.alarms}
        self._raised[camera] = now
        for key in [key for key in before if key not in now]:
            self._say_alarm(camera, before[key], "cleared")
        for key in [key for key in now if key not in before]:
            self._say_alarm(camera, now[key], "raised")

    def _say_alarm(self, camera: str, alarm: Alarm, state: str) -> None:
        if alarm.name not in self._topics.alarms:
            alarms = levels([*self._topics.alarms, alarm.name])
            self._topics = replace(self._topics, alarms=alarms)
            self._announce()
        change = _json({"state": state, "time": _now(), "camera": camera, **plain_alarm(alarm)})
        self._link.event(self._topics.alarm(camera), change)
        self._link.value(self._topics.alarm(camera, alarm.name), change)


def open_mqtt(spec: Spec, setting: Setting) -> MqttSink:
    """Open ``mqtt:HOST[:PORT]/TOPIC``.

    Options: ``user``, ``password_file`` (or the environment's EDGEUNIP_MQTT_PASSWORD), ``tls=1``, ``ca=FILE``,
    ``insecure=1`` (a password over an open network), ``spool=FOLDER`` (events survive this process; without it the
    last 1000 wait in memory), ``spool_mb``, ``discovery=PREFIX``, ``rate`` (results a second).

    Raises:
        UsageError: it is written wrong, or a password would go over a network for everybody to read.
        SinkError: the password file or the certificates cannot be read, or the spool is in use.
        StorageError: the spool cannot be written.
        MissingDependencyError: paho-mqtt is not installed.
    """
    try:
        from edgeunip.runtimes.mqtt_link import Broker
    except ModuleNotFoundError as error:
        raise missing_dependency(error, "paho.mqtt", "mqtt") from error
    refuse_credentials(spec, PASSWORD)
    spec.known(_OPTIONS)
    host, port, topic = _address(spec.rest, tls=spec.option("tls", _flag, False))
    broker = Broker(host, port, **_proof(spec, host))
    limit = round(spec.option("spool_mb", positive, 50.0) * 1e6)
    spool = Spool(Path(spec.options["spool"]) if "spool" in spec.options else None, limit=limit)
    rate_hz = spec.option("rate", positive, 1.0)
    prefix = base(spec.options["discovery"]) if "discovery" in spec.options else None
    return MqttSink(broker, topic, setting, spool=spool, rate_hz=rate_hz, prefix=prefix)


def _address(rest: str, *, tls: bool) -> tuple[str, int, str]:
    place, _, topic = rest.partition("/")
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    host = host if colon else place
    known = not colon or (port.isascii() and port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536)
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or not known or (":" in bare and bare == host):
        raise UsageError("An MQTT broker is written mqtt:HOST[:PORT]/TOPIC", where=f"mqtt:{rest}"[:200])
    return bare, int(port) if colon else (8883 if tls else 1883), base(topic)


def _proof(spec: Spec, host: str) -> dict[str, Any]:
    """Return who we are and how the broker proves who it is; nothing that everybody on the way could read."""
    (user, password), tls = login(spec, PASSWORD), spec.option("tls", _flag, False)
    if password.given and not tls and not loopback(host) and not spec.option("insecure", _flag, False):
        remedy = "Write ?tls=1, or &insecure=1 if all who can listen may know it."
        raise UsageError("The password would go over the network for everybody to read", where=host, remedy=remedy)
    ca = Path(spec.options["ca"]) if "ca" in spec.options else None
    if ca is not None and not ca.is_file():
        raise SinkError("The file of certificates is not there", where=ca)
    return {"user": user, "password": password.read, "tls": tls, "ca": ca}


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("write 1 or 0")
    return text == "1"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
