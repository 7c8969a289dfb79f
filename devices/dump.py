"""Headless recordings as a camera: little-endian 16-bit frames one after the other, as UVC tools dump them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from typing_extensions import Self

from edgeunip.devices import profiles
from edgeunip.devices.profile import Profile, Size
from edgeunip.errors import SourceError
from edgeunip.frame import Frame
from edgeunip.thermal import Counts

SUFFIXES = (".y16",)
_KNOWN = ((122, 160), (120, 160), (192, 256), (384, 256), (512, 640), (480, 640), (256, 320), (240, 320))


class DumpCamera:
    """The recording at ``path``. The file does not say how large a frame is; the profile's sizes do.

    Args:
        path: the file.
        profile: the camera model; None tries the sizes of common thermal cameras.
    """

    live = False

    def __init__(self, path: Path, *, profile: Profile | None = None) -> None:
        self.name = str(path)
        self.rate_hz: float | None = profile.rate_hz if profile is not None else None
        self._path = path
        self._profile = profile
        self._closed = threading.Event()
        self._frames: np.memmap[tuple[int, int, int], np.dtype[np.uint16]] | None = None

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            SourceError: it cannot be read, or holds no whole number of frames of a size that is known.
        """
        try:
            size = self._path.stat().st_size
            rows, columns = _size(size, self._profile, self._path)
            shape = size // (2 * rows * columns), rows, columns
            self._frames = np.memmap(self._path, np.dtype("<u2"), "r", shape=shape)
        except OSError as error:
            raise SourceError("The recording cannot be read", where=self._path, why=error.strerror) from error
        self._closed = threading.Event()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._frames = None

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame."""
        frames, closed = self._frames, self._closed
        for seq in range(0 if frames is None else len(frames)):
            if closed.is_set():
                return
            counts: Counts = np.array(frames[seq], np.uint16)  # type: ignore[index]
            yield profiles.frame(self._profile, counts, seq=seq, t_ns=time.monotonic_ns(), where=self._path)


def _size(length: int, profile: Profile | None, path: Path) -> Size:
    """Return the first size, (rows, columns), of which the file holds a whole number of frames."""
    sizes = profile.sizes if profile is not None and profile.sizes else _KNOWN
    for rows, columns in sizes:
        if length and length % (2 * rows * columns) == 0:
            return rows, columns
    tried = ", ".join(f"{columns}x{rows}" for rows, columns in sizes)
    raise SourceError(
        f"The recording of {length} bytes is no whole number of frames",
        where=path,
        why=f"tried {tried}",
        remedy="Name the camera's profile; one of your own tells its sizes: sizes = [[ROWS, COLUMNS]].",
    )
