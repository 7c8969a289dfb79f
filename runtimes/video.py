"""Results as a video file that stays readable whatever happens to the process.

A Matroska cluster, or an MP4 fragment, is written every second and each packet goes straight to the operating system:
a killed process loses the last second at most.
"""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.classes import Classes
from edgeunip.durable import Stream
from edgeunip.errors import SinkError, StorageError, UsageError
from edgeunip.frame import Result
from edgeunip.runtimes.overlay import Overlay

_CLUSTER_MS = 1000
_CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    ".mkv": ("matroska", {"cluster_time_limit": str(_CLUSTER_MS), "flush_packets": "1"}),
    ".mp4": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}),
}
# H.264 where FFmpeg was built with an encoder for it, else MPEG-4 part 2, which every build has. One thread and the
# fastest preset: the processor belongs to the model.
_CODECS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "threads": "1"}),
    ("mpeg4", {"qmin": "2", "qmax": "6", "threads": "1"}),
)


class VideoSink:
    """Writes the coloured picture with its legend, at the frames' own times."""

    def __init__(self, path: Path, classes: Classes, *, rate_hz: float | None = None) -> None:
        """Open ``path``, replacing what it held.

        Args:
            path: ends in ``.mkv`` or ``.mp4``.
            classes: names and colours.
            rate_hz: frames a second of a file being read, by which its frames are timed; None: by their capture times.

        Raises:
            UsageError: another suffix.
            StorageError: the file cannot be written.
        """
        if path.suffix.lower() not in _CONTAINERS:
            raise UsageError("A video is written as .mkv or .mp4", where=path, remedy="Prefer .mkv.")
        self.name = f"video:{path}"
        self._overlay, self._rate_hz = Overlay(classes), rate_hz
        self._file = Stream(path)
        self._container: Any = None
        self._stream: Any = None
        self._shift_ms = self._last_ms = self._key_ms = 0
        self._broken = False

    def write(self, result: Result) -> None:
        """Encode one picture.

        Raises:
            StorageError: no space, or the device failed.
            SinkError: the picture's size changed, or the encoder failed.
        """
        image = _even(self._overlay.draw(result))
        pts = self._pts(result)
        try:
            if self._container is None:
                self._open(image, pts)
            if image.shape[:2] != (self._stream.height, self._stream.width):
                raise SinkError("The picture changed its size", where=self.name, remedy="Start another recording.")
            for packet in self._stream.encode(self._picture(image, pts)):
                self._container.mux(packet)
        except av.error.FFmpegError as error:
            raise SinkError("The video cannot be encoded", where=self.name, why=error) from error
        except StorageError:
            self._broken = True
            raise

    def close(self) -> None:
        """Finish the video; after a failed write only free it, what was written plays. May be called twice."""
        container, self._container = self._container, None
        try:
            if container is not None and self._broken:
                # The trailer fails as the packet did, and that has been told.
                with contextlib.suppress(StorageError, av.error.FFmpegError):
                    container.close()
            elif container is not None:
                for packet in self._stream.encode():
                    container.mux(packet)
                container.close()
        except av.error.FFmpegError as error:
            raise SinkError("The video cannot be finished", where=self.name, why=error) from error
        finally:
            self._file.close()

    def _open(self, image: NDArray[np.uint8], pts: int) -> None:
        kind, options = _CONTAINERS[self._file.path.suffix.lower()]
        self._container = av.open(self._file, "w", format=kind, options=options)  # durable: a durable.Stream
        codec, settings = next(entry for entry in _CODECS if entry[0] in av.codecs_available)
        self._stream = self._container.add_stream(codec, rate=30, options=settings)
        self._stream.height, self._stream.width = image.shape[:2]
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, 1000)
        self._stream.codec_context.gop_size = 1 << 20
        self._key_ms = pts - _CLUSTER_MS

    def _picture(self, image: NDArray[np.uint8], pts: int) -> Any:
        # OpenCV converts five times as fast as FFmpeg's own scaler, to the same BT.601.
        planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420), np.uint8)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        picture.pts, picture.time_base = pts, Fraction(1, 1000)
        # Key frames by time, not by number: a thermal camera gives 9 frames a second or 60.
        if pts - self._key_ms >= _CLUSTER_MS:
            self._key_ms = pts
            picture.pict_type = av.video.frame.PictureType.I
        return picture

    def _pts(self, result: Result) -> int:
        """Milliseconds from the first frame; always growing, also when the source starts its numbers anew."""
        frame = result.frame
        exact = frame.t_ns / 1e6 if self._rate_hz is None else frame.seq * 1000 / self._rate_hz
        if self._container is None:
            self._shift_ms, self._last_ms = round(exact), -1
        if round(exact) - self._shift_ms <= self._last_ms:
            self._shift_ms = round(exact) - self._last_ms - 1
        self._last_ms = round(exact) - self._shift_ms
        return self._last_ms


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeat the last row or column of an odd picture: the video's colour planes have half its size."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        return np.asarray(cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
    return image
