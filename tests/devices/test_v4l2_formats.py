"""From the bytes in a buffer to counts, and which format is asked for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.devices.profile import Profile
from edgeunip.devices.profiles import find
from edgeunip.devices.v4l2.device import PixelFormat
from edgeunip.devices.v4l2.formats import choose_format, counts, is_whole
from edgeunip.errors import SourceError


@pytest.mark.parametrize(
    ("offered", "profile", "code"),
    [
        (["UYVY", "Y16 ", "GREY", "BGR3"], None, "Y16 "),
        (["UYVY", "Y16 ", "GREY", "BGR3"], "lepton", "Y16 "),
        (["MJPG", "YUYV"], None, "YUYV"),
        (["Y16 ", "YUYV"], "tc001", "YUYV"),
        (["MJPG"], None, "MJPG"),
        (["GREY", "Y16-BE"], None, "Y16-BE"),
        (["GREY", "Y14 "], "raw", "Y14 "),
        (["YUYV", "Y16 "], "gray8", "YUYV"),
    ],
)
def test_the_format_that_keeps_most(offered: list[str], profile: str | None, code: str) -> None:
    assert choose_format(offered, "/dev/video0", profile=find(profile) if profile else None) == code


def test_no_format_that_is_read() -> None:
    with pytest.raises(SourceError, match=r"none of the formats Y16, Y16-BE, .*: /dev/video0 \(it offers BGR3\)"):
        choose_format(["BGR3"], "/dev/video0")
    with pytest.raises(SourceError, match=r"none of the formats YUYV: /dev/video0 \(it offers MJPG\)"):
        choose_format(["MJPG"], "/dev/video0", profile=find("tc001"))
    with pytest.raises(SourceError, match=r"none of the formats RG10"):
        choose_format(["RG10"], "/dev/video0", profile=Profile("mine", "", formats=("RG10",)))


def layout(code: str, height: int, width: int, padding: int = 0) -> PixelFormat:
    step = width * (1 if code in ("GREY", "NV12", "YU12") else 2) + padding
    return PixelFormat(code, width, height, step, step * height)


def on_the_wire(pixels: np.ndarray, padding: int) -> bytes:
    """Rows with something behind them that is no pixel."""
    rows = pixels.view(np.uint8).reshape(pixels.shape[0], -1)
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=0xEE).tobytes()


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9).map(lambda half: 2 * half))


@given(shapes, st.integers(0, 5), st.integers(0, 2**32 - 1), st.sampled_from(["Y16 ", "Y14 ", "Y12 ", "Y10 "]))
def test_16_bits_come_as_they_are(shape: tuple[int, int], padding: int, seed: int, code: str) -> None:
    pixels = np.random.default_rng(seed).integers(0, 2 ** int(code[1:3]), shape, np.uint16)
    got = counts(on_the_wire(pixels.astype("<u2"), padding), layout(code, *shape, padding))
    assert got is not None and got.dtype == np.uint16 and np.array_equal(got, pixels)


@given(shapes, st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_big_endian(shape: tuple[int, int], padding: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 65536, shape, np.uint16)
    got = counts(on_the_wire(pixels.astype(">u2"), padding), layout("Y16-BE", *shape, padding))
    assert got is not None and got.dtype.isnative and np.array_equal(got, pixels)
    # The control: read as little-endian it is another picture, unless the bytes of every count are alike.
    wrong = counts(on_the_wire(pixels.astype(">u2"), padding), layout("Y16 ", *shape, padding))
    assert np.array_equal(wrong, pixels.byteswap())


@given(shapes, st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_the_luma_of_8_bit_formats(shape: tuple[int, int], padding: int, seed: int) -> None:
    height, width = shape
    luma = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    chroma = np.full(shape, 77, np.uint8)
    for code, pair in (("YUYV", (luma, chroma)), ("UYVY", (chroma, luma))):
        wire = on_the_wire(np.stack(pair, axis=-1).reshape(height, 2 * width), padding)
        got = counts(wire, layout(code, *shape, padding))
        assert got is not None and got.dtype == np.uint8 and np.array_equal(got, luma)
    for code, rest in (("GREY", b""), ("NV12", bytes(height * (width + padding) // 2)), ("YU12", bytes(9))):
        got = counts(on_the_wire(luma, padding) + rest, layout(code, *shape, padding))
        assert got is not None and got.dtype == np.uint8 and np.array_equal(got, luma)


def test_packed_yuyv_is_16_bit_counts() -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, (384, 256), np.uint16)
    got = counts(pixels.astype("<u2").tobytes(), layout("YUYV", 384, 256), packed=True)
    assert got is not None and got.dtype == np.uint16 and np.array_equal(got, pixels)


@pytest.mark.parametrize(
    ("code", "used", "whole"),
    [
        ("Y16 ", 38400, True),
        ("Y16 ", 38399, False),
        ("Y16 ", 0, False),
        ("Y16 ", 39040, False),  # with two rows more
        ("GREY", 19200, True),
        ("NV12", 28800, True),
        ("NV12", 19200, True),  # what the driver says a frame has
        ("NV12", 19199, False),
        ("MJPG", 1, True),
        ("MJPG", 0, False),
    ],
)
def test_which_buffers_hold_a_frame(code: str, used: int, whole: bool) -> None:
    assert is_whole(used, layout(code, 120, 160)) is whole


def test_a_driver_that_pads_its_buffers() -> None:
    padded = PixelFormat("Y16 ", 160, 120, 320, 40960)
    assert is_whole(38400, padded) and is_whole(40960, padded) and not is_whole(40000, padded)
    assert is_whole(38400, PixelFormat("Y16 ", 160, 120, 0, 38400)), "a row length that the driver left out"


def jpeg(quality: int = 95) -> tuple[bytes, np.ndarray]:
    picture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (120, 160), np.uint8), (9, 9), 0)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), picture


def test_the_luma_of_a_jpeg() -> None:
    data, picture = jpeg()
    for one in (data, data + bytes(5000)):  # some cameras fill up their buffers
        got = counts(one, PixelFormat("MJPG", 160, 120, 0, len(data)))
        assert got is not None and got.dtype == np.uint8
        assert np.abs(got.astype(int) - picture).max() < 12


@given(st.integers(0, 4000))
def test_a_jpeg_that_is_cut_off_is_no_frame(length: int) -> None:
    data, _ = jpeg()
    assert counts(data[: min(length, len(data) - 2)], PixelFormat("MJPG", 160, 120, 0, len(data))) is None


@given(st.binary(max_size=200))
def test_any_bytes_between_the_marks_of_a_jpeg(body: bytes) -> None:
    got = counts(b"\xff\xd8" + body + b"\xff\xd9", PixelFormat("MJPG", 160, 120, 0, 4))
    assert got is None or got.ndim == 2
