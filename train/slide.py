"""Sliding-window inference as mmsegmentation does it: overlapping windows, logits averaged."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

STRIDE = 341 / 512  # of the window, as UNIP's reference


def windows(shape: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """Return the windows (top, bottom, left, right), pixels, rows of windows from the top, left to right.

    The last window of a row or column is moved back inside the image, so that all have the crop's size where the image
    allows it.
    """
    rows, columns = (_starts(*axis) for axis in zip(shape, crop, stride, strict=True))
    return [
        (top, min(top + crop[0], shape[0]), left, min(left + crop[1], shape[1])) for top in rows for left in columns
    ]


def average(
    predict: Callable[[Tensor], Tensor], images: Tensor, crop: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """Return the mean logits [B, C, H, W] over all windows of images [B, channels, H, W].

    Args:
        predict: maps a window [B, channels, h, w] to logits of the same size [B, C, h, w].
        images: what is cut into windows.
        crop: window size, pixels.
        stride: step between windows, pixels.
    """
    height, width = images.shape[-2:]
    total = cover = torch.zeros(0)
    for top, bottom, left, right in windows((height, width), crop, stride):
        logits = predict(images[..., top:bottom, left:right])
        if not total.numel():
            total = logits.new_zeros(*logits.shape[:2], height, width)
            cover = logits.new_zeros(height, width)
        total[..., top:bottom, left:right] += logits
        cover[top:bottom, left:right] += 1
    return total / cover


def _starts(length: int, crop: int, stride: int) -> list[int]:
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride + crop, length) - crop, 0) for index in range(count)]
