"""Our numbers and layouts against the kernel's own headers, on 64 and on 32 bits."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.devices.v4l2 import abi

FORMATS = {
    "Y16 ": "V4L2_PIX_FMT_Y16",
    "Y16-BE": "V4L2_PIX_FMT_Y16_BE",
    "Y14 ": "V4L2_PIX_FMT_Y14",
    "Y12 ": "V4L2_PIX_FMT_Y12",
    "Y10 ": "V4L2_PIX_FMT_Y10",
    "GREY": "V4L2_PIX_FMT_GREY",
    "YUYV": "V4L2_PIX_FMT_YUYV",
    "UYVY": "V4L2_PIX_FMT_UYVY",
    "NV12": "V4L2_PIX_FMT_NV12",
    "YU12": "V4L2_PIX_FMT_YUV420",
    "MJPG": "V4L2_PIX_FMT_MJPEG",
    "JPEG": "V4L2_PIX_FMT_JPEG",
}
CONSTANTS = {
    "V4L2_BUF_TYPE_VIDEO_CAPTURE": abi.CAPTURE,
    "V4L2_MEMORY_MMAP": abi.MMAP,
    "V4L2_FIELD_ANY": abi.FIELD_ANY,
    "V4L2_CAP_VIDEO_CAPTURE": abi.CAP_CAPTURE,
    "V4L2_CAP_VIDEO_CAPTURE_MPLANE": abi.CAP_CAPTURE_MPLANE,
    "V4L2_CAP_STREAMING": abi.CAP_STREAMING,
    "V4L2_CAP_DEVICE_CAPS": abi.CAP_DEVICE_CAPS,
    "V4L2_CAP_TIMEPERFRAME": abi.CAP_TIMEPERFRAME,
    "V4L2_BUF_FLAG_ERROR": abi.FLAG_ERROR,
    "V4L2_BUF_FLAG_TIMESTAMP_MASK": abi.FLAG_CLOCK_MASK,
    "V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC": abi.FLAG_CLOCK_MONOTONIC,
    "V4L2_FRMSIZE_TYPE_DISCRETE": abi.SIZE_DISCRETE,
    "V4L2_FRMIVAL_TYPE_DISCRETE": abi.INTERVAL_DISCRETE,
}
# Where the fields stand that we read or write, in the order of our layout.
FIELDS = {
    "v4l2_capability": ("driver", "card", "bus_info", "version", "capabilities", "device_caps"),
    "v4l2_fmtdesc": ("index", "type", "flags", "description", "pixelformat"),
    "v4l2_frmsizeenum": ("index", "pixel_format", "type", "discrete.width", "discrete.height"),
    "v4l2_frmivalenum": ("index", "pixel_format", "width", "height", "type", "discrete.numerator"),
    "v4l2_streamparm": (
        "type",
        "parm.capture.capability",
        "parm.capture.capturemode",
        "parm.capture.timeperframe.numerator",
        "parm.capture.timeperframe.denominator",
    ),
    "v4l2_requestbuffers": ("count", "type", "memory"),
    "v4l2_format": (
        "type",
        *(f"fmt.pix.{name}" for name in ("width", "height", "pixelformat", "field", "bytesperline", "sizeimage")),
    ),
    "v4l2_buffer": (
        *("index", "type", "bytesused", "flags", "field", "timestamp.tv_sec", "timestamp.tv_usec"),
        *("sequence", "memory", "m.offset", "length"),
    ),
}


def layouts(word: int) -> dict[str, object]:
    return {
        "v4l2_capability": abi.CAPABILITY,
        "v4l2_fmtdesc": abi.FMTDESC,
        "v4l2_frmsizeenum": abi.FRMSIZE,
        "v4l2_frmivalenum": abi.FRMIVAL,
        "v4l2_streamparm": abi.STREAMPARM,
        "v4l2_requestbuffers": abi.REQUESTBUFFERS,
        "v4l2_format": abi.format_layout(word),
        "v4l2_buffer": abi.buffer_layout(word),
    }


def requests(word: int) -> dict[str, int]:
    form, buffer = abi.format_layout(word), abi.buffer_layout(word)
    plain = ("QUERYCAP", "ENUM_FMT", "REQBUFS", "STREAMON", "STREAMOFF", "G_PARM")
    ours = {name: getattr(abi, name) for name in (*plain, "ENUM_FRAMESIZES", "ENUM_FRAMEINTERVALS")}
    ours |= {"G_FMT": abi.request("rw", 4, form), "S_FMT": abi.request("rw", 5, form)}
    return ours | {
        name: abi.request("rw", number, buffer) for name, number in (("QUERYBUF", 9), ("QBUF", 15), ("DQBUF", 17))
    }


def offsets(layout: object) -> list[int]:
    """Where each of a layout's fields stands: what unpacks the field's marked byte."""
    size = layout.size
    found: list[int] = []
    blank = layout.unpack(bytes(size))
    for place in range(size):
        marked = layout.unpack(bytes(place) + b"\1" + bytes(size - place - 1))
        hits = [field for field, (one, none) in enumerate(zip(marked, blank, strict=True)) if one != none]
        if hits and hits[0] == len(found):
            found.append(place)
    return found


def claims(word: int) -> list[str]:
    lines = [f"VIDIOC_{name} == {number}u" for name, number in requests(word).items()]
    lines += [f"{name} == {number}u" for name, number in CONSTANTS.items()]
    lines += [f"{name} == {abi.code_number(code)}u" for code, name in FORMATS.items()]
    for name, layout in layouts(word).items():
        lines.append(f"sizeof(struct {name}) == {layout.size}")
        places = offsets(layout)
        lines += [
            f"__builtin_offsetof(struct {name}, {field}) == {place}"
            for field, place in zip(FIELDS[name], places, strict=False)
        ]
        assert len(places) >= len(FIELDS[name])
    return lines


def compile_claims(folder: Path, word: int, lines: list[str]) -> subprocess.CompletedProcess[str]:
    if shutil.which("gcc") is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("needs gcc and the kernel's headers (linux-libc-dev)")
    # Without the 32-bit C library this is all that its headers miss.
    (folder / "gnu").mkdir(exist_ok=True)
    (folder / "gnu/stubs-32.h").touch()
    source = folder / "claims.c"
    body = "".join(f'_Static_assert({line}, "{line}");\n' for line in lines)
    source.write_text(f"#include <linux/videodev2.h>\n{body}")
    width = {"x86_64": [f"-m{8 * word}"]}.get(platform.machine(), [])
    headers = (folder, f"/usr/include/{platform.machine()}-linux-gnu")
    command = ["gcc", *width, "-fsyntax-only", *(f"-I{place}" for place in headers), str(source)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("word", [8, 4])
def test_every_number_size_and_place_is_the_kernels(tmp_path: Path, word: int) -> None:
    if word != abi.WORD and platform.machine() != "x86_64":
        pytest.skip("this compiler knows one word size")
    lines = claims(word)
    assert len(lines) > 80
    done = compile_claims(tmp_path, word, lines)
    assert done.returncode == 0, done.stderr
    wrong = compile_claims(tmp_path, word, [*lines, "sizeof(struct v4l2_buffer) == 84"])
    assert wrong.returncode != 0 and "sizeof(struct v4l2_buffer) == 84" in wrong.stderr


def test_the_sizes_known_by_heart() -> None:
    assert [abi.format_layout(word).size for word in (8, 4)] == [208, 204]
    assert [abi.buffer_layout(word).size for word in (8, 4)] == [88, 68]
    assert (abi.QUERYCAP, abi.STREAMON) == (0x80685600, 0x40045612)


@given(st.integers(0, 2**32 - 1))
def test_any_number_is_a_code(number: int) -> None:
    code = abi.code_text(number)
    assert code.endswith("-BE") if number >> 31 else len(code) == 4


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="-"), min_size=4, max_size=4))
def test_codes_go_both_ways(text: str) -> None:
    assert abi.code_text(abi.code_number(text)) == text


def test_big_endian_y16_is_not_taken_for_y16() -> None:
    little, big = (int.from_bytes(raw, "little") for raw in (b"Y16 ", b"Y16\xa0"))
    assert (abi.code_text(little), abi.code_text(big)) == ("Y16 ", "Y16-BE")
    assert (abi.code_number("Y16 "), abi.code_number("Y16-BE")) == (little, big)


@given(st.binary(max_size=40))
def test_a_name_is_fit_for_a_terminal(raw: bytes) -> None:
    assert all(letter.isprintable() for letter in abi.name_text(raw))
