"""Which camera stands behind a node, and the list of them: against a /dev and a /sys of ours."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from fake_kernel import CAPTURES, METADATA, FakeKernel

from edgeunip.devices import recognise
from edgeunip.devices.v4l2 import Identity, Node, Offer, Place, abi, identity, list_nodes, look, stable_path
from edgeunip.devices.v4l2.device import Size


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """Nodes of a PureThermal (with its dead second one) and of a camera that has no USB."""
    folder = tmp_path / "dev"
    for kind in ("by-id", "by-path"):
        (folder / "v4l" / kind).mkdir(parents=True)
    for number in (0, 1, 2, 10):
        (folder / f"video{number}").touch()
    (folder / "video").touch()
    (folder / "video0-notes").touch()
    for name, number in (
        ("by-id/usb-GroupGets_PureThermal_8003-video-index0", 0),
        ("by-id/usb-GroupGets_PureThermal_8003-video-index1", 1),
        ("by-path/pci-0000:00:14.0-usb-0:1.2:1.0-video-index0", 0),
        ("by-path/platform-vivid.0-video-index0", 2),
    ):
        (folder / "v4l" / name).symlink_to(f"../../video{number}")
    return folder


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    folder = tmp_path / "sys"
    usb = folder / "devices/pci0000:00/usb1/1-1/1-1.2"
    (usb / "1-1.2:1.0").mkdir(parents=True)
    for name, text in (("idVendor", "1e4e\n"), ("idProduct", "0100\n"), ("serial", "8003-0001\x1b[2J\n")):
        (usb / name).write_text(text)
    vivid = folder / "devices/platform/vivid.0"
    vivid.mkdir(parents=True)
    for number, card, device in (
        (0, "PureThermal 1", usb / "1-1.2:1.0"),
        (1, "PureThermal 1", usb / "1-1.2:1.0"),
        (2, "vivid-000-vid-cap", vivid),
    ):
        entry = folder / f"class/video4linux/video{number}"
        entry.mkdir(parents=True)
        (entry / "name").write_text(f"{card}\n")
        (entry / "device").symlink_to(device)
    return folder


def test_the_identity_of_a_usb_camera(dev: Path, sysfs: Path) -> None:
    link = str(dev / "v4l/by-id/usb-GroupGets_PureThermal_8003-video-index0")
    expected = Identity(link, "1e4e", "0100", "8003-0001?[2J", "PureThermal 1", "1-1.2")
    assert identity(str(dev / "video0"), dev=dev, sysfs=sysfs) == expected
    assert identity(link, dev=dev, sysfs=sysfs) == expected


def test_the_identity_of_other_cameras(dev: Path, sysfs: Path) -> None:
    found = identity(str(dev / "video2"), dev=dev, sysfs=sysfs)
    link = str(dev / "v4l/by-path/platform-vivid.0-video-index0")
    assert found == Identity(by_id=link, card="vivid-000-vid-cap", bus="vivid.0")
    own = dev / "thermal"
    own.symlink_to("video2")
    assert identity(str(own), dev=dev, sysfs=sysfs) == found
    assert identity(str(dev / "video10"), dev=dev, sysfs=sysfs) == Identity()
    assert identity(str(dev / "video99"), dev=dev, sysfs=sysfs) == Identity()


def test_the_stable_name(dev: Path, tmp_path: Path) -> None:
    by_id = str(dev / "v4l/by-id/usb-GroupGets_PureThermal_8003-video-index0")
    assert stable_path(str(dev / "video0"), dev=dev) == by_id
    assert stable_path(by_id, dev=dev) == by_id
    by_path = str(dev / "v4l/by-path/pci-0000:00:14.0-usb-0:1.2:1.0-video-index0")
    assert stable_path(by_path, dev=dev) == by_path, "who names the port means the port"
    own = tmp_path / "thermal"  # a link of the user's, as a rule of udev makes it
    own.symlink_to(dev / "video0")
    for path in (str(own), str(dev / "video10"), str(dev / "video99")):
        assert stable_path(path, dev=dev) == path
    assert stable_path("/dev/video0", dev=tmp_path / "nowhere") == "/dev/video0"


def test_a_place_is_learnt_when_the_camera_is_first_there(dev: Path) -> None:
    place = Place(str(dev / "video7"), dev=dev)
    assert place.find() == place.name
    (dev / "video7").touch()
    link = dev / "v4l/by-id/usb-late-video-index0"
    link.symlink_to("../../video7")
    assert place.find() == str(link)
    (dev / "video7").unlink()
    assert place.find() == str(link), "remembered while it is away"


def test_the_list_of_nodes(dev: Path, sysfs: Path) -> None:
    kernel = FakeKernel(codes=("Y16 ", "GREY"), sizes=((120, 160), (122, 160)), interval=(1, 9))
    nodes = list_nodes(kernel=kernel, dev=dev, sysfs=sysfs)
    assert [Path(node.path).name for node in nodes] == ["video0", "video1", "video2", "video10"]
    first = nodes[0]
    assert (first.driver, first.card, first.bus, first.captures) == ("uvcvideo", "PureThermal", "usb-1", True)
    assert (first.identity.usb_vendor, first.problem) == ("1e4e", "")
    assert [offer.code for offer in first.offers] == ["Y16 ", "GREY"]
    assert first.offers[0].sizes == (Size(160, 120, (9.0,)), Size(160, 122, (9.0,)))
    assert kernel.node == -1 and abi.S_FMT not in kernel.calls, "looking changes nothing"


def test_a_node_that_cannot_be_used_says_why(dev: Path, sysfs: Path) -> None:
    kernel = FakeKernel(can=METADATA)
    node = look(str(dev / "video1"), kernel=kernel, dev=dev, sysfs=sysfs)
    assert (node.captures, node.offers) == (False, ())
    assert node.problem == "It captures no video: it is for something else, such as metadata."
    kernel.fails[0] = errno.EACCES
    node = look(str(dev / "video0"), kernel=kernel, dev=dev, sysfs=sysfs)
    assert node.card == "PureThermal 1" and "may not open the camera" in node.problem and "usermod" in node.problem
    kernel.fails, kernel.can = {abi.ENUM_FMT: errno.EIO}, CAPTURES
    assert "The camera failed" in look(str(dev / "video0"), kernel=kernel, dev=dev, sysfs=sysfs).problem
    assert kernel.node == -1


def test_a_list_that_never_ends(dev: Path, sysfs: Path) -> None:
    class Endless(FakeKernel):
        def _enum_fmt(self, argument: bytes) -> bytes:
            return abi.FMTDESC.pack(0, 1, 0, b"again", abi.code_number("Y16 "))

        def _enum_sizes(self, argument: bytes) -> bytes:
            return abi.FRMSIZE.pack(0, 0, 3, 16, 640, 16, 16, 480, 16)

        def _enum_intervals(self, argument: bytes) -> bytes:
            return abi.FRMIVAL.pack(0, 0, 0, 0, 2, 1, 60, 1, 1, 0, 0)

    node = look(str(dev / "video0"), kernel=Endless(), dev=dev, sysfs=sysfs)
    assert len(node.offers) == 256
    assert node.offers[0].sizes == (Size(16, 16, (60.0, 1.0)), Size(640, 480, (60.0, 1.0)))


def test_no_nodes(tmp_path: Path) -> None:
    assert list_nodes(dev=tmp_path) == ()


@pytest.mark.parametrize("card", ["PureThermal", "Webcam"])
def test_a_camera_is_looked_at_until_it_is_there_and_never_again(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look opens the node, and some cameras lose it after a dozen openings, known ones or not."""
    offers = (Offer("Y16 ", "", (Size(160, 120),)),)
    there = Node("/dev/video7", Identity(), card=card, captures=True, offers=offers)
    answers, asked = [Node("/dev/video7", Identity(), problem="It is not there."), there], []
    monkeypatch.setattr(recognise, "look", lambda path: (asked.append(path), answers.pop(0))[1])
    open_again = recognise.opener("/dev/video7")
    assert [open_again().name for _ in range(4)] == ["/dev/video7"] * 4
    assert asked == ["/dev/video7"] * 2 and not answers


def test_v4l2_needs_no_av() -> None:
    script = "import sys; sys.modules['av'] = None; import edgeunip.devices.v4l2, edgeunip.devices.recognise"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
