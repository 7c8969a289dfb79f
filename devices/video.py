"""Video files as a camera: every frame, 16-bit recordings bit-exact."""

from __future__ import annotations

import contextlib
import itertools
import logging
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from typing_extensions import Self

from edgeunip.devices import planes, profiles
from edgeunip.devices.constancy import check_format
from edgeunip.devices.profiles import Profile
from edgeunip.errors import SourceError
from edgeunip.frame import Frame
from edgeunip.recording import TAG, Recording, unstamp

_CUT_S = 0.2
_MEASURED = 32  # frames by which a recording's rate is measured
_TORN = 1000  # damaged frames in a row at most; those of the two seconds that a power cut takes are fewer

logger = logging.getLogger(__name__)


class VideoCamera:
    """The video file at ``path``.

    A file that is cut off gives its whole frames, then an error, never a silent end. Damage within a frame that the
    decoder conceals (FFmpeg does so for FFV1) cannot be told from a picture.

    A recording of :mod:`edgeunip.recording` gives the very frames that were recorded: counts, numbers, times, states
    and radiometry, each checked. One whose writer was killed, or lost its power, ends with its last whole frame and a
    line in the log.
    """

    live = False

    def __init__(self, path: Path, *, profile: Profile | None = None) -> None:
        self.name = str(path)
        self.rate_hz: float | None = None
        self._path = path
        self._profile = profile
        self._lock = threading.Lock()
        self._container: InputContainer | None = None
        self._recording: Recording | None = None

    def __enter__(self) -> Self:
        self._container = container = _open(self._path)
        try:
            stream = video_stream(container, self.name)
            tag = container.metadata.get(TAG)
            self._recording = None if tag is None else Recording.from_tag(tag, self.name)
            self.rate_hz = rate_hz(stream) if tag is None else _measured_hz(self._path)
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
        last: av.VideoFrame | None = None
        for seq in itertools.count():
            # Held while decoding only: another thread never closes the container under the decoder's feet.
            with self._lock:
                if self._container is not container:
                    return
                try:
                    image = self._next(images, seq)
                    frame = None if image is None else self._frame(image, seq)
                except SourceError:
                    if not self._is_torn(stream, container):
                        raise
                    frame = None
                if frame is None:
                    self._end(stream, container, seq, last)
                    return
                last = image
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

    def _is_torn(self, stream: VideoStream, container: InputContainer) -> bool:
        """Tell whether an unfinished recording holds no whole frame behind the damage: a power cut leaves zeros."""
        if self._recording is None or container.duration is not None:
            return False
        for _ in range(_TORN):
            try:
                for image in container.decode(stream):
                    self._recorded(image, self._recording)
                    return False
                return True
            except (SourceError, av.FFmpegError):
                continue
        return True

    def _end(self, stream: VideoStream, container: InputContainer, count: int, last: av.VideoFrame | None) -> None:
        if self._recording is not None and last is not None and container.duration is None:
            logger.warning("The recording %s was not finished: it ends after %d whole frames", self.name, count)
            return
        _check_end(stream, container, count, last, self.name)

    def _frame(self, image: av.VideoFrame, seq: int) -> Frame:
        if self._recording is not None:
            return self._recorded(image, self._recording)
        packed = self._profile is not None and self._profile.packed
        counts = planes.counts(image, packed=packed, where=self._path)
        return profiles.frame(self._profile, counts, seq=seq, t_ns=time.monotonic_ns(), where=self._path)

    def _recorded(self, image: av.VideoFrame, recording: Recording) -> Frame:
        """Return a recorded frame. A profile overrides its degC, and finds nothing left to cut out."""
        frame = unstamp(planes.counts(image, packed=False, where=self._path), recording.radiometry, self._path)
        if self._profile is None:
            return frame
        return replace(frame, radiometry=self._profile.radiometry if frame.counts.dtype == np.uint16 else None)

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


def _measured_hz(path: Path) -> float | None:
    """Return the frames a second at the begin of a recording: a live camera's are not known when a file is begun."""
    times: list[float] = []
    with _open(path) as container, contextlib.suppress(av.FFmpegError):  # of damage, reading tells
        for packet in itertools.islice(container.demux(video_stream(container, path)), _MEASURED):
            if packet.pts is not None:
                times.append(float(packet.pts * packet.time_base))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    usual_s = statistics.median(gaps) if gaps else 0.0
    if usual_s < 1e-3:
        return None
    return 1 / statistics.fmean(gap for gap in gaps if gap < 1.5 * usual_s)  # a longer one is a frame that was lost


def _check_end(
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
