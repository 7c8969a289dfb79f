from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from device_video import image
from numpy.typing import NDArray

WriteVideo = Callable[..., Path]


@pytest.fixture
def write_video(tmp_path: Path) -> WriteVideo:
    """Write frames (H, W) or, for packed formats, bytes (H, 2 W) as a video, through PyAV."""

    def write(
        name: str, frames: Sequence[NDArray[np.generic]], pixel_format: str, *, codec: str = "ffv1", rate: int = 25
    ) -> Path:
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.pix_fmt = pixel_format
            stream.height, stream.width = frames[0].shape
            if pixel_format == "yuyv422":
                stream.width //= 2
            for frame in frames:
                container.mux(stream.encode(image(frame, pixel_format)))
            container.mux(stream.encode(None))
        return path

    return write
