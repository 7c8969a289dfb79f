import contextlib
import os
import random
import resource
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip import images, png
from edgeunip.errors import DataError

GRAY8 = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
GRAY16 = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300 + 7


def encoded(suffix: str, image: NDArray[Any], *options: int) -> bytes:
    good, data = cv2.imencode(suffix, image, list(options))
    assert good
    return data.tobytes()


def put(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp"])
def test_eight_bits_come_back_as_they_are(suffix: str, tmp_path: Path) -> None:
    counts, radiometry = images.read_counts(put(tmp_path, f"a{suffix}", encoded(suffix, GRAY8)))
    assert counts.dtype == np.uint8 and (counts == GRAY8).all() and radiometry is None


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_never_made_eight(suffix: str, tmp_path: Path) -> None:
    counts, _ = images.read_counts(put(tmp_path, f"a{suffix}", encoded(suffix, GRAY16)))
    assert counts.dtype == np.uint16 and (counts == GRAY16).all()


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(0, 128, 2, dtype=np.uint8), (64, 1))
    counts, _ = images.read_counts(put(tmp_path, "a.jpg", encoded(".jpg", smooth, cv2.IMWRITE_JPEG_QUALITY, 100)))
    assert counts.dtype == np.uint8 and np.abs(counts.astype(int) - smooth).max() <= 2


@pytest.mark.parametrize("gray", [GRAY8, GRAY16], ids=["8", "16"])
@pytest.mark.parametrize("channels", [3, 4])
def test_gray_stored_as_colour_is_gray(gray: NDArray[Any], channels: int, tmp_path: Path) -> None:
    stacked = np.dstack([gray] * 3 + [np.full_like(gray, 9)] * (channels - 3))
    counts, _ = images.read_counts(put(tmp_path, "a.png", encoded(".png", stacked)))
    assert counts.dtype == gray.dtype and (counts == gray).all() and counts.flags.c_contiguous


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_differing_pixel_in_any_channel_is_colour(channel: int, tmp_path: Path) -> None:
    coloured = np.dstack([GRAY8] * 3)
    coloured[3, 4, channel] ^= 1
    path = put(tmp_path, "false colour.png", encoded(".png", coloured))
    with pytest.raises(DataError) as caught:
        images.read_counts(path)
    assert str(caught.value) == (
        f"The image is in colour; thermal counts have one channel: {path}. "
        "A false-colour picture cannot be turned back into counts; use the camera's raw files."
    )


def test_orientation_tags_do_not_turn_counts(tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    jpeg = encoded(".jpg", np.zeros((16, 32), np.uint8))
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    assert images.read_counts(put(tmp_path, "a.jpg", turned))[0].shape == (16, 32)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", b"", "The image is empty (0 bytes)"),
        ("a.png", b"no image at all", "The image cannot be decoded"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "The image is truncated"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "The image is truncated"),
        ("a.tif", b"II*\0\x08\0\0\0", "The image cannot be decoded"),
        ("a.tif", encoded(".tif", GRAY16.astype(np.float32)), "The image holds float32; 8 or 16 bits are read"),
    ],
)
def test_what_is_no_image(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = put(tmp_path, name, data)
    with pytest.raises(DataError) as caught:
        images.read_counts(path)
    assert str(caught.value).startswith(f"{message}: {path}") and "\n" not in str(caught.value)


NOISE = np.random.default_rng(0).integers(0, 255, (60, 80)).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_every_truncation_is_refused(suffix: str) -> None:
    """Decoders fill what is missing with gray or garbage; training on that is silent damage."""
    image = NOISE if suffix != ".tif" else NOISE.astype(np.uint16)
    whole = encoded(suffix, image)
    accepted = []
    for length in range(0, len(whole) - 1, max(1, len(whole) // 300)):
        try:
            images.parse(whole[:length], Path("x"))
            accepted.append(length)
        except DataError:
            continue
    assert accepted == []
    assert images.parse(whole, Path("x"))[0].shape == (60, 80)


def test_a_changed_byte_in_a_png_is_refused_or_harmless() -> None:
    whole = encoded(".png", NOISE)
    data_start = whole.index(b"IDAT") + 4
    for position in range(data_start, len(whole) - 16, 97):
        damaged = whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :]
        with pytest.raises(DataError):
            images.parse(damaged, Path("x"))


def test_missing_folder_permission_pipe_and_device(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^The image cannot be read: .*/none\.png \(No such file or directory\)"):
        images.read_counts(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"\(not a regular file\)"):
        images.read_counts(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"\(not a regular file\)"):
        images.read_counts(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"\(not a regular file\)"):
        images.read_counts(Path("/dev/zero"))
    locked = put(tmp_path, "locked.png", encoded(".png", GRAY8))
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user reads everything: permission cannot be refused")
    with pytest.raises(DataError, match=r"\(Permission denied\)"):
        images.read_counts(locked)


def lying_png(width: int, height: int, depth: int, kind: int) -> bytes:
    """A PNG whose header claims anything."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1 << 30, 1 << 30), (0, 5), (100_000, 100_000), (30_000, 30_000)])
def test_headers_that_lie_about_the_size(size: tuple[int, int]) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=r"^The image cannot be decoded: lie\.png") as caught:
        images.parse(lying_png(*size, 8, 0), Path("lie.png"))
    assert len(str(caught.value)) < 300 and time.monotonic() - start < 1


MAGIC = [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xe1",
    b"II*\0",
    b"MM\0*",
    b"BM",
    b"GIF89a",
    b"RIFF",
    b"",
]
MAGIC += [
    b"II+\0\x08\0\0\0",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\x76\x2f\x31\x01",
    b"P5\n",
    b"P6\n4 4\n255\n",
    b"#?RADIANCE\n",
]


@given(st.sampled_from(MAGIC), st.binary(max_size=400), st.sampled_from([b"", b"IEND\xaeB`\x82", b"\xff\xd9"]))
@settings(max_examples=400, deadline=None)
def test_random_bytes_after_a_magic_number(magic: bytes, body: bytes, end: bytes) -> None:
    try:
        counts, _ = images.parse(magic + body + end, Path("random"))
    except DataError as error:
        assert "\n" not in str(error) and "random" in str(error)
    else:
        assert counts.dtype in (np.uint8, np.uint16) and counts.ndim == 2


WHOLE = [encoded(".png", GRAY8), encoded(".png", GRAY16), encoded(".tif", GRAY16), encoded(".jpg", NOISE)]
WHOLE += [encoded(".bmp", GRAY8), encoded(".png", np.dstack([GRAY8] * 4))]


@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_changed_bytes_in_real_files(whole: bytes, edits: list[tuple[int, int]]) -> None:
    data = bytearray(whole)
    for position, value in edits:
        data[position % len(data)] = value
    try:
        counts, _ = images.parse(bytes(data), Path("edited"))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert counts.ndim == 2


def test_data_after_the_end_of_a_png_is_no_damage_to_it() -> None:
    assert png.is_whole(encoded(".png", GRAY16) + b"appended by a tool")
    assert not png.is_whole(encoded(".png", GRAY16)[:-1])


def test_no_damage_to_a_png_costs_time_or_memory() -> None:
    """Before the check some of these took 8 seconds and 4 GiB."""
    whole, chance = encoded(".png", GRAY8), random.Random(1)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(len(data))] = chance.choice([0, 1, 127, 128, 255])
        with contextlib.suppress(DataError):
            images.parse(bytes(data), Path("x"))
    assert time.monotonic() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
