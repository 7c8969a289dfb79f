"""A video file that stays readable whatever happens to the process.

A Matroska cluster, or an MP4 fragment, ends with every key frame and each packet goes straight to the operating
system: a killed process loses what came since the last key frame, less than a second.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import av

from edgeunip.durable import Stream
from edgeunip.errors import SinkError, StorageError
from edgeunip.runtimes.encode import KEY_MS, Codec, Encoder

CONTAINERS: dict[str, tuple[str, dict[str, str]]] = {
    ".mkv": ("matroska", {"cluster_time_limit": str(KEY_MS), "flush_packets": "1"}),
    ".mp4": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}),
}


class Film:
    """One video file being written."""

    def __init__(self, file: Stream, codec: Codec, *, where: str, tags: Mapping[str, str] | None = None) -> None:
        """Begin; the first frame decides on size and format.

        Args:
            file: empty, its suffix one of :data:`CONTAINERS`; closed by its owner.
            codec: the encoder.
            where: what is written, for messages.
            tags: of the file, for its readers.
        """
        self._file, self._codec, self._where, self._tags = file, codec, where, dict(tags or {})
        self._out = _Out(file)
        self._container: Any = None
        self._encoder: Encoder | None = None

    @property
    def seconds(self) -> float:
        """How long it is, from the first frame to the last."""
        return 0.0 if self._encoder is None else self._encoder.last_ms / 1000

    def write(self, picture: av.VideoFrame, exact_ms: float) -> None:
        """Encode a picture taken at ``exact_ms`` milliseconds of any clock.

        Raises:
            StorageError: no space, or the device failed.
            SinkError: the picture's size changed, or the encoder failed.
        """
        try:
            encoder = self._encoder or self._open(picture)
            if not encoder.fits(picture):
                raise SinkError("The picture changed its size", where=self._where, remedy="Start another recording.")
            for packet in encoder.encode(picture, exact_ms):
                self._container.mux(packet)
            self._out.check()
        except av.error.FFmpegError as error:
            raise SinkError("The video cannot be encoded", where=self._where, why=error) from error

    def close(self) -> None:
        """Finish the video; after a failed write only free it, what was written plays. May be called twice."""
        container, self._container = self._container, None
        if container is None:
            return
        try:
            if self._encoder is not None and self._out.error is None:
                for packet in self._encoder.finish():
                    container.mux(packet)
                container.close()
                self._out.check()
        except av.error.FFmpegError as error:
            raise SinkError("The video cannot be finished", where=self._where, why=error) from error
        finally:
            with contextlib.suppress(av.error.FFmpegError):  # the failure before it has been told
                container.close()

    def _open(self, picture: av.VideoFrame) -> Encoder:
        kind, options = CONTAINERS[self._file.path.suffix.lower()]
        self._container = av.open(self._out, "w", format=kind, options=options)  # durable: a durable.Stream
        self._container.metadata.update(self._tags)
        self._encoder = Encoder(self._container, self._codec, picture)
        return self._encoder


class _Out:
    """A film's file as FFmpeg writes to it: after an error it takes all and keeps nothing.

    An exception in FFmpeg's call would reach us late, in another call, or as a traceback that PyAV prints.
    """

    def __init__(self, file: Stream) -> None:
        self.error: StorageError | None = None
        self.seek, self.tell, self.seekable, self.writable = file.seek, file.tell, file.seekable, file.writable
        self._file = file

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                self._file.write(data)
            except StorageError as error:
                self.error = error
        return len(data)

    def check(self) -> None:
        """Raise what went wrong."""
        if self.error is not None:
            raise self.error
