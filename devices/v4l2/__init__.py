"""V4L2 cameras (``/dev/video*``), read through the kernel's own interface.

:func:`open_v4l2` is the way in; :func:`list_nodes` tells what is plugged in, :func:`identity` which camera it is.
"""

from edgeunip.devices.v4l2.camera import V4l2Camera, open_v4l2
from edgeunip.devices.v4l2.identity import Identity, Place, identity, stable_path
from edgeunip.devices.v4l2.nodes import Node, Offer, list_nodes, look

__all__ = [
    "Identity",
    "Node",
    "Offer",
    "Place",
    "V4l2Camera",
    "identity",
    "list_nodes",
    "look",
    "open_v4l2",
    "stable_path",
]
