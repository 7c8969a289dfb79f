"""Miniature data sets in every layout, written with the bytes a real one would hold."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SHAPE = (12, 16)
CLASSES = {"classes": [{"name": n, "rgb": [i, 0, 0]} for i, n in enumerate(("background", "cat", "dog"))]}


def encode(image: NDArray[np.generic], suffix: str = ".png") -> bytes:
    ok, data = cv2.imencode(suffix, image)
    assert ok
    return data.tobytes()


def counts(seed: int, shape: tuple[int, ...] = SHAPE, dtype: type[np.generic] = np.uint8) -> NDArray[np.generic]:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype)


def label(*values: int, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    """Return a label that holds each of ``values``, by turns."""
    return np.resize(np.array(values, np.uint8), shape)


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def pair(image: Path, mask: Path, seed: int, values: tuple[int, ...] = (0, 1, 2)) -> None:
    put(image, encode(counts(seed), image.suffix))
    put(mask, encode(label(*values)))


def folder(root: Path, dtype: type[np.generic] = np.uint8) -> Path:
    """Write the project's format: 4 train, 2 val, 2 test images, every class in every label."""
    splits = {"train": "abcd", "val": "ef", "test": "gh"}
    for seed, stem in enumerate("abcdefgh"):
        put(root / "images" / f"{stem}.png", encode(counts(seed, dtype=dtype)))
        put(root / "labels" / f"{stem}.png", encode(label(0, 1, 2)))
    for name, stems in splits.items():
        put(root / f"{name}.txt", "\n".join(stems).encode() + b"\n")
    put(root / "classes.json", json.dumps(CLASSES).encode())
    return root


def png(samples: NDArray[np.uint8], depth: int, colour: int, *extra: tuple[bytes, bytes]) -> bytes:
    """Write a PNG by hand: ``samples`` (H, W) packed at ``depth`` bits, with chunks ``extra`` before the pixels."""
    height, width = samples.shape
    bits = np.unpackbits(samples[..., None], axis=-1)[..., 8 - depth :].reshape(height, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(bits, axis=1))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = (chunk(b"IHDR", header), *(chunk(*one) for one in extra), chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
