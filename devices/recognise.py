"""Which camera model is plugged in."""

from __future__ import annotations

import logging
from collections.abc import Callable

from edgeunip.devices import profiles
from edgeunip.devices.profile import Profile
from edgeunip.devices.v4l2 import Node, Place, V4l2Camera, look

logger = logging.getLogger(__name__)


def opener(path: str, *, profile: Profile | None = None) -> Callable[[], V4l2Camera]:
    """Return what opens the camera at ``path`` again and again, also when its node comes back under another number.

    A camera without a profile is asked once which it is, known or not: some lose their node after a dozen openings.
    """
    place = Place(path)
    asked = profile is not None

    def open_again() -> V4l2Camera:
        nonlocal profile, asked
        if not asked:
            node = look(place.find())
            profile, asked = recognise(node), node.captures
        return V4l2Camera(place, profile=profile)

    return open_again


def recognise(node: Node) -> Profile | None:
    """Return the profile of a camera, and say so; None where it is none that is known or could not be asked."""
    profile = profile_of(node)
    if profile is not None:
        # Not chosen by the user, and it decides what the temperatures are.
        logger.warning("%s is a known camera: profile %s; --camera names another", node.path, profile.name)
    return profile


def profile_of(node: Node) -> Profile | None:
    """Return the profile of a camera by its USB id, name and frame sizes."""
    who = node.identity
    sizes = {(size.height, size.width) for offer in node.offers for size in offer.sizes}
    return profiles.match(usb=usb_id(node), card=node.card or who.card, sizes=sizes, profiles=profiles.known())


def usb_id(node: Node) -> str:
    """Return ``vendor:product``; empty where the camera is not on USB."""
    who = node.identity
    return f"{who.usb_vendor}:{who.usb_product}" if who.usb_vendor and who.usb_product else ""
