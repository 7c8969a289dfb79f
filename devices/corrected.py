"""Where a camera's corrections are kept, one file for each size of its frames, and the camera they are applied to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import cv2
import numpy as np
from typing_extensions import Self

from edgeunip import durable, images
from edgeunip.address import redact
from edgeunip.devices import profile_files
from edgeunip.devices.correct import Correction
from edgeunip.devices.v4l2 import stable_path
from edgeunip.errors import DataError
from edgeunip.frame import Frame
from edgeunip.protocols import Camera

AnyCamera = TypeVar("AnyCamera", bound=Camera)

_BAD, _ZERO = 65535, 32768


def store(camera: str, shape: tuple[int, ...]) -> Path:
    """Return the file that keeps the corrections of a camera at one size of frame.

    Args:
        camera: its stable name, such as its ``by-id`` link or its address; credentials stay out of the file's name.
        shape: (H, W) of its frames, telemetry and picture halves cut off.
    """
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", redact(camera).rpartition("/dev/v4l/by-id/")[2]).strip("-.")
    return profile_files.folder() / f"{readable[:120] or 'camera'}-{shape[1]}x{shape[0]}.png"


def save(correction: Correction, path: Path) -> None:
    """Write a correction as a 16-bit PNG: bad pixels white; a flat field below, its zero at mid-gray.

    Raises:
        StorageError: it cannot be written.
    """
    planes = [correction.bad.astype(np.uint16) * np.uint16(_BAD)]
    if correction.flat is not None:
        planes.append((correction.flat.astype(np.int32) + _ZERO).astype(np.uint16))
    _, png = cv2.imencode(".png", np.vstack(planes))
    durable.write_bytes(path, png.tobytes())


def load(path: Path, shape: tuple[int, ...]) -> Correction | None:
    """Read the correction of frames of ``shape`` (H, W); None where there is none.

    Raises:
        DataError: the file is damaged, or for frames of another size.
    """
    if not path.exists():
        return None
    try:
        image = images.read_counts(path)[0]
    except DataError as error:
        raise _unusable(path, error.why or error.what) from error
    rows, columns = shape
    if image.dtype != np.uint16 or image.shape not in ((rows, columns), (2 * rows, columns)):
        raise _unusable(path, f"it holds {image.dtype} {image.shape}, and the frames are {shape}")
    flat = (image[rows:].astype(np.int32) - _ZERO).astype(np.int16) if len(image) > rows else None
    return Correction(image[:rows] > 0, flat)


def _unusable(path: Path, why: object) -> DataError:
    remedy = "Remove it, or make it again: edgeunip cameras badpixels SOURCE"
    return DataError("The camera correction is damaged", where=path, why=why, remedy=remedy)


def corrected(camera: AnyCamera, source: str) -> AnyCamera | Corrected:
    """Return the camera at ``source`` with its corrections; as it is where nothing is kept for any camera."""
    return Corrected(camera, source) if any(profile_files.folder().glob("*.png")) else camera


def bare(camera: Camera) -> Camera:
    """Return a camera without its corrections."""
    return camera.camera if isinstance(camera, Corrected) else camera


def key_of(source: str) -> str:
    """Return the name a camera keeps: a device node's link under ``/dev/v4l``, else the address as it is."""
    return stable_path(source) if source.startswith("/dev/") else source


class Corrected:
    """A camera whose frames are corrected by what is kept for it, if anything is.

    Args:
        camera: the camera.
        source: its address, as the user gave it.
    """

    def __init__(self, camera: Camera, source: str) -> None:
        self.camera = camera
        self.name, self.live = camera.name, camera.live
        self._source = source
        self._learn()

    @property
    def damaged(self) -> int:
        """Frames of this opening that arrived damaged."""
        return int(getattr(self.camera, "damaged", 0))

    @property
    def skipped(self) -> int:
        """Frames of this opening passed over because newer ones had come."""
        return int(getattr(self.camera, "skipped", 0))

    def __enter__(self) -> Self:
        self.camera.__enter__()
        self._learn()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.camera.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the camera's frames, corrected.

        Raises:
            DataError: what is kept for the camera is damaged.
        """
        found: dict[tuple[int, ...], Correction | None] = {}
        for frame in self.camera:
            shape = frame.counts.shape
            if shape not in found:
                found[shape] = load(store(key_of(self._source), shape), shape)
            correction = found[shape]
            yield frame if correction is None else replace(frame, counts=correction.apply(frame.counts))

    def _learn(self) -> None:
        """Take over what the camera knows once it is open."""
        self.rate_hz = self.camera.rate_hz
        self.raw = bool(getattr(self.camera, "raw", False))
