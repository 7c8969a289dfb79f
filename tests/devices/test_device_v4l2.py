"""What can be shown of V4L2 without a camera: the choice of format and the messages. Capture itself is not shown."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.devices import v4l2
from edgeunip.devices.profiles import find
from edgeunip.errors import SourceError


@pytest.mark.parametrize(
    ("offered", "profile", "code"),
    [
        (["UYVY", "Y16 ", "GREY", "BGR3"], None, "Y16 "),
        (["UYVY", "Y16 ", "GREY", "BGR3"], "lepton", "Y16 "),
        (["MJPG", "YUYV"], None, "YUYV"),
        (["Y16 ", "YUYV"], "tc001", "YUYV"),
        (["MJPG"], None, "MJPG"),
    ],
)
def test_the_format_that_keeps_most(offered: list[str], profile: str | None, code: str) -> None:
    assert v4l2.choose_format(offered, "/dev/video0", profile=find(profile) if profile else None) == code


def test_no_format_that_is_read() -> None:
    with pytest.raises(SourceError, match=r"none of the formats Y16, GREY.*: /dev/video0 \(it offers Y16-BE, BGR3\)"):
        v4l2.choose_format(["Y16-BE", "BGR3"], "/dev/video0")
    with pytest.raises(SourceError, match=r"none of the formats YUYV: /dev/video0 \(it offers MJPG\)"):
        v4l2.choose_format(["MJPG"], "/dev/video0", profile=find("tc001"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, r"is not there: /dev/video7 .*ls /dev/video"),
        (errno.EACCES, r"may not open the camera: /dev/video7 .*usermod -aG video"),
        (errno.EBUSY, r"Another program uses the camera: /dev/video7 .*fuser"),
        (errno.ENOSPC, r"USB bus has no bandwidth left.*: /dev/video7 .*lower its resolution"),
        (errno.ENODEV, r"The camera is gone: /dev/video7"),
        (errno.ENOTTY, r"not a video device: /dev/video7"),
        (errno.EINVAL, r"The camera failed: /dev/video7 \(Invalid argument\).*dmesg"),
    ],
)
def test_each_failure_has_its_own_message(number: int, words: str) -> None:
    error = v4l2.failure(OSError(number, os.strerror(number)), "/dev/video7")
    assert isinstance(error, SourceError)
    with pytest.raises(SourceError, match=words):
        raise error


def test_the_ioctl_numbers_hold_the_sizes_of_their_structures() -> None:
    assert (v4l2._QUERYCAP >> 16) & 0x3FFF == v4l2._CAPABILITY.size == 104
    assert (v4l2._ENUM_FMT >> 16) & 0x3FFF == v4l2._FORMAT.size == 64


@given(st.binary(min_size=4, max_size=4))
def test_any_four_bytes_are_a_code(raw: bytes) -> None:
    code = v4l2._code(raw)
    assert code.endswith("-BE") if raw[3] & 0x80 else len(code) == 4


def test_big_endian_y16_is_not_taken_for_y16() -> None:
    assert (v4l2._code(b"Y16 "), v4l2._code(b"Y16\xa0")) == ("Y16 ", "Y16-BE")


class FakeNode:
    """Answers the two questions that are asked of a node as the kernel does: by structures of bytes."""

    def __init__(self, *, driver_can: int, node_can: int, codes: tuple[bytes, ...]) -> None:
        self._capability = v4l2._CAPABILITY.pack(b"uvcvideo", b"PureThermal", b"usb-1", 0x60100, driver_can, node_can)
        self._codes = codes

    def ioctl(self, node: int, request: int, argument: bytes) -> bytes:
        if request == v4l2._QUERYCAP:
            return self._capability
        index, kind, *_ = v4l2._FORMAT.unpack(argument)
        if kind != 1 or index >= len(self._codes):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return v4l2._FORMAT.pack(index, kind, 0, b"a format", self._codes[index])


CAPTURES = 0x80000000 | 0x1 | 0x00800000


def test_what_a_capture_node_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNode(driver_can=CAPTURES, node_can=0x1, codes=(b"UYVY", b"Y16 ", b"Y16\xa0"))
    monkeypatch.setattr(v4l2.fcntl, "ioctl", fake.ioctl)
    assert v4l2._offered("/dev/null") == ["UYVY", "Y16 ", "Y16-BE"]
    assert v4l2._options("/dev/null", None)["pixel_format"] == "gray16le"


def test_a_split_camera_is_asked_for_its_whole_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNode(driver_can=0x1, node_can=0, codes=(b"YUYV",))
    monkeypatch.setattr(v4l2.fcntl, "ioctl", fake.ioctl)
    options = v4l2._options("/dev/null", find("tc001"))
    assert (options["pixel_format"], options["video_size"]) == ("yuyv422", "256x384")


def test_the_metadata_node_of_a_camera_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNode(driver_can=CAPTURES, node_can=0x00800000, codes=())
    monkeypatch.setattr(v4l2.fcntl, "ioctl", fake.ioctl)
    with pytest.raises(SourceError, match=r"captures no video: /dev/null \(PureThermal\).*second node for metadata"):
        v4l2._offered("/dev/null")
