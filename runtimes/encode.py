"""Colour pictures to compressed video: what a recorded file and a pushed stream have in common."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

_KEY_MS = 1000
# H.264 where FFmpeg was built with an encoder for it, else MPEG-4 part 2, which every build has. One thread and the
# fastest preset: the processor belongs to the model.
_CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "threads": "1"}),
    ("mpeg4", {"qmin": "2", "qmax": "6", "threads": "1"}),
)


class Encoder:
    """Encodes pictures of one size into a stream of a container that is open for writing.

    Attributes:
        shape: (height, width) of the pictures it takes.
    """

    def __init__(self, container: Any, shape: tuple[int, int]) -> None:
        """Add the stream; an odd height or width gets one row or column more."""
        codec, settings = next(entry for entry in _CODECS if entry[0] in av.codecs_available)
        self.shape = shape
        self._stream = container.add_stream(codec, rate=30, options=settings)
        self._stream.height, self._stream.width = (side + side % 2 for side in shape)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, 1000)
        self._stream.codec_context.gop_size = 1 << 20
        self._shift_ms: int | None = None
        self._last_ms = -1
        self._key_ms = -_KEY_MS

    def encode(self, image: NDArray[np.uint8], time_ms: float) -> Iterator[Any]:
        """Yield the packets of a picture (H, W, 3), red green blue, taken at ``time_ms`` of any clock."""
        yield from self._stream.encode(self._picture(_even(image), self._growing(round(time_ms))))

    def finish(self) -> Iterator[Any]:
        """Yield what the encoder still holds."""
        yield from self._stream.encode()

    def _picture(self, image: NDArray[np.uint8], pts: int) -> Any:
        # OpenCV converts five times as fast as FFmpeg's own scaler, to the same BT.601.
        planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = pts, Fraction(1, 1000)
        # Key frames by time, not by number: a thermal camera gives 9 frames a second or 60.
        if pts - self._key_ms >= _KEY_MS:
            self._key_ms = pts
            picture.pict_type = av.video.frame.PictureType.I
        return picture

    def _growing(self, time_ms: int) -> int:
        """Milliseconds from the first picture; always growing, also when the source starts its clock anew."""
        if self._shift_ms is None or time_ms - self._shift_ms <= self._last_ms:
            self._shift_ms = time_ms - self._last_ms - 1
        self._last_ms = time_ms - self._shift_ms
        return self._last_ms


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row or column of an odd picture: the video's colour planes have half its size."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        return np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
    return image
