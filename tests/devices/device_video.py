"""Video frames for the tests of cameras."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray


def image(frame: NDArray[np.generic], pixel_format: str) -> av.VideoFrame:
    """A PyAV frame with the bytes of ``frame`` in its first plane, and neutral chroma."""
    height, width = frame.shape
    result = av.VideoFrame(width // 2 if pixel_format == "yuyv422" else width, height, pixel_format)
    for index, plane in enumerate(result.planes):
        rows = np.full((plane.height, plane.line_size), 128, np.uint8)
        if index == 0:
            data = np.ascontiguousarray(frame).view(np.uint8).reshape(height, -1)
            rows[:, : data.shape[1]] = data
        plane.update(rows.tobytes())
    return result
