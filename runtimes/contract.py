"""What every runtime holds a model and a picture to: one uint8 picture in, float32 logits at a quarter size out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeunip.bundle import Bundle
from edgeunip.errors import InferenceError

Size = tuple[int, int]
Logits = tuple[int, int, int]


def shapes(source: Sequence[int], logits: Sequence[int], where: object) -> tuple[Size, Logits]:
    """Return ((H, W), (classes, h, w)) of a model's input and output shapes.

    Raises:
        InferenceError: they are not [1, 1, H, W] and [1, classes, h, w].
    """
    if len(source) != 4 or tuple(source[:2]) != (1, 1) or len(logits) != 4 or logits[0] != 1:
        why = tuple(source), tuple(logits)
        raise InferenceError("The model must take [1, 1, H, W] and give [1, classes, h, w]", where=where, why=why)
    return (source[2], source[3]), (logits[1], logits[2], logits[3])


def require_promised(found: tuple[Size, Logits], bundle: Bundle) -> None:
    """Hold a model's shapes to its bundle's manifest.

    Raises:
        InferenceError: they are others.
    """
    manifest = bundle.manifest
    size, quarter = (manifest.height, manifest.width), (manifest.height // 4, manifest.width // 4)
    logits = len(manifest.classes), *quarter
    if found != (size, logits):
        told = f"{found[0]} -> {found[1]}"
        raise InferenceError(f"The model is {told}, its manifest says {size} -> {logits}", where=bundle.path)


def require_picture(picture: NDArray[np.uint8], shape: Size) -> None:
    """Refuse a picture that is not uint8 of the model's size.

    Raises:
        InferenceError: what it is, and what the model takes.
    """
    if picture.shape != shape or picture.dtype != np.uint8:
        found, wanted = f"{picture.dtype} {picture.shape}", f"uint8 {shape}"
        raise InferenceError(f"The model takes {wanted}, the picture is {found}")
