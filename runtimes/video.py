"""Results as a video, in one file or in parts."""

from __future__ import annotations

from pathlib import Path

from edgeunip.classes import Classes
from edgeunip.errors import UsageError
from edgeunip.frame import Result
from edgeunip.protocols import Sink
from edgeunip.runtimes.encode import colour_codec, colour_picture
from edgeunip.runtimes.film import CONTAINERS, Film
from edgeunip.runtimes.overlay import Overlay
from edgeunip.runtimes.rotate import OPTIONS, UNLIMITED, Limits, Parts, place
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.spec import Spec


def open_video(spec: Spec, setting: Setting) -> Sink:
    """Open ``video:FILE.mkv?minutes=10&mb=500&keep=20&free=1000``; see :class:`edgeunip.runtimes.rotate.Limits`.

    Raises:
        UsageError: another suffix, an unknown option, or several cameras without ``{camera}`` in the name.
        StorageError, SinkError: the file cannot be written.
    """
    spec.known(OPTIONS)
    return VideoSink(place(spec, setting), setting.classes, rate_hz=setting.rate_hz, limits=Limits.of(spec))


class VideoSink:
    """Writes the coloured picture with its legend, at the frames' own times."""

    def __init__(
        self, path: Path, classes: Classes, *, rate_hz: float | None = None, limits: Limits = UNLIMITED
    ) -> None:
        """Open the first file.

        Args:
            path: ends in ``.mkv`` or ``.mp4``.
            classes: names and colours.
            rate_hz: frames a second of a file being read, by which its frames are timed, and ``path`` is replaced;
                None: by their capture times, and nothing is replaced.
            limits: of the parts.

        Raises:
            UsageError: another suffix.
            StorageError, SinkError: the file cannot be written.
        """
        if path.suffix.lower() not in CONTAINERS:
            raise UsageError("A video is written as .mkv or .mp4", where=path, remedy="Prefer .mkv.")
        self.name = f"video:{path}"
        self._overlay, self._rate_hz = Overlay(classes), rate_hz
        self._codec = colour_codec()
        self._parts = Parts(path, limits, live=rate_hz is None)
        self._film = Film(self._parts.file, self._codec, where=self.name)

    def write(self, result: Result) -> None:
        """Encode one picture.

        Raises:
            StorageError: no space, or the device failed.
            SinkError: the picture's size changed, the encoder failed, or the disk is nearly full.
        """
        self._parts.watch()
        if self._parts.is_due(self._film.seconds):
            self._film.close()
            self._film = Film(self._parts.next(), self._codec, where=self.name)
        frame = result.frame
        exact_ms = frame.t_ns / 1e6 if self._rate_hz is None else frame.seq * 1000 / self._rate_hz
        self._film.write(colour_picture(self._overlay.draw(result)), exact_ms)
        self._parts.used = True

    def close(self) -> None:
        """Finish the video; after a failed write only free it, what was written plays. May be called twice."""
        try:
            self._film.close()
        finally:
            self._parts.close()
