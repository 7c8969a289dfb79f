"""Radiometric JPEGs: real ones, ones written here byte by byte, and damaged ones of both kinds."""

import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeunip import flir, images
from edgeunip.errors import DataError
from edgeunip.thermal import Planck

CONSTANTS = Planck(
    *(14985.93, 0.01128322, 1398.1, 1.0, -6233.0),
    emissivity=0.95,
    reflected_c=18.0,
    atmosphere_c=-3.0,
    distance_m=2.5,
    humidity=0.4,
)
PLANE = (np.arange(12 * 16).reshape(12, 16) * 37 + 12000).astype(np.uint16)

OFFSETS = {
    "emissivity": 0x20,
    "distance_m": 0x24,
    "reflected_c": 0x28,
    "atmosphere_c": 0x2C,
    "humidity": 0x3C,
    "r1": 0x58,
    "b": 0x5C,
    "f": 0x60,
    "alpha1": 0x70,
    "alpha2": 0x74,
    "beta1": 0x78,
    "beta2": 0x7C,
    "x": 0x80,
    "r2": 0x30C,
}


def plane_record(plane: NDArray[np.uint16], kind: str, order: str) -> bytes:
    height, width = plane.shape
    head = struct.pack(order + "HHH", 2, width, height).ljust(32, b"\0")
    if kind == "png":
        return head + cv2.imencode(".png", plane.byteswap())[1].tobytes()
    return head + plane.astype(order + "u2").tobytes()


def camera_record(planck: Planck, order: str, **overrides: float) -> bytes:
    record = bytearray(0x400)
    struct.pack_into(order + "H", record, 0, 2)
    for name, offset in OFFSETS.items():
        value = overrides.get(name, getattr(planck, name) + (273.15 if name.endswith("_c") else 0))
        struct.pack_into(order + "f", record, offset, value)
    struct.pack_into(order + "i", record, 0x308, int(planck.o))
    return bytes(record)


def flir_file(*records: tuple[int, bytes]) -> bytes:
    """An FFF file: header, directory of 32 bytes an entry, records."""
    position = 64 + 32 * len(records)
    directory, body = b"", b""
    for kind, content in records:
        directory += struct.pack(">HHIIII", kind, 0, 0, 0, position + len(body), len(content)).ljust(32, b"\0")
        body += content
    header = b"FFF\0" + b"TEST".ljust(16, b"\0") + struct.pack(">III", 101, 64, len(records))
    return header.ljust(64, b"\0") + directory + body


def jpeg(fff: bytes, *, size: int = 400, shuffled: bool = False) -> bytes:
    parts = [fff[start : start + size] for start in range(0, len(fff), size)]
    last = len(parts) - 1
    bodies = [b"FLIR\0\x01" + bytes([number, last]) + part for number, part in enumerate(parts)]
    segments = [b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in bodies]
    if shuffled:
        segments.reverse()
    preview = cv2.imencode(".jpg", np.zeros((12, 16, 3), np.uint8))[1].tobytes()
    return preview[:2] + b"".join(segments) + preview[2:]


def synthetic(kind: str = "raw", order: str = ">", **options: Any) -> bytes:
    records = (99, b"other"), (1, plane_record(PLANE, kind, order)), (32, camera_record(CONSTANTS, order))
    return jpeg(flir_file(*records), **options)


