"""Names of MQTT topics, and what Home Assistant needs to find them by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgeunip.errors import UsageError
from edgeunip.frame import State

_FORBIDDEN = re.compile(r"[+#/\x00-\x20\x7f]+")
_LONGEST = 200
_CELSIUS = {"device_class": "temperature", "unit_of_measurement": "°C", "state_class": "measurement"}
_PERCENT = {"unit_of_measurement": "%", "state_class": "measurement"}


@dataclass(frozen=True)
class Topics:
    """The topics of one stream.

    Attributes:
        base: what all begin with.
        cameras, classes, alarms: the level of each by its name.
    """

    base: str
    cameras: Mapping[str, str]
    classes: Mapping[str, str]
    alarms: Mapping[str, str]

    @property
    def alive(self) -> str:
        """Where ``online`` and ``offline`` are said."""
        return f"{self.base}/status"

    def state(self, camera: str) -> str:
        """Where a camera's state is said."""
        return f"{self.base}/{self.cameras[camera]}/state"

    def result(self, camera: str) -> str:
        """Where a camera's results go."""
        return f"{self.base}/{self.cameras[camera]}/result"

    def of_class(self, camera: str, name: str) -> str:
        """Where a class's statistics are said."""
        return f"{self.base}/{self.cameras[camera]}/class/{self.classes[name]}"

    def alarm(self, camera: str, name: str | None = None) -> str:
        """Where an alarm's newest change is said, or, without a name, where every change goes."""
        every = f"{self.base}/{self.cameras[camera]}/alarm"
        return every if name is None else f"{every}/{self.alarms.get(name) or level(name)}"


def base(text: str) -> str:
    """Return the topic all others begin with.

    Raises:
        UsageError: MQTT does not allow it.
    """
    topic = text.strip("/")
    wrong = not topic or topic.startswith("$") or len(topic.encode()) > _LONGEST
    if wrong or any(not part or part != level(part) for part in topic.split("/")):
        remedy = "Write words parted by /, such as mqtt:HOST/edgeunip/door."
        raise UsageError("This is no topic to publish to", where=text[:_LONGEST] or None, remedy=remedy)
    return topic


def level(name: str) -> str:
    """Return a name as one level of a topic: without what MQTT gives a meaning, and without blanks."""
    return _FORBIDDEN.sub("-", name)


def levels(names: Iterable[str], shape: Callable[[str], str] = level) -> dict[str, str]:
    """Return a different level for each name."""
    found: dict[str, str] = {}
    for name in names:
        wanted = unique = shape(name)
        number = 1
        while unique in found.values():
            number += 1
            unique = f"{wanted}-{number}"
        found[name] = unique
    return found


def discovery(prefix: str, topics: Topics) -> dict[str, str]:
    """Return Home Assistant's configuration messages, by topic.

    A sensor for every camera's state and for every class's highest temperature and area, a binary sensor for every
    alarm.
    """
    messages: dict[str, str] = {}
    for camera in topics.cameras:
        for kind, key, fields in _entities(topics, camera):
            unique = _identifier(f"edgeunip/{topics.base}/{topics.cameras[camera]}/{key}")
            common = {"unique_id": unique, "availability_topic": topics.alive, "device": _device(topics, camera)}
            messages[f"{prefix}/{kind}/{unique}/config"] = json.dumps({**fields, **common}, ensure_ascii=False)
    return messages


def _entities(topics: Topics, camera: str) -> Iterable[tuple[str, str, dict[str, Any]]]:
    states = {"device_class": "enum", "options": [state.value for state in State]}
    yield "sensor", "state", {"name": "state", "state_topic": topics.state(camera), **states}
    for name in topics.classes:
        topic, key = topics.of_class(camera, name), topics.classes[name]
        heat = {"value_template": "{{ value_json.max_c }}", **_CELSIUS}
        share = {"value_template": "{{ (100 * value_json.area) | round(2) }}", **_PERCENT}
        yield "sensor", f"{key}/max", {"name": f"{name} max", "state_topic": topic, **heat}
        yield "sensor", f"{key}/area", {"name": f"{name} area", "state_topic": topic, **share}
    for name in topics.alarms:
        raised = {"value_template": "{{ value_json.state }}", "payload_on": "raised", "payload_off": "cleared"}
        fields = {"name": name, "device_class": "problem", "state_topic": topics.alarm(camera, name), **raised}
        yield "binary_sensor", f"alarm/{topics.alarms[name]}", fields


def _device(topics: Topics, camera: str) -> dict[str, Any]:
    place = f"{topics.base}/{topics.cameras[camera]}"
    return {"identifiers": [_identifier(f"edgeunip/{place}")], "name": place.replace("/", " ")}


def _identifier(text: str) -> str:
    """Return ``text`` in Home Assistant's letters; different texts stay different."""
    return re.sub(r"[^A-Za-z0-9-]", lambda found: "_" if found[0] == "/" else f"_{ord(found[0]):x}_", text)
