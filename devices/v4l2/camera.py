"""A V4L2 camera, found again under whatever number its node comes back."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from typing_extensions import Self

from edgeunip.budget import BUDGET, Budget
from edgeunip.devices import profile as profiles
from edgeunip.devices.profile import Profile
from edgeunip.devices.v4l2.identity import Place
from edgeunip.devices.v4l2.kernel import LINUX, Kernel
from edgeunip.devices.v4l2.reader import Reader
from edgeunip.frame import Frame


class V4l2Camera:
    """The camera at a device node. May be entered again after it was left, not before.

    Args:
        place: where it is found.
        profile: the camera model.
        budget: time limits.
        kernel: what opens and drives the node.

    Attributes:
        name: the path, as the user gave it.
        raw: False: 8-bit pictures went through the camera's gain control, whose steps can hide a quiet scene's noise,
            so that two equal ones do not yet say that the sensor hangs.
    """

    live, raw = True, False

    def __init__(
        self,
        place: Place,
        *,
        profile: Profile | None = None,
        budget: Budget = BUDGET,
        kernel: Kernel = LINUX,
    ) -> None:
        self.name = place.name
        self.rate_hz: float | None = None
        self._profile = profile
        self._budget = budget
        self._kernel = kernel
        self._place = place
        self._reader: Reader | None = None

    @property
    def damaged(self) -> int:
        """Frames of this opening that the driver marked as damaged, or that were not whole."""
        return self._reader.damaged if self._reader else 0

    @property
    def skipped(self) -> int:
        """Frames of this opening passed over because newer ones had come."""
        return self._reader.skipped if self._reader else 0

    def __enter__(self) -> Self:
        """Open the node, agree on a format, start the stream and wait until it delivers."""
        self._reader = reader = Reader(self._place.find(), self._kernel, profile=self._profile)
        self.rate_hz = reader.rate_hz
        reader.wait(self._budget.open_s)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.close(self._budget.capture_s)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame each time, each frame once.

        The shutter may silence a camera while it corrects: only a longer silence is taken for its loss.

        Raises:
            SourceError: the camera failed, went away, changed its format, or gave no whole frame for too long.
        """
        reader = self._reader
        limit_s = self._budget.shutter_s + self._budget.stall_s(self.rate_hz)
        while reader is not None and (taken := reader.take(limit_s)) is not None:
            yield profiles.frame(self._profile, taken.counts, seq=taken.seq, t_ns=taken.t_ns, where=self.name)


def open_v4l2(path: str, *, profile: Profile | None = None) -> V4l2Camera:
    """Return the camera at the device node ``path``."""
    return V4l2Camera(Place(path), profile=profile)
