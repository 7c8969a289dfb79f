"""Live video as a camera: a thread reads without pause and keeps the newest frame, so none ever grows old in a queue.

A read of a camera may block for ever in the kernel. The thread alone holds the device and can be left behind: the
consumer waits for frames with a time limit, never for the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import av
from av.container import InputContainer
from typing_extensions import Self

from edgeunip.budget import BUDGET
from edgeunip.devices import planes, profiles
from edgeunip.devices.profiles import Profile
from edgeunip.devices.video import check_format, rate_hz, video_stream
from edgeunip.errors import SourceError
from edgeunip.frame import Frame

# A shutter correction silences some cameras.
STALL_S = BUDGET.shutter_s + BUDGET.stall_s(None)
# Time given to the thread to let go of the connection.
CLOSE_S = BUDGET.stop_s / 2


class LiveCamera:
    """A stream that PyAV reads.

    Frame numbers count what arrived, undecodable frames included: a gap is a frame the consumer was too slow for, or
    one that was damaged.

    Args:
        name: what it is, for people; without credentials.
        connect: opens the source; called in the reading thread.
        explain: tells a failure of the source in one line, without credentials.
        profile: the camera model.
        stall_s: seconds without a frame after which the source counts as lost.

    Attributes:
        raw: False: a codec's picture of a scene at rest may well repeat.
    """

    live = True
    raw = False

    def __init__(
        self,
        name: str,
        connect: Callable[[], InputContainer],
        *,
        explain: Callable[[av.FFmpegError], SourceError],
        profile: Profile | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        self.name = name
        self.rate_hz: float | None = None
        self.connect = connect
        self.explain = explain
        self.profile = profile
        self.stall_s = stall_s
        self._reader: _Reader | None = None

    @property
    def damaged(self) -> int:
        """Frames of this opening that arrived damaged."""
        return self._reader.damaged if self._reader else 0

    def __enter__(self) -> Self:
        """Open the source and wait for its first frame, whose shape and depth it must keep."""
        self._reader = reader = _Reader(self)
        reader.start()
        try:
            reader.wait(BUDGET.open_s)
        except BaseException:
            self._close()
            raise
        self.rate_hz = reader.rate_hz
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame each time, each frame once.

        Raises:
            SourceError: the source failed, ended, changed its format, or gave no frame for ``stall_s`` seconds.
        """
        reader = self._reader
        while reader is not None and (frame := reader.take(self.stall_s)) is not None:
            yield frame

    def _close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.stop()
            reader.join(CLOSE_S)


class _Reader(threading.Thread):
    """Reads one opening of a source until it fails or is stopped."""

    def __init__(self, camera: LiveCamera) -> None:
        super().__init__(name=f"camera {camera.name}", daemon=True)
        self.rate_hz: float | None = None
        self.damaged = 0
        self._camera = camera
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._fault: Exception | None = None
        self._stopped = False

    def run(self) -> None:
        """Read; what goes wrong is raised in the consumer's thread."""
        fault: Exception
        try:
            self._read()
            fault = SourceError(
                "The live source ended",
                where=self._camera.name,
                why="end of stream",
                remedy="Is the camera still on?",
                reason="end",
            )
        except av.FFmpegError as error:
            fault = self._camera.explain(error)
        except Exception as error:
            fault = error
        with self._changed:
            self._fault = fault
            self._changed.notify_all()

    def wait(self, limit_s: float) -> None:
        """Wait until a frame is there; it stays for :meth:`take`."""
        with self._changed:
            if not self._changed.wait_for(self._is_news, limit_s):
                raise SourceError(
                    "The camera gives no frame", where=self._camera.name, why=f"for {limit_s:g} s", reason="silence"
                )
            if self._newest is None and self._fault is not None and not self._stopped:
                raise self._fault

    def take(self, limit_s: float) -> Frame | None:
        """Wait for a frame not taken yet; None once stopped."""
        with self._changed:
            self.wait(limit_s)
            frame, self._newest = self._newest, None
            return None if self._stopped else frame

    def stop(self) -> None:
        """End the reading at the next frame, and the waiting at once."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _is_news(self) -> bool:
        return self._stopped or self._newest is not None or self._fault is not None

    def _read(self) -> None:
        first = None
        with self._camera.connect() as container:
            stream = video_stream(container, self._camera.name)
            self.rate_hz = rate_hz(stream)
            for seq, image in self._images(container, stream):
                if self._stopped:
                    return
                frame = self._frame(image, seq)
                first = first or frame
                check_format(frame, first, self._camera.name)
                with self._changed:
                    self._newest = frame
                    self._changed.notify_all()

    def _frame(self, image: av.VideoFrame, seq: int) -> Frame:
        camera, t_ns = self._camera, time.monotonic_ns()
        packed = camera.profile is not None and camera.profile.packed
        counts = planes.counts(image, packed=packed, where=camera.name)
        return profiles.frame(camera.profile, counts, seq=seq, t_ns=t_ns, where=camera.name)

    def _images(self, container: InputContainer, stream: av.VideoStream) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (number, frame); frames that arrive damaged are counted and left out."""
        seq = 0
        for packet in container.demux(stream):
            try:
                images = [] if packet.is_corrupt else packet.decode()
                self.damaged += packet.is_corrupt
            except av.error.InvalidDataError:
                images = []
                self.damaged += 1
            for image in images:
                if image.is_corrupt:
                    self.damaged += 1
                else:
                    yield seq, image
                seq += 1
            seq += not images
