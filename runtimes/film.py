"""A video file that stays readable whatever happens to the process.

A Matroska cluster, or an MP4 fragment, ends with every key frame and each packet goes straight to the operating
system: a killed process loses what came since the last key frame, less than a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from edgeunip.durable import Stream
from edgeunip.errors import SinkError, StorageError

_KEY_MS = 800
_MS = Fraction(1, 1000)
CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    ".mkv": ("matroska", {"cluster_time_limit": str(_KEY_MS), "flush_packets": "1"}),
    ".mp4": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}),
}


@dataclass(frozen=True)
class Codec:
    """How a film is encoded.

    Attributes:
        name: FFmpeg's name of the encoder.
        options: its options.
        threads: it may use.
        key_ms: longest time between two key frames, milliseconds; 0: every frame is one.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    key_ms: int = _KEY_MS


class Film:
    """One video file being written. Its times begin at 0 and always grow, also where the source's do not."""

    def __init__(self, file: Stream, codec: Codec, *, where: str, tags: Mapping[str, str] | None = None) -> None:
        """Begin; the first frame decides on size and format.

        Args:
            file: empty, its suffix one of :data:`CONTAINERS`; closed by its owner.
            codec: the encoder.
            where: what is written, for messages.
            tags: of the file, for its readers.
        """
        self._file, self._codec, self._where, self._tags = file, codec, where, dict(tags or {})
        self._container: Any = None
        self._stream: Any = None
        self._shift_ms = self._last_ms = self._key_at_ms = 0
        self._broken = False

    @property
    def seconds(self) -> float:
        """How long it is, from the first frame to the last."""
        return self._last_ms / 1000

    def write(self, picture: Any, exact_ms: float) -> None:
        """Encode a ``av.VideoFrame`` taken at ``exact_ms`` milliseconds of any clock.

        Raises:
            StorageError: no space, or the device failed.
            SinkError: the picture's size changed, or the encoder failed.
        """
        try:
            if self._container is None:
                self._open(picture, exact_ms)
            if (picture.width, picture.height) != (self._stream.width, self._stream.height):
                raise SinkError("The picture changed its size", where=self._where, remedy="Start another recording.")
            self._time(picture, exact_ms)
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except av.error.FFmpegError as error:
            raise SinkError("The video cannot be encoded", where=self._where, why=error) from error
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
            raise SinkError("The video cannot be finished", where=self._where, why=error) from error

    def _open(self, picture: Any, exact_ms: float) -> None:
        kind, options = CONTAINERS[self._file.path.suffix.lower()]
        self._container = av.open(self._file, "w", format=kind, options=options)  # durable: a durable.Stream
        self._container.metadata.update(self._tags)
        codec = self._codec
        self._stream = self._container.add_stream(codec.name, rate=30, options=dict(codec.options))
        self._stream.height, self._stream.width = picture.height, picture.width
        self._stream.pix_fmt = picture.format.name
        context = self._stream.codec_context
        context.time_base = _MS
        context.gop_size = 1 << 20 if codec.key_ms else 1
        context.thread_count, context.thread_type = codec.threads, "SLICE"
        self._shift_ms, self._last_ms, self._key_at_ms = round(exact_ms), -1, -codec.key_ms

    def _time(self, picture: Any, exact_ms: float) -> None:
        if round(exact_ms) - self._shift_ms <= self._last_ms:
            self._shift_ms = round(exact_ms) - self._last_ms - 1
        self._last_ms = round(exact_ms) - self._shift_ms
        picture.pts, picture.time_base = self._last_ms, _MS
        # Key frames by time, not by number: a thermal camera gives 9 frames a second or 60.
        if self._codec.key_ms and self._last_ms - self._key_at_ms >= self._codec.key_ms:
            self._key_at_ms = self._last_ms
            picture.pict_type = av.video.frame.PictureType.I
