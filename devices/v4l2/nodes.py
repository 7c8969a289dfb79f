"""The video nodes of this device, for a list that people read: what each is, offers, and why it cannot be used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgeunip.devices.v4l2.device import Capability, Device, Size
from edgeunip.devices.v4l2.faults import failure
from edgeunip.devices.v4l2.identity import DEV, SYSFS, Identity, identity
from edgeunip.devices.v4l2.kernel import LINUX, Kernel

_NODE = re.compile(r"video(\d+)")


@dataclass(frozen=True)
class Offer:
    """A format a camera offers: its code, what the driver calls it, and the sizes."""

    code: str
    description: str
    sizes: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Node:
    """A device node.

    Attributes:
        path: such as ``/dev/video0``.
        identity: which camera it is.
        driver, card, bus: what the driver says; empty where it could not be asked.
        captures: frames can be had from it.
        offers: the formats, empty where it does not capture.
        problem: why it cannot be used and what to do, in one line; empty where it can.
    """

    path: str
    identity: Identity
    driver: str = ""
    card: str = ""
    bus: str = ""
    captures: bool = False
    offers: tuple[Offer, ...] = ()
    problem: str = ""


def list_nodes(*, kernel: Kernel = LINUX, dev: Path = DEV, sysfs: Path = SYSFS) -> tuple[Node, ...]:
    """Return every video node by its number. Each is opened for a moment; one that streams goes on undisturbed."""
    found = {int(match.group(1)): path for path in dev.glob("video*") if (match := _NODE.fullmatch(path.name))}
    return tuple(look(str(found[number]), kernel=kernel, dev=dev, sysfs=sysfs) for number in sorted(found))


def look(path: str, *, kernel: Kernel = LINUX, dev: Path = DEV, sysfs: Path = SYSFS) -> Node:
    """Return one video node. It is opened for a moment."""
    who = identity(path, dev=dev, sysfs=sysfs)
    try:
        able, offers = _ask(path, kernel)
    except OSError as error:
        return Node(path, who, card=who.card, problem=str(failure(error, path)))
    problem = "" if able.captures else f"It captures no video: {able.why_not}."
    return Node(path, who, able.driver, able.card, able.bus, able.captures, offers, problem)


def _ask(path: str, kernel: Kernel) -> tuple[Capability, tuple[Offer, ...]]:
    device = Device(path, kernel)
    try:
        able = device.capability()
        codes = device.codes() if able.captures else []
        return able, tuple(Offer(code, text, tuple(device.sizes(code))) for code, text in codes)
    finally:
        device.close()
