"""Which cameras are plugged in, what they offer, and whether this user may open them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgeunip import machine
from edgeunip.doctor.finding import Finding, Place, bad, ok, warn

if TYPE_CHECKING:
    from edgeunip.devices.v4l2 import Node


def cameras(place: Place) -> Iterator[Finding]:
    """Look at every video node; opened for a moment, a camera that streams goes on undisturbed."""
    from edgeunip.devices.recognise import profile_of  # here, since without numpy this page must still come
    from edgeunip.devices.v4l2 import look

    captures = machine.captures(place.root)
    if not captures:
        remedy = "Plug a camera in; in a container pass it: --device /dev/video0"
        yield warn("no video device here; RTSP, UNIX sockets, files and synthetic:// remain", remedy)
    for capture in captures:
        path = place.root / capture.node.removeprefix("/")
        if path.exists():
            node = look(str(path), dev=place.root / "dev", sysfs=place.root / "sys")
            known = profile_of(node)
            yield told(capture, node, known.name if known else None)
        else:
            yield warn(
                f"{capture.node} {capture.name} is not in this container", f"Pass it in: --device {capture.node}"
            )


def told(capture: machine.Capture, node: Node, profile: str | None) -> Finding:
    """Return what one node that was looked at means."""
    link = node.identity.by_id
    name = f"{capture.node} {node.card or capture.name}{f' = {link}' if link else ''}"
    if node.captures:
        formats = ", ".join(offer.code.strip() for offer in node.offers) or "none"
        if profile is None:
            return ok(
                f"{name}: {formats}; no profile",
                f"Find out how its counts become degC: edgeunip cameras probe {capture.node}",
            )
        stable = "" if link else "It has no stable name; plugged in again it may get another number."
        return ok(f"{name}: {formats}; profile {profile}", stable)
    if node.driver:
        return ok(f"{name}: {node.problem}")  # many cameras have a second node for metadata
    return bad(f"{name} cannot be used", node.problem)
