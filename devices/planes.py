"""Decoded video frames to counts: the gray or luma plane as it is, never scaled, never converted to 8 bits."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from edgeunip.devices.profiles import unpack
from edgeunip.errors import SourceError
from edgeunip.thermal import Counts

# Where a pixel's luma byte stands in a pair of bytes.
_PAIRED = {"yuyv422": 0, "uyvy422": 1}
_PLANAR = ("gray", "yuv4", "yuvj4", "yuva4", "nv1", "nv2")


def counts(image: av.VideoFrame, *, packed: bool, where: object) -> Counts:
    """Return the counts of a frame, shape (H, W), uint8 or (over 8 bits) uint16; a copy.

    Of a colour video this is the luma plane, limited range included: right for white-hot pictures, and a mere
    picture, no measure of heat, for false colours.

    Args:
        image: the frame.
        packed: the bytes of YUYV pixels are 16-bit counts.
        where: the source, for the message.

    Raises:
        SourceError: the pixel format has no gray or luma plane.
    """
    name = image.format.name
    if name in _PAIRED:
        pairs = _rows(image, 2 * image.width)
        return unpack(pairs) if packed and name == "yuyv422" else pairs[:, _PAIRED[name] :: 2].copy()
    bits = image.format.components[0].bits
    if not name.startswith(_PLANAR) or bits > 16:
        raise SourceError(
            f"The video has pixel format {name}, which holds no gray or luma plane",
            where=where,
            remedy="Record or convert it to a gray or yuv format; FFV1 in gray16le keeps every count.",
        )
    if bits <= 8:
        return _rows(image, image.width).copy()
    words = _rows(image, 2 * image.width).copy().view(">u2" if image.format.is_big_endian else "<u2")
    return words.astype(np.uint16, copy=False)


def _rows(image: av.VideoFrame, width: int) -> NDArray[np.uint8]:
    """Return the first ``width`` bytes of each row of the first plane; rows are padded, and may stand upside down."""
    plane = image.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(image.height, abs(plane.line_size))
    return rows[:: -1 if plane.line_size < 0 else 1, :width]
