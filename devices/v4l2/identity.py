"""Which camera stands behind a node: numbers of ``/dev/video*`` change with every plug, links and serials do not.

Nothing here opens the node: some cameras lose it after a dozen openings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeunip.devices.v4l2.abi import name_text

DEV, SYSFS = Path("/dev"), Path("/sys")


@dataclass(frozen=True)
class Identity:
    """What the system knows of a camera; empty where it knows nothing.

    Attributes:
        by_id: its link under ``/dev/v4l/by-id`` or, where there is none, ``/dev/v4l/by-path``.
        usb_vendor, usb_product: USB ids, four lower-case hexadecimal digits, such as ``1e4e`` and ``0100``.
        serial: USB serial number.
        card: the driver's name for the device.
        bus: where it is plugged in, such as ``1-1.2`` (USB bus and ports) or ``vivid.0``.
    """

    by_id: str = ""
    usb_vendor: str = ""
    usb_product: str = ""
    serial: str = ""
    card: str = ""
    bus: str = ""


def identity(path: str, *, dev: Path = DEV, sysfs: Path = SYSFS) -> Identity:
    """Tell which camera the node or link ``path`` is. What cannot be found out stays empty."""
    node = Path(path).resolve()
    entry = sysfs / "class" / "video4linux" / node.name
    device = (entry / "device").resolve()
    usb = next((place for place in (device, *device.parents) if (place / "idVendor").is_file()), None)
    link = stable_path(str(node), dev=dev)
    return Identity(
        by_id=link if link != str(node) else "",
        usb_vendor=_read(usb / "idVendor") if usb else "",
        usb_product=_read(usb / "idProduct") if usb else "",
        serial=_read(usb / "serial") if usb else "",
        card=_read(entry / "name"),
        bus=(usb or device).name if device.is_dir() else "",
    )


class Place:
    """Where a camera is found, also after it was unplugged: once seen, by its stable name.

    Attributes:
        name: the path as the user gave it.
    """

    def __init__(self, path: str, *, dev: Path = DEV) -> None:
        self.name = self._path = path
        self._dev = dev

    def find(self) -> str:
        """Return the path to open now."""
        self._path = stable_path(self._path, dev=self._dev)
        return self._path


def stable_path(path: str, *, dev: Path = DEV) -> str:
    """Return the name under which a camera can be found again after it was unplugged.

    That is its ``by-id`` link (model and serial number), else its ``by-path`` link (the port), else ``path`` as it is.
    Who names a link means what it will point to: it comes back unchanged. Of two cameras of one model without serial
    numbers only one has a ``by-id`` link: name such a pair by ``by-path``.
    """
    if Path(path).is_symlink() or not Path(path).exists():
        return path
    node = Path(path).resolve()
    for kind in ("by-id", "by-path"):
        folder = dev / "v4l" / kind
        links = sorted(folder.iterdir()) if folder.is_dir() else []
        for link in links:
            if link.resolve() == node:
                return str(link)
    return path


def _read(file: Path) -> str:
    """Return what a sysfs file says; empty where it is missing or the device is just going."""
    try:
        return name_text(file.read_bytes())
    except OSError:
        return ""
