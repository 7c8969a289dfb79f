"""Image files of every kind to the gray picture pre-training sees."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from corpus_scenes import jpeg, scene
from dataset_trees import counts, encode
from PIL import Image

from edgeunip.errors import DataError
from edgeunip.thermal import Agc
from edgeunip.train.corpus.pictures import decode

HERE = Path("x.png")


def written(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("L", 1), ("LA", 4), ("P", 3), ("1", 1)])
def test_gray_is_pillows(mode: str, channels: int) -> None:
    image = Image.fromarray(counts(1, (40, 50, 3)).view(np.uint8)).convert(mode)
    found = decode(written(image), HERE)
    np.testing.assert_array_equal(found.picture(), image.convert("L"))
    assert found.channels == channels
    assert found.counts.dtype == np.uint8


@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 60, "subsampling": 2}, {"progressive": True}])
def test_jpeg_luma_is_within_a_gray_level_of_converting(options: dict[str, object]) -> None:
    colour = np.stack([scene(seed) for seed in range(3)], axis=-1) // 2 + 60  # within the gamut: nothing clips
    data = written(Image.fromarray(colour), "JPEG", **options)
    found = decode(data, HERE)
    converted = np.asarray(Image.open(io.BytesIO(data)).convert("L"), int)
    assert np.abs(found.picture() - converted).max() <= 1
    assert found.channels == 3
    assert decode(jpeg(scene(0)), HERE).channels == 1


def test_sixteen_bits_go_through_the_agc() -> None:
    raw = (counts(2, dtype=np.uint16).astype(np.uint16) // 64 + 7000).astype(np.uint16)
    found = decode(encode(raw), HERE)
    np.testing.assert_array_equal(found.counts, raw)
    np.testing.assert_array_equal(found.picture(), Agc(mode="percentile").picture(raw))


def test_sixteen_bit_colour() -> None:
    raw = np.full((8, 8, 3), 65535, np.uint16)
    np.testing.assert_array_equal(decode(encode(raw), HERE).counts, np.full((8, 8), 65535, np.uint16))


def test_a_white_border_is_cut_before_the_agc() -> None:
    raw = np.full((60, 80), 65535, np.uint16)
    inner = (counts(3, (20, 40), np.uint16) // 64).astype(np.uint16)
    raw[20:40, 20:60] = inner
    np.testing.assert_array_equal(decode(encode(raw), HERE, crop=20).picture(), Agc().picture(inner))
    with pytest.raises(DataError, match=r"^Nothing is left within a border of 30 pixels: x\.png \(80x60\)$"):
        decode(encode(raw), HERE, crop=30)


def test_an_orientation_tag_turns_nothing() -> None:
    image = Image.fromarray(scene(0))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(written(image, "JPEG", exif=exif), HERE).counts.shape == (96, 128)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(50), "neither PNG, JPEG"),
        (jpeg(scene(0))[:-900], "truncated"),
        (encode(np.zeros((4, 4), np.float32), ".tiff"), "holds float32; 8 or 16 bits"),
    ],
)
def test_what_cannot_be_read_is_named(data: bytes, told: str) -> None:
    with pytest.raises(DataError, match=rf"{told}.*x\.png|x\.png.*{told}"):
        decode(data, HERE)


@pytest.mark.skipif("EDGEUNIP_DATA" not in os.environ, reason="EDGEUNIP_DATA names no folder of real data")
def test_real_radiometric_files() -> None:
    folder = Path(os.environ["EDGEUNIP_DATA"]) / "raw16-thermal" / "flir_jpeg"
    for path in sorted(folder.glob("*.jpg")):
        found = decode(path.read_bytes(), path)
        plane = decode(path.with_name(f"{path.stem}_raw16.png").read_bytes(), path)
        assert found.counts.dtype == np.uint16
        np.testing.assert_array_equal(found.counts, plane.counts)
