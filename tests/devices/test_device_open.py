from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeunip.devices.open import open_camera
from edgeunip.errors import EdgeunipError, SourceError, UsageError


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/nowhere/at/all", "The source cannot be opened: /nowhere/at/all (No such file or directory). A source"),
        ("http://u:CANARY@cam/x?token=CANARY", "Unknown kind of source: http://***@cam/x?***. A source is /dev/videoN"),
        ("u:CANARY@cam/x", "The source cannot be opened: ***@cam/x (No such"),
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
    with pytest.raises(SourceError, match=r"The camera is not there: /dev/video99 \(No such file.*ls /dev/video\*"):
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
from edgeunip.devices.open import open_camera
from edgeunip.errors import MissingDependencyError
try:
    open_camera({str(tmp_path / "a.mkv")!r})
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "The package av is not installed. Run: pip install av\n"
