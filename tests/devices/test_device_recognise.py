from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from fake_kernel import FakeKernel
from lepton_rows import rows

from edgeunip import cli_cameras
from edgeunip.devices import profiles
from edgeunip.devices.recognise import profile_of, usb_id
from edgeunip.devices.v4l2 import Identity, Node, Offer, V4l2Camera
from edgeunip.devices.v4l2.device import Size
from edgeunip.devices.v4l2.identity import Place
from edgeunip.frame import State
from edgeunip.thermal import Linear


@pytest.fixture(autouse=True)
def no_profiles_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEUNIP_CAMERAS", str(tmp_path))


def _node(vendor: str = "1e4e", product: str = "0100", *, problem: str = "") -> Node:
    who = Identity(
        "/dev/v4l/by-id/usb-GroupGets_PureThermal-video-index0", vendor, product, "8001", "PureThermal", "1-1"
    )
    offers = (Offer("Y16 ", "16-bit Greyscale", (Size(160, 120, (8.7,)), Size(160, 122, (8.7,)))),)
    return Node("/dev/video2", who, "uvcvideo", "PureThermal (fw:v1.3.0)", "usb", True, offers, problem)


def test_a_node_is_recognised_by_its_usb_id_and_its_sizes() -> None:
    found = profile_of(_node())
    assert found is profiles.PROFILES["lepton"] and usb_id(_node()) == "1e4e:0100"
    unknown = Node("/dev/video3", Identity(), card="Webcam", captures=True)
    assert profile_of(unknown) is None and usb_id(unknown) == ""


def test_a_node_is_shown_with_its_profile_and_its_problem() -> None:
    shown = "\n".join(cli_cameras._describe_node(_node(), profile_of(_node())))
    for part in (
        "/dev/video2  PureThermal (fw:v1.3.0)  1e4e:0100",
        "/dev/v4l/by-id/usb-GroupGets",
        "160x122 at 8.7 Hz",
    ):
        assert part in shown
    assert "profile      lepton: FLIR Lepton" in shown
    broken = _node(problem="You may not open the camera: /dev/video2. Join its group: sudo usermod -aG video $USER.")
    assert "problem      You may not open" in "\n".join(cli_cameras._describe_node(broken, None))
    unknown = Node("/dev/video3", Identity(), card="Webcam", captures=True)
    assert "edgeunip cameras probe /dev/video3" in "\n".join(cli_cameras._describe_node(unknown, None))
    assert cli_cameras._node_json(_node(), profile_of(_node()))["profile"] == "lepton"


def test_telemetry_comes_through_the_driver() -> None:
    """From the kernel's buffers: the size with telemetry is asked for, its rows are read and cut off."""
    scene = (29_000 + np.arange(120 * 160).reshape(120, 160) % 900).astype("<u2")
    kernel = FakeKernel(sizes=((120, 160), (122, 160)))
    over = threading.Event()

    def expose() -> None:
        counter = 0
        while not over.wait(0.01):
            counter += 3
            if kernel.streaming:
                kernel.expose(np.vstack([scene, rows(counter=counter, ffc=2 if counter > 30 else 1)]).astype("<u2"))

    feeding = threading.Thread(target=expose)
    feeding.start()
    try:
        lepton = profiles.PROFILES["lepton"]
        with V4l2Camera(Place("/dev/video7"), profile=lepton, kernel=kernel) as camera:
            states = set()
            for frame in camera:
                assert np.array_equal(frame.counts, scene) and frame.radiometry == Linear(0.01, -273.15)
                states.add(frame.state)
                if frame.state is State.FFC:
                    break
    finally:
        over.set()
        feeding.join()
    assert (kernel.height, kernel.width) == (122, 160) and State.FFC in states


def test_a_profile_is_found_for_every_camera_of_the_list_that_has_an_id() -> None:
    for profile in profiles.PROFILES.values():
        for usb in profile.usb:
            vendor, product = usb.split(":")
            sizes = tuple(Size(columns, rows) for rows, columns in profile.sizes)
            node = Node("/dev/video0", Identity("", vendor, product), captures=True, offers=(Offer("Y16 ", "", sizes),))
            assert profile_of(node) is profile
