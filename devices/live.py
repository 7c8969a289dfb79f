"""Live video as a camera. A read may hang in the network: nobody waits for it, and who reads closes what he read."""

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
from edgeunip.devices.constancy import check_format
from edgeunip.devices.profiles import Profile
from edgeunip.devices.video import rate_hz, video_stream
from edgeunip.errors import SourceError
from edgeunip.frame import Frame

_ENDED = "Is the camera still on?"

Numbered = tuple[int, av.VideoFrame]


class LiveCamera:
    """A stream that PyAV reads. Whoever iterates reads all the time, so that no frame grows old in a queue.

    Frame numbers count what arrived, undecodable frames included: a gap is a frame that was damaged.

    Args:
        name: what it is, for people; without credentials.
        connect: opens the source, with a limit on the time of each read: an iteration that is to end waits as long.
        explain: tells a failure of the source in one line, without credentials.
        profile: the camera model.

    Attributes:
        damaged: frames of this opening that arrived damaged.
        raw: False: a codec's picture of a scene at rest may well repeat.
    """

    live = True
    raw = False
    skipped = 0

    def __init__(
        self,
        name: str,
        connect: Callable[[], InputContainer],
        *,
        explain: Callable[[av.FFmpegError], SourceError],
        profile: Profile | None = None,
    ) -> None:
        self.name = name
        self.rate_hz: float | None = None
        self.damaged = 0
        self._connect, self._explain, self._profile = connect, explain, profile
        self._reading = threading.Lock()
        self._container: InputContainer | None = None

    def __enter__(self) -> Self:
        self.damaged, self._reading = 0, threading.Lock()
        container = self._open()
        try:
            self.rate_hz = rate_hz(video_stream(container, self.name))
        except BaseException:
            container.close()
            raise
        self._container = container
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        container, self._container = self._container, None
        # A read that hangs keeps the source; the reading thread closes it once that comes back.
        if container is not None and self._reading.acquire(timeout=BUDGET.capture_s):
            try:
                container.close()
            finally:
                self._reading.release()

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame.

        Raises:
            SourceError: the source failed, ended, fell silent or changed its format.
        """
        container, reading, first = self._container, self._reading, None
        if container is None:
            return
        images = self._images(container)
        while (found := self._next(images, container, reading)) is not None:
            seq, image = found
            frame = self._frame(image, seq)
            first = first or frame
            check_format(frame, first, self.name)
            yield frame

    def _open(self) -> InputContainer:
        try:
            return self._connect()
        except av.FFmpegError as error:
            fault = self._explain(error)
        # Raised out here, as below, so that no traceback shows FFmpeg's message: it may hold the whole address.
        raise fault

    def _next(self, images: Iterator[Numbered], container: InputContainer, reading: threading.Lock) -> Numbered | None:
        """Return the next frame with its number; None once closed."""
        found, fault = None, None
        with reading:
            if self._container is container:
                try:
                    found = next(images, None)
                except av.FFmpegError as error:
                    fault = self._explain(error)
            if self._container is not container:
                container.close()
                return None
        if found is None:
            raise fault or SourceError(
                "The live source ended", where=self.name, why="end of stream", remedy=_ENDED, reason="end"
            )
        return found

    def _frame(self, image: av.VideoFrame, seq: int) -> Frame:
        t_ns = time.monotonic_ns()
        packed = self._profile is not None and self._profile.packed
        counts = planes.counts(image, packed=packed, where=self.name)
        return profiles.frame(self._profile, counts, seq=seq, t_ns=t_ns, where=self.name)

    def _images(self, container: InputContainer) -> Iterator[Numbered]:
        """Yield (number, frame); frames that arrive damaged are counted and left out."""
        seq, whole_s = 0, time.monotonic()
        for packet in container.demux(video_stream(container, self.name)):
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
                    whole_s = time.monotonic()
                seq += 1
            seq += not images
            if time.monotonic() - whole_s > BUDGET.open_s:
                why = f"for {BUDGET.open_s:g} s"
                raise SourceError("The camera gives no whole frame", where=self.name, why=why, reason="damage")
