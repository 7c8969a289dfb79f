"""Pictures to compressed video: what a recorded file and a pushed stream have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

KEY_MS = 800
_MS = Fraction(1, 1000)


@dataclass(frozen=True)
class Codec:
    """How pictures are encoded.

    Attributes:
        name: FFmpeg's name of the encoder.
        options: its options.
        threads: it may use.
        key_ms: longest time between two key frames, milliseconds; 0: every frame is one.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    key_ms: int = KEY_MS


# H.264 where FFmpeg was built with an encoder for it, else MPEG-4 part 2, which every build has. One thread and the
# fastest preset: the processor belongs to the model.
_COLOUR = (
    Codec("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "23"}),
    Codec("mpeg4", {"qmin": "2", "qmax": "6"}),
)


def colour_codec() -> Codec:
    """Return the best codec for colour pictures that this FFmpeg has."""
    return next(codec for codec in _COLOUR if codec.name in av.codecs_available)


def colour_picture(image: NDArray[np.uint8]) -> av.VideoFrame:
    """Return a picture (H, W, 3), red green blue, to encode; an odd height or width gets one row or column more."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:  # the colour planes have half the size: the last row or column is repeated
        image = np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
    # OpenCV converts five times as fast as FFmpeg's own scaler, to the same BT.601.
    planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
    return av.VideoFrame.from_ndarray(planes, format="yuv420p")


class Encoder:
    """Encodes pictures of one size into a stream of a container that is open for writing.

    Their times begin at 0 and always grow, also where the source's do not.

    Attributes:
        last_ms: time of the newest picture, milliseconds.
    """

    def __init__(self, container: Any, codec: Codec, first: av.VideoFrame) -> None:
        """Add the stream; ``first`` decides on size and format."""
        self._stream = container.add_stream(codec.name, rate=30, options=dict(codec.options))
        self._stream.height, self._stream.width = first.height, first.width
        self._stream.pix_fmt = first.format.name
        context = self._stream.codec_context
        context.time_base = _MS
        context.gop_size = 1 << 20 if codec.key_ms else 1
        context.thread_count, context.thread_type = codec.threads, "SLICE"
        self._codec, self._shift_ms = codec, 0
        self.last_ms, self._key_at_ms = -1, -codec.key_ms

    def fits(self, picture: av.VideoFrame) -> bool:
        """Tell whether a picture has the size of the first one."""
        return (picture.height, picture.width) == (self._stream.height, self._stream.width)

    def encode(self, picture: av.VideoFrame, exact_ms: float) -> Iterator[Any]:
        """Yield the packets of a picture that fits, taken at ``exact_ms`` milliseconds of any clock."""
        time_ms = round(exact_ms)
        if self.last_ms < 0 or time_ms - self._shift_ms <= self.last_ms:
            self._shift_ms = time_ms - self.last_ms - 1
        self.last_ms = time_ms - self._shift_ms
        picture.pts, picture.time_base = self.last_ms, _MS
        # Key frames by time, not by number: a thermal camera gives 9 frames a second or 60.
        if self._codec.key_ms and self.last_ms - self._key_at_ms >= self._codec.key_ms:
            self._key_at_ms = self.last_ms
            picture.pict_type = av.video.frame.PictureType.I
        yield from self._stream.encode(picture)

    def finish(self) -> Iterator[Any]:
        """Yield what the encoder still holds."""
        yield from self._stream.encode()
