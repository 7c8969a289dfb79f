"""Image files as a camera: every image of a folder in the order of the names, or one image."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from edgeunip import images
from edgeunip.devices import profiles
from edgeunip.devices.profiles import Profile
from edgeunip.errors import DataError, SourceError
from edgeunip.frame import Frame


class FolderCamera:
    """The images of a folder, or the one image, at ``path``. Radiometric FLIR JPEGs bring their temperatures along."""

    live = False

    def __init__(self, path: Path, *, profile: Profile | None = None) -> None:
        self.name = str(path)
        self.rate_hz: float | None = None
        self._path = path
        self._profile = profile
        self._files: list[Path] = []
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        self._files = list_images(self._path)
        self._closed = threading.Event()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()

    def __iter__(self) -> Iterator[Frame]:
        """Yield one frame per image.

        Raises:
            DataError: an image is damaged, or differs from the first in size or depth.
            SourceError: the images do not fit the profile.
        """
        closed, first = self._closed, None
        for seq, file in enumerate(self._files):
            if closed.is_set():
                return
            frame = self._read(file, seq)
            first = first or frame
            _check_alike(frame, first, file, self._files[0])
            yield frame

    def _read(self, file: Path, seq: int) -> Frame:
        counts, radiometry = images.read_counts(file)
        t_ns = time.monotonic_ns()
        return profiles.frame(self._profile, counts, seq=seq, t_ns=t_ns, where=file, radiometry=radiometry)


def list_images(path: Path) -> list[Path]:
    """Return the images in the folder ``path``, sorted by name, hidden files left out; or ``path``, if it is a file.

    Raises:
        SourceError: the folder is not there, cannot be read or holds no image.
    """
    try:
        entries = sorted(path.iterdir()) if path.is_dir() else [path]
        files = [entry for entry in entries if is_image(entry) and not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError("The folder cannot be read", where=path, why=error.strerror) from error
    if not files:
        below = next((entry.name for entry in entries if entry.is_dir()), None)
        advice = f" Did you mean {path / below}?" if below else ""
        raise SourceError(
            "The folder holds no images", where=path, remedy=f"Read are {', '.join(images.SUFFIXES)}.{advice}"
        )
    return files


def is_image(path: Path) -> bool:
    """Tell whether ``path`` is a file with the suffix of an image."""
    return path.suffix.lower() in images.SUFFIXES and path.is_file()


def _check_alike(frame: Frame, first: Frame, file: Path, first_file: Path) -> None:
    if frame.counts.shape == first.counts.shape and frame.counts.dtype == first.counts.dtype:
        return
    raise DataError(
        f"The image is {_describe(frame)}, and the first one, {first_file.name}, is {_describe(first)}",
        where=file,
        remedy="Put images of one camera and one format into a folder.",
    )


def _describe(frame: Frame) -> str:
    height, width = frame.counts.shape
    return f"{width}x{height} with {8 * frame.counts.itemsize} bits"
