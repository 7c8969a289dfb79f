from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import SHAPE, chunk, counts, encode, label, png
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip.errors import DataError, EdgeunipError
from edgeunip.train import labels

WHERE = Path("labels/x.png")
PALETTE = bytes(range(255, -1, -1)) * 3


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("colour", [0, 3])
def test_indices_come_back_as_stored(depth: int, colour: int) -> None:
    stored = np.resize(np.arange(2**depth, dtype=np.uint8), (17, 19))
    extra = [(b"PLTE", PALETTE[: 3 * 2**depth])] if colour == 3 else []
    decoded = labels.decode(png(stored, depth, colour, *extra), WHERE)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, stored)


def test_transparency_and_orientation_do_not_change_indices() -> None:
    stored = label(0, 1, 2, 255)
    turned = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = png(stored, 8, 3, (b"PLTE", PALETTE), (b"tRNS", b"\0\x80"), (b"eXIf", turned))
    np.testing.assert_array_equal(labels.decode(data, WHERE), stored)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "The label is empty (0 bytes): labels/x.png"),
        (encode(label(0, 1), ".jpg"), "The label is not a PNG"),
        (encode(label(0, 1))[:-6], "The label is truncated"),
        (encode(label(0, 1))[:40], "The label is truncated"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""), "no PNG header"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""), "cannot be decoded"),
        (png(np.zeros((3, 2 * SHAPE[1]), np.uint8), 8, 0).replace(b"\0\0\0\x03\x08", b"\0\0\0\x04\x08"), "checksum"),
        (encode(counts(0, dtype=np.uint16)), "The label has 16 bits"),
        (encode(counts(0, (*SHAPE, 3))), "The label is in colour"),
        (encode(counts(0, (*SHAPE, 4))), "The label is in colour"),
    ],
)
def test_what_is_no_label_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        labels.decode(data, WHERE)
    assert message in str(caught.value)
    assert str(WHERE) in str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_any_damage_is_an_error_or_harmless(data: st.DataObject) -> None:
    """A cut or a flipped byte never gives other indices and never another kind of exception."""
    stored = label(0, 1, 2)
    whole = encode(stored)
    position = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[position] ^= data.draw(st.integers(1, 255))
    for damaged in (whole[:position], bytes(flipped)):
        try:
            decoded = labels.decode(damaged, WHERE)
        except EdgeunipError:
            continue
        np.testing.assert_array_equal(decoded, stored)
