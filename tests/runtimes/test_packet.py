import json
import struct
import zlib
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_results import CLASSES, made

from edgeunip.classes import Classes
from edgeunip.frame import Region, State
from edgeunip.runtimes.plain import plain
from edgeunip.runtimes.web.packet import encode


def split(data):
    """The four parts of a packet: waited ms, numbers, picture, class map."""
    waited, *sizes = struct.unpack_from(">4I", data)
    assert len(data) == 16 + sum(sizes)
    ends = np.cumsum([16, *sizes])
    numbers, picture, class_map = (data[a:b] for a, b in pairwise(ends))
    gray = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_UNCHANGED)
    return waited, json.loads(numbers), gray, np.frombuffer(zlib.decompress(class_map), np.uint8)


def test_a_packet_holds_the_result():
    result = made(seq=7, dropped=3, state=State.SETTLING)
    waited, numbers, gray, class_map = split(encode(result, CLASSES, 29.97).at(result.done_ns + 1_234_567_890))
    assert waited == 1234
    assert (class_map.reshape(120, 160) == result.class_map).all()
    assert gray.shape == (120, 160)
    assert np.abs(gray.astype(int) - result.picture).mean() < 2
    assert numbers == plain(result) | {
        "fps": 29.97,
        "width": 160,
        "height": 120,
        "radiometric": True,
        "classes": [
            {"name": name, "rgb": list(colour)} | plain(result)["classes"][name]
            for name, colour in zip(CLASSES.names, CLASSES.colours, strict=True)
        ],
    }
    assert numbers["seq"] == 7
    assert numbers["state"] == "settling"
    assert numbers["classes"][1]["max_c"] == round(result.classes["person"].max_c, 2)


def test_of_many_regions_the_first_are_told():
    result = made()
    region = Region("person", 1, (0, 0, 1, 1), result.classes["person"])
    many = replace(result, regions=tuple(replace(region, number=number) for number in range(100)))
    told = split(encode(many, CLASSES, None).at(0))[1]["regions"]
    assert [one["number"] for one in told] == list(range(32))


def test_bare_counts_have_no_temperatures():
    numbers = split(encode(made(radiometry=None), CLASSES, None).at(0))[1]
    assert numbers["fps"] is None
    assert numbers["radiometric"] is False
    assert {entry[key] for entry in numbers["classes"] for key in ("min_c", "mean_c", "max_c", "hotspot")} == {None}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_temperature_that_is_no_number_is_none(value):
    result = made()
    person = replace(result.classes["person"], min_c=value)
    result = replace(result, classes={**result.classes, "person": person})
    entry = split(encode(result, CLASSES, None).at(0))[1]["classes"][1]
    assert entry["min_c"] is None
    assert entry["max_c"] == round(person.max_c, 2)


def test_a_result_of_other_classes_is_refused():
    with pytest.raises(KeyError, match="cat"):
        encode(made(), Classes(("cat",), ((1, 2, 3),)), None)


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_the_wait_is_never_negative_and_always_fits(done_ns, now_ns):
    packet = replace(_PACKET, result=replace(_PACKET.result, done_ns=done_ns))
    waited = struct.unpack_from(">I", packet.at(now_ns))[0]
    assert waited == min(max(0, (now_ns - done_ns) // 10**6), 2**32 - 1)


_PACKET = encode(made(height=8, width=8), CLASSES, None)
