"""Every captured frame as it was, lossless: ``record:FILE.mkv``. The recording is a camera again, bit for bit."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import av

from edgeunip import __version__
from edgeunip.address import redact
from edgeunip.errors import UsageError
from edgeunip.frame import Frame
from edgeunip.protocols import Recorder
from edgeunip.recording import TAG, Recording, stamp
from edgeunip.runtimes.encode import Codec
from edgeunip.runtimes.film import Film
from edgeunip.runtimes.rotate import OPTIONS, UNLIMITED, Limits, Parts, place
from edgeunip.runtimes.sinks import Setting
from edgeunip.runtimes.spec import Spec

# Four slices, because FFV1 encodes them side by side: 640x512 at 60 frames a second on one core of a desktop CPU, over
# 100 on four. Every frame stands alone, so that one damaged frame damages no other.
_CODEC = Codec(
    "ffv1",
    {"level": "3", "slices": "4", "slicecrc": "1", "coder": "range_tab"},
    threads=min(4, os.cpu_count() or 1),
    key_ms=0,
)
_UNKNOWN = Recording()


def open_recorder(spec: Spec, setting: Setting, *, profile: str = "") -> Recorder:
    """Open ``record:FILE.mkv?minutes=10&mb=500&keep=20&free=1000``; see :class:`edgeunip.runtimes.rotate.Limits`.

    Args:
        spec: the recorder.
        setting: its stream, of one camera.
        profile: name of the camera's profile, for the record.

    Raises:
        UsageError: another suffix, an unknown option, or several cameras without ``{camera}`` in the name.
        StorageError, SinkError: the file cannot be written.
    """
    spec.known(OPTIONS)
    about = Recording(camera=redact(setting.cameras[0]), profile=profile)
    return FrameRecorder(place(spec, setting), about, limits=Limits.of(spec), live=setting.rate_hz is None)


class FrameRecorder:
    """Writes frames as FFV1, 16-bit or 8-bit gray, each with the row of :mod:`edgeunip.recording`.

    A frame of another size, depth or radiometry than the one before begins the next part.
    """

    def __init__(
        self, path: Path, about: Recording = _UNKNOWN, *, limits: Limits = UNLIMITED, live: bool = False
    ) -> None:
        """Open the first file.

        Args:
            path: ends in ``.mkv``.
            about: the camera's name and profile.
            limits: of the parts.
            live: nothing that exists is replaced.

        Raises:
            UsageError: another suffix.
            StorageError, SinkError: the file cannot be written.
        """
        if path.suffix.lower() != ".mkv":
            raise UsageError("Frames are recorded as .mkv", where=path, remedy="Write record:FILE.mkv.")
        self.name = f"record:{path}"
        self._about = about
        self._kind: tuple[object, ...] | None = None
        self._parts = Parts(path, limits, live=live)
        self._film: Film | None = None

    def write(self, frame: Frame) -> None:
        """Record one frame.

        Raises:
            StorageError: no space, or the device failed.
            SinkError: the frame is too narrow, the encoder failed, or the disk is nearly full.
        """
        self._parts.watch()
        stamped = stamp(frame, self.name)
        kind = (stamped.shape, stamped.dtype, frame.radiometry)
        if self._film is not None and (kind != self._kind or self._parts.is_due(self._film.seconds)):
            self._film.close()
            self._parts.next()
            self._film = None
        if self._film is None:
            self._film, self._kind = self._begin(frame), kind
        depth = "gray16le" if stamped.dtype.itemsize == 2 else "gray"
        self._film.write(av.VideoFrame.from_ndarray(stamped, format=depth), frame.t_ns / 1e6)
        self._parts.used = True

    def close(self) -> None:
        """Finish the recording; after a failed write only free it, what was written plays. May be called twice."""
        try:
            if self._film is not None:
                self._film.close()
        finally:
            self._parts.close()

    def _begin(self, frame: Frame) -> Film:
        started = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        about = Recording(frame.radiometry, self._about.camera, self._about.profile, started, __version__)
        return Film(self._parts.file, _CODEC, where=self.name, tags={TAG: about.to_tag(), "creation_time": started})
