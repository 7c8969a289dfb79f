"""Unlabelled pictures with structure, each unlike any other, and ways to copy one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from dataset_trees import encode, put
from numpy.typing import NDArray

from edgeunip.train.corpus import index
from edgeunip.train.corpus.index import Report

Picture = NDArray[np.uint8]


def scene(seed: int, height: int = 96, width: int = 128) -> Picture:
    """Draw a dozen bright and dark blobs over smooth noise."""
    rng = np.random.default_rng(seed)
    canvas = cv2.resize(rng.uniform(60, 140, (5, 6)).astype(np.float32), (width, height))
    for _ in range(12):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(4, width // 5)), int(rng.integers(4, height // 5))
        cv2.ellipse(canvas, centre, axes, float(rng.integers(180)), 0, 360, float(rng.integers(0, 255)), -1)
    noisy = canvas + rng.normal(0, 2, canvas.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def jpeg(picture: Picture, quality: int = 90) -> bytes:
    ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return data.tobytes()


COPIES: dict[str, Callable[[Picture], bytes]] = {
    "re-encoded": lambda picture: jpeg(picture, 70),
    "halved": lambda picture: encode(cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "enlarged": lambda picture: encode(cv2.resize(picture, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_CUBIC)),
    "shifted": lambda picture: encode(np.roll(picture, 1, axis=1)),
    "brighter": lambda picture: encode((picture // 2 + 90).astype(np.uint8)),
}


def folder(root: Path, count: int, *, first: int = 0, suffix: str = ".png") -> Path:
    """Write scenes ``0000.png``, ..; returns the folder."""
    for number in range(count):
        put(root / f"{number:04d}{suffix}", encode(scene(first + number), suffix))
    return root


def build(out: Path, *specs: object, **options: object) -> Report:
    """Build the index ``out/mix.parquet`` in silence."""
    return index.build("mix", [str(spec) for spec in specs], out=out, say=lambda _: None, **options)  # type: ignore[arg-type]
