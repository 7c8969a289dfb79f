"""Video files as a camera: every frame, 16-bit recordings bit-exact."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
from av.container import InputContainer
from av.video.stream import VideoStream
from typing_extensions import Self

from edgeunip.devices import planes, profiles
from edgeunip.devices.profiles import Profile
from edgeunip.errors import SourceError
from edgeunip.frame import Frame

_CUT_S = 0.2


class VideoCamera:
    """The video file at ``path``.

    A file that is cut off gives its whole frames, then an error, never a silent end. Damage within a frame that the
    decoder conceals (FFmpeg does so for FFV1) cannot be told from a picture.
    """

    live = False

    def __init__(self, path: Path, *, profile: Profile | None = None) -> None:
        self.name = str(path)
        self.rate_hz: float | None = None
        self._path = path
        self._profile = profile
        self._lock = threading.Lock()
        self._container: InputContainer | None = None

    def __enter__(self) -> Self:
        self._container = _open(self._path)
        try:
            self.rate_hz = rate_hz(video_stream(self._container, self.name))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame.

        Raises:
            SourceError: the file is damaged, cut off, changes its frame size, or does not fit the profile.
        """
        container = self._container
        if container is None:
            return
        stream = video_stream(container, self.name)
        images = container.decode(stream)
        first: Frame | None = None
        image: av.VideoFrame | None = None
        for seq in itertools.count():
            # Held while decoding only: another thread never closes the container under the decoder's feet.
            with self._lock:
                if self._container is not container:
                    return
                last, image = image, self._next(images, seq)
                if image is None:
                    check_end(stream, container, seq, last, self.name)
                    return
                frame = self._frame(image, seq)
            first = first or frame
            check_format(frame, first, self.name)
            yield frame

    def _next(self, images: Iterator[av.VideoFrame], seq: int) -> av.VideoFrame | None:
        try:
            return next(images, None)
        except av.FFmpegError as error:
            raise SourceError(
                f"The video is damaged or cut off after {seq} frames", where=self._path, why=error.strerror
            ) from error

    def _frame(self, image: av.VideoFrame, seq: int) -> Frame:
        packed = self._profile is not None and self._profile.packed
        counts = planes.counts(image, packed=packed, where=self._path)
        counts, radiometry = profiles.apply(self._profile, counts, None, self._path)
        return Frame(counts, seq, time.monotonic_ns(), radiometry=radiometry)

    def _close(self) -> None:
        with self._lock:
            container, self._container = self._container, None
            if container is not None:
                container.close()


def video_stream(container: InputContainer, where: object) -> VideoStream:
    """Return the first video stream.

    Raises:
        SourceError: there is none, or no decoder for it.
    """
    if not container.streams.video:
        raise SourceError("The source holds no video", where=where, why=f"format {container.format.name}")
    return container.streams.video[0]


def rate_hz(stream: VideoStream) -> float | None:
    """Return the frames a second that the container states; None where it states none that makes sense."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    return rate if 0 < rate <= 1000 else None


def check_format(frame: Frame, first: Frame, where: object) -> None:
    """Raise SourceError if a frame differs from the first in size or depth."""
    if frame.counts.shape != first.counts.shape or frame.counts.dtype != first.counts.dtype:
        old, new = (f"{one.counts.dtype} {one.counts.shape[1]}x{one.counts.shape[0]}" for one in (first, frame))
        raise SourceError(f"The frames change from {old} to {new}", where=where, why=f"at frame {frame.seq}")


def check_end(
    stream: VideoStream, container: InputContainer, count: int, last: av.VideoFrame | None, where: object
) -> None:
    """Raise SourceError if a file ended before the end its header states (a recording that was killed states none)."""
    if last is None:
        raise SourceError("The video holds no frame", where=where)
    if count < stream.frames:
        raise SourceError(f"The video is cut off: {count} of {stream.frames} frames are there", where=where)
    if container.duration is None or last.time is None or len(container.streams) > 1:
        return
    stated = container.duration / av.time_base
    start = (container.start_time or 0) / av.time_base
    if last.time - start < stated - max(_CUT_S, 3 / (rate_hz(stream) or 1.0)):
        raise SourceError(f"The video is cut off: it ends at {last.time:.1f} s of {stated:.1f} s", where=where)


def _open(path: Path) -> InputContainer:
    """Open a file, and nothing but that file: a playlist in disguise must not reach other files or the network."""
    try:
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise SourceError(
            "The file cannot be read as a video",
            where=path,
            why=error.strerror,
            remedy="Read are video files, image files and folders of images.",
        ) from error
