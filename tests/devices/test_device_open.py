from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeunip.devices.folder import FolderCamera
from edgeunip.devices.guard import Guarded
from edgeunip.devices.open import open_camera, open_guarded
from edgeunip.errors import EdgeunipError, SourceError, UsageError
from edgeunip.frame import State
from edgeunip.health import CameraStatus


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/at/all", "The source cannot be opened: /nowhere/at/all (No such file or directory). A source"),
        ("http://u:CANARY@cam/x?token=CANARY", "Unknown kind of source: http://***@cam/x?***. A source is /dev/videoN"),
        ("u:CANARY@cam/x", "The source cannot be opened: ***@cam/x (No such"),
        ("unix/cam.sock", "The source cannot be opened: unix/cam.sock (No such file or directory). A source is /dev"),
    ],
)
def test_a_source_that_is_none(source: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_camera(source)
    assert str(caught.value).startswith(words) and "CANARY" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_camera_says_how_to_find_one() -> None:
    camera = open_camera("/dev/video99")
    assert (camera.name, camera.live) == ("/dev/video99", True)
    with pytest.raises(SourceError, match=r"The camera is not there: /dev/video99 \(No such file.*edgeunip cameras"):
        camera.__enter__()


def test_a_device_that_is_no_camera() -> None:
    with pytest.raises(SourceError, match="This is not a video device: /dev/null"), open_camera("/dev/null"):
        pass


def test_a_profile_is_checked_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean lepton"):
        open_camera(str(tmp_path), profile="lepton3")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("synthetic://leptom", "Unknown synthetic camera: synthetic://leptom. Did you mean lepton?"),
        ("synthetic://lepton?sed=1", "Unknown option sed: synthetic://lepton?sed=1. Did you mean seed"),
        ("synthetic://lepton?seed=x", "Option seed cannot be 'x'. For example: synthetic://"),
        ("synthetic://lepton?night=yes", "Option night cannot be 'yes'"),
        ("synthetic://lepton?seconds=nan", "Option seconds cannot be 'nan'"),
        ("synthetic://lepton?seconds=-1", "Option seconds cannot be '-1'"),
    ],
)
def test_a_wrong_synthetic_address(source: str, words: str) -> None:
    with pytest.raises(EdgeunipError) as caught:
        open_camera(source)
    assert isinstance(caught.value, UsageError) and str(caught.value).startswith(words)


def test_cameras_need_no_torch_and_files_of_images_no_av() -> None:
    script = """
import sys
for name in ("torch", "timm", "openvino", "onnx"):
    sys.modules[name] = None
import edgeunip.devices
assert "numpy" not in sys.modules and "cv2" not in sys.modules
import edgeunip.devices.open
assert "av" not in sys.modules
import edgeunip.devices.rtsp, edgeunip.devices.v4l2, edgeunip.devices.video, edgeunip.devices.synthetic
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_missing_av_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(b"x")
    script = f"""
import sys
sys.modules["av"] = None
from edgeunip.devices.folder import FolderCamera
from edgeunip.devices.guard import Guarded
from edgeunip.devices.open import open_camera, open_guarded
from edgeunip.errors import MissingDependencyError
try:
    open_camera({str(tmp_path / "a.mkv")!r})
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "The package av is not installed. Run: pip install av\n"


@pytest.mark.parametrize("source", ["/dev/video99", "rtsp://u:CANARY@127.0.0.1:1/x?token=CANARY", "unix:/nowhere.sock"])
def test_live_devices_are_guarded_and_may_be_absent(source: str) -> None:
    told: list[CameraStatus] = []
    with open_guarded(source, on_status=told.append) as camera:
        assert isinstance(camera, Guarded) and camera.live
        thread = threading.Thread(target=lambda: list(camera))
        thread.start()
        begin = time.monotonic()
        while len(told) < 4 and time.monotonic() - begin < 5:
            time.sleep(0.01)
    thread.join(1)
    assert not thread.is_alive() and len(told) >= 4
    assert told[0].reason == "starting" and told[-1].reason in ("missing", "refused")
    assert told[-1].state is State.OFFLINE and told[-1].faults[told[-1].reason] >= 3
    assert "CANARY" not in "".join(status.message for status in told) + camera.name


def test_what_is_no_live_device_comes_as_it_is(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint16))
    assert isinstance(open_guarded(str(tmp_path)), FolderCamera)
    assert not isinstance(open_guarded("synthetic://lepton"), Guarded)
    with pytest.raises(SourceError, match="cannot be opened"):
        open_guarded("/nowhere/at/all")


@pytest.mark.parametrize("source", ["/dev/video99", "unix:/nowhere.sock"])
def test_a_wrong_profile_is_told_before_anything_runs(source: str) -> None:
    with pytest.raises(UsageError, match="Did you mean lepton"):
        open_guarded(source, profile="leptn")
