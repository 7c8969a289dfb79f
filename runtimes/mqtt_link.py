"""One connection to an MQTT broker, kept up by a thread of its own.

Two kinds of messages go over it. A *value* is how something is now: retained at the broker, the newest replaces older
ones, and all are sent again after a reconnect. An *event* is what happened: it waits in the spool until the broker
has acknowledged it, and events arrive in order, at least once.
"""

from __future__ import annotations

import logging
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgeunip.budget import BUDGET, Budget
from edgeunip.errors import SinkError
from edgeunip.runtimes.spool import Message, Spool

_KEEPALIVE_S = 10
_TURN_S = 0.1
_WINDOW = 50
_REFUSED = ("not authori", "bad user name", "bad username", "banned")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Broker:
    """Whom to talk to.

    Attributes:
        host, port: its address.
        user: None for none.
        password: read at every connection; returns None for none.
        tls: whether the link is encrypted, and the broker must prove who it is.
        ca: certificates to trust; None for the system's.
    """

    host: str
    port: int
    user: str | None = None
    password: Callable[[], str | None] = field(default=lambda: None, repr=False)
    tls: bool = False
    ca: Path | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt:{host}:{self.port}"


class Link:
    """Sends values and events. No method waits for the broker.

    Attributes:
        trouble: why there is no connection; None while there is one.
        connections: how many there have been.
    """

    def __init__(
        self,
        broker: Broker,
        spool: Spool,
        *,
        alive: str,
        every: Callable[[], None] = lambda: None,
        heard: tuple[str, Callable[[str], None]] | None = None,
        budget: Budget = BUDGET,
    ) -> None:
        """Start connecting.

        Args:
            broker: where to.
            spool: what keeps the events. The link closes it.
            alive: topic that says ``online``, and ``offline`` once this process has gone, however it went.
            every: called in the link's thread several times a second while connected.
            heard: a topic to listen to, and what to call with each of its messages.
            budget: the time limits.
        """
        self.trouble: SinkError | None = None
        self.connections = 0
        self._broker, self._spool, self._alive, self._every, self._heard = broker, spool, alive, every, heard
        self._budget = budget
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}
        self._fresh: dict[str, None] = {}
        self._flight: dict[int, Message] = {}
        self._unsure: list[Message] = []
        self._value_flight: set[int] = set()
        self._given_up = 0  # messages whose loss was told
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=str(broker), daemon=True)
        self._thread.start()

    def value(self, topic: str, payload: str) -> None:
        """Say how something is now."""
        with self._lock:
            self._values[topic] = payload
            self._fresh[topic] = None

    def event(self, topic: str, payload: str) -> None:
        """Say that something happened."""
        self._spool.put(topic, payload)

    def say_again(self, begin: str) -> None:
        """Send the values whose topic begins so once more."""
        with self._lock:
            self._fresh.update((topic, None) for topic in self._values if topic.startswith(begin))

    def close(self) -> None:
        """Send what is left for a moment, say ``offline``, and end. May be called twice."""
        self._stop.set()
        self._thread.join(self._budget.grace_s)
        self._spool.close()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            before = self.connections
            try:
                self._session()
            except Exception as error:  # also what paho makes of a broker that talks nonsense: try again
                self._lost(_explained(error, self._broker))
            refused = isinstance(self.trouble, _RefusedError)  # it would be again, and some ban who asks too often
            first_s, longest_s = self._budget.sink_retry_s if refused else self._budget.retry_s
            pause_s = first_s if self.connections > before else min(2 * pause_s + first_s, longest_s)

    def _session(self) -> None:
        """Connect, and send until the connection or the stream ends."""
        refusals: list[str] = []
        client = self._client(refusals)
        client.connect(self._broker.host, self._broker.port, keepalive=_KEEPALIVE_S)
        try:
            self._shake_hands(client, refusals)
            while not self._stop.is_set():
                self._turn(client)
                self._every()
            if self._farewell(client):
                client.disconnect()
        finally:
            # Cut, not closed in form: unless all was said, the broker is to send the last will.
            if (connection := client.socket()) is not None:
                connection.close()
            # What the broker has not acknowledged may have arrived or not: it is sent again, before anything newer.
            self._unsure = [*self._flight.values(), *self._unsure]
            self._flight.clear()

    def _client(self, refusals: list[str]) -> mqtt.Client:
        """A new client each time: nothing of a lost connection lives on in it."""
        name = f"edgeunip-{secrets.token_hex(6)}"
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
        client.connect_timeout = self._budget.open_s / 2
        client.max_inflight_messages_set(2 * _WINDOW)
        client.will_set(self._alive, "offline", qos=1, retain=True)
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password())
        if self._broker.tls:
            client.tls_set_context(ssl.create_default_context(cafile=self._broker.ca))

        def connected(_: Any, __: Any, ___: Any, reason: Any, ____: Any) -> None:
            refusals.append(str(reason) if reason.is_failure else "")

        def published(_: Any, __: Any, number: int, ___: Any, ____: Any) -> None:
            self._arrived(number)

        client.on_connect, client.on_publish, client.on_message = connected, published, self._listen
        return client

    def _shake_hands(self, client: mqtt.Client, refusals: list[str]) -> None:
        deadline = time.monotonic() + self._budget.open_s / 2
        while not refusals:
            code = client.loop(_TURN_S)
            if not refusals and code != mqtt.MQTT_ERR_SUCCESS:
                raise ConnectionError("it closed the connection at once")
            if time.monotonic() > deadline:
                raise TimeoutError("it does not answer")
        if refusals[0]:
            raise _refusal(refusals[0], self._broker)
        self._begin(client)

    def _begin(self, client: mqtt.Client) -> None:
        self.connections += 1
        self._value_flight.clear()
        with self._lock:
            self._values[self._alive] = "online"
            self._fresh = dict.fromkeys([self._alive, *self._values])
        if self._heard is not None:
            client.subscribe(self._heard[0], qos=1)
        if self.trouble is not None:
            given_up, self._given_up = self._spool.dropped - self._given_up, self._spool.dropped
            also = f", {given_up} could not wait and are lost" if given_up else ""
            logger.warning("%s: connected; %d messages were waiting%s", self._broker, self._spool.waiting, also)
        self.trouble = None

    def _turn(self, client: mqtt.Client) -> None:
        while len(self._value_flight) < _WINDOW and (value := self._next_value()) is not None:
            self._value_flight.add(_published(client.publish(*value, qos=1, retain=True)))
        while len(self._flight) < _WINDOW and (message := self._next_event()) is not None:
            self._flight[_published(client.publish(message.topic, message.payload, qos=1))] = message
            del self._unsure[0]
        idle = not self._spool.waiting or len(self._flight) >= _WINDOW
        code = client.loop(_TURN_S if idle else 0.0)
        if code != mqtt.MQTT_ERR_SUCCESS:
            raise ConnectionError(mqtt.error_string(code).rstrip(".").lower())

    def _farewell(self, client: mqtt.Client) -> bool:
        """Hand over what is left and say goodbye; return whether the time was enough."""
        deadline = time.monotonic() + self._budget.grace_s / 2
        self.value(self._alive, "offline")
        while time.monotonic() < deadline:
            self._turn(client)
            with self._lock:
                left = bool(self._fresh)
            if not (left or self._value_flight or self._flight or self._unsure or self._spool.waiting):
                return True
        return False

    def _next_value(self) -> tuple[str, str] | None:
        with self._lock:
            topic = next(iter(self._fresh), None)
            if topic is None:
                return None
            del self._fresh[topic]
            return topic, self._values[topic]

    def _next_event(self) -> Message | None:
        """Return the event to send next. It is among those that are sent again until it is on its way."""
        if not self._unsure and (message := self._spool.take()) is not None:
            self._unsure.append(message)
        return self._unsure[0] if self._unsure else None

    def _arrived(self, number: int) -> None:
        """The broker has a message: all events before the oldest one on its way are done with."""
        self._value_flight.discard(number)
        message = self._flight.pop(number, None)
        if message is not None:
            oldest = min((one.number for one in [*self._flight.values(), *self._unsure]), default=message.number + 1)
            self._spool.done(oldest - 1)

    def _listen(self, _: Any, __: Any, message: mqtt.MQTTMessage) -> None:
        if self._heard is not None and message.topic == self._heard[0]:
            self._heard[1](message.payload.decode(errors="replace"))

    def _lost(self, error: SinkError) -> None:
        """Keep why, and tell it when it is news."""
        if self.trouble is None or str(self.trouble) != str(error):
            logger.warning("%s. Messages wait meanwhile.", str(error).rstrip("."))
        self.trouble = error


class _RefusedError(SinkError):
    """The broker knows us and does not want us."""


def _published(info: mqtt.MQTTMessageInfo) -> int:
    if info.rc != mqtt.MQTT_ERR_SUCCESS:
        raise ConnectionError(mqtt.error_string(info.rc).rstrip(".").lower())
    return info.mid


def _refusal(reason: str, broker: Broker) -> SinkError:
    credentials = any(word in reason.lower() for word in _REFUSED)
    remedy = "Check user= and the password file." if credentials else None
    return _RefusedError("The MQTT broker refuses the connection", where=broker, why=reason, remedy=remedy)


def _explained(error: Exception, broker: Broker) -> SinkError:
    if isinstance(error, SinkError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "Name the authority that signed the broker's certificate: ca=FILE."
        return SinkError("The MQTT broker is not trusted", where=broker, why=error.verify_message, remedy=remedy)
    if isinstance(error, ssl.SSLError):
        why = f"TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    elif isinstance(error, socket.gaierror):
        why = "no such host"
    elif isinstance(error, TimeoutError):
        why = "it does not answer"
    else:
        why = (getattr(error, "strerror", None) or str(error)).lower()
    return SinkError("The MQTT broker cannot be reached", where=broker, why=why)