@pytest.mark.parametrize("kind", ["raw", "png"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_synthetic_files_come_back(kind: str, order: str, shuffled: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(synthetic(kind, order, shuffled=shuffled, size=100))
    counts, planck = images.read_counts(path)
    assert counts.dtype == np.uint16 and (counts == PLANE).all() and counts.dtype.isnative
    assert isinstance(planck, Planck)
    for name in OFFSETS:
        assert getattr(planck, name) == pytest.approx(getattr(CONSTANTS, name), rel=1e-6, abs=2e-5), name
    assert planck.o == -6233.0


def test_humidity_stored_as_a_percentage() -> None:
    records = (1, plane_record(PLANE, "raw", "<")), (32, camera_record(CONSTANTS, "<", humidity=40.0))
    _, planck = flir.parse(jpeg(flir_file(*records)), Path("x"))
    assert planck.humidity == pytest.approx(0.4)


def test_other_jpegs_are_not_radiometric() -> None:
    plain = cv2.imencode(".jpg", np.zeros((12, 16, 3), np.uint8))[1].tobytes()
    exif = plain[:2] + b"\xff\xe1\x00\x0eExif\0\0MM\0*\0\0" + plain[2:]
    assert not flir.is_radiometric(plain) and not flir.is_radiometric(exif)
    assert not flir.is_radiometric(b"") and not flir.is_radiometric(b"\xff\xd8")
    assert flir.is_radiometric(synthetic())


def segment(data: bytes, number: int) -> slice:
    """Where the number-th FLIR segment of a synthetic file stands."""
    start = [i for i in range(len(data)) if data[i : i + 2] == b"\xff\xe1" and data[i + 4 : i + 9] == b"FLIR\0"][number]
    return slice(start, start + 2 + int.from_bytes(data[start + 2 : start + 4], "big"))


def damaged() -> dict[str, bytes]:
    good, raw = synthetic(), plane_record(PLANE, "raw", ">")
    camera = camera_record(CONSTANTS, ">")
    lost, cut = segment(good, 1), segment(good, 2)
    png = plane_record(PLANE, "png", ">")
    return {
        "a segment is missing": good[: lost.start] + good[lost.stop :],
        "the last segments are missing": good[: cut.start] + good[segment(good, -1).stop :],
        "a segment occurs twice": good[: lost.stop] + good[lost] + good[lost.stop :],
        "cut in a segment": good[: cut.start + 50],
        "no FFF header": jpeg(b"XXX" + flir_file((1, raw), (32, camera))[3:]),
        "no raw plane": jpeg(flir_file((32, camera))),
        "no constants": jpeg(flir_file((1, raw))),
        "an empty plane": jpeg(flir_file((1, struct.pack(">HHH", 2, 0, 12).ljust(32, b"\0")), (32, camera))),
        "a short plane": jpeg(flir_file((1, raw[:-2]), (32, camera))),
        "a short record": jpeg(flir_file((1, raw), (32, camera[:0x300]))),
        "emissivity 0": jpeg(flir_file((1, raw), (32, camera_record(CONSTANTS, ">", emissivity=0.0)))),
        "constants not finite": jpeg(flir_file((1, raw), (32, camera_record(CONSTANTS, ">", r1=float("nan"))))),
        "the plane's PNG is truncated": jpeg(flir_file((1, png[:-30]), (32, camera))),
        "the plane's PNG has another size": jpeg(
            flir_file((1, png[:2] + struct.pack(">HH", 9, 9) + png[6:]), (32, camera))
        ),
        "the plane's PNG has 8 bits": jpeg(
            flir_file((1, png[:32] + cv2.imencode(".png", PLANE.astype(np.uint8))[1].tobytes()), (32, camera))
        ),
        "directory outside the file": jpeg(
            flir_file((1, raw), (32, camera)).replace(b"\0\0\0\x40", b"\x7f\xff\xff\xff", 1)
        ),
    }


@pytest.mark.parametrize("what", damaged())
def test_damage_is_named_and_never_decoded(what: str) -> None:
    with pytest.raises(DataError) as caught:
        images.parse(damaged()[what], Path("hurt.jpg"))
    message = str(caught.value)
    assert message.startswith("The radiometric part of this FLIR JPEG is damaged: hurt.jpg ("), message


@given(
    st.sampled_from([synthetic("raw", "<"), synthetic("png", ">", size=65000)]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
    st.none() | st.integers(0, 3000),
)
@settings(max_examples=400, deadline=None)
def test_mutations_give_a_frame_or_a_data_error(whole: bytes, edits: list[tuple[int, int]], length: int | None) -> None:
    data = bytearray(whole)
    for position, value in edits:
        data[position % len(data)] = value
    check(bytes(data[:length]))


@given(st.binary(max_size=300), st.binary(max_size=120))
@settings(max_examples=300, deadline=None)
def test_random_bytes_in_flir_segments(fff: bytes, record: bytes) -> None:
    check(jpeg(b"FFF\0" + fff))
    check(jpeg(flir_file((1, record), (32, record))))


def check(data: bytes) -> None:
    try:
        counts, _ = images.parse(data, Path("m.jpg"))
    except DataError as error:
        assert "\n" not in str(error) and "m.jpg" in str(error)
    else:
        assert counts.ndim == 2 and counts.size and counts.dtype in (np.uint8, np.uint16)


# --- real files ---


def real_files() -> list[Path]:
    if "EDGEUNIP_DATA" not in os.environ:
        pytest.skip("EDGEUNIP_DATA names no folder of real data")
    return sorted(Path(os.environ["EDGEUNIP_DATA"], "raw16-thermal", "flir_jpeg").glob("*.jpg"))


def test_real_raw_planes_are_the_extracted_ones() -> None:
    files = real_files()
    assert len(files) == 11
    for file in files:
        counts, planck = flir.parse(file.read_bytes(), file)
        expected, radiometry = images.read_counts(file.with_name(f"{file.stem}_raw16.png"))
        assert counts.dtype == expected.dtype == np.uint16 and (counts == expected).all() and radiometry is None
        assert replace(planck, emissivity=1.0).emissivity == 1.0


def test_real_files_damaged() -> None:
    rng = np.random.default_rng(0)
    files = [file.read_bytes() for file in real_files() if file.stat().st_size < 200_000]
    assert files
    for turn in range(150):
        data = bytearray(files[turn % len(files)])
        for _ in range(rng.integers(1, 16)):
            data[rng.integers(0, 6000 if turn % 2 else len(data))] = rng.integers(0, 256)
        check(bytes(data[: rng.integers(1, len(data))] if turn % 5 == 0 else data))
