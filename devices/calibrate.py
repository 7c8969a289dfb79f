"""A uniform scene taken with a camera, and the corrections kept from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip.devices import corrected
from edgeunip.devices.bad_pixels import Found, find_bad_pixels
from edgeunip.devices.correct import Correction, flat_field
from edgeunip.devices.open import open_camera
from edgeunip.devices.probe import take
from edgeunip.errors import DataError
from edgeunip.frame import State

_PATIENCE_S = 60.0


@dataclass(frozen=True, eq=False)
class Scene:
    """Frames of a uniform scene, shape (N, H, W), uint8 or uint16, uncorrected; ``key`` is the camera's stable name."""

    counts: NDArray[np.uint8] | NDArray[np.uint16]
    key: str


def take_scene(source: str, *, profile: str | None, frames: int) -> Scene:
    """Take frames of a uniform scene; those of a closed shutter or a sensor that settles are left out.

    Raises:
        SourceError: the camera failed.
        DataError: it gave no frame.
    """
    camera = corrected.bare(open_camera(source, profile=profile))
    with camera:
        taken = take(camera, frames=frames, seconds=_PATIENCE_S)
    live: list[Any] = [frame.counts for frame in taken if frame.state is State.LIVE]
    if not live:
        raise DataError("The camera's shutter was closed all the time", where=camera.name)
    return Scene(np.stack(live), corrected.key_of(source))


def keep_bad_pixels(scene: Scene, owner: str) -> tuple[Found, Path]:
    """Find the bad pixels and keep them; the flat field that is kept stays.

    Raises:
        DataError: too few frames, or the scene is not uniform.
        StorageError: the file cannot be written.
    """
    found = find_bad_pixels(scene.counts)
    path = corrected.store(owner, scene.counts.shape[1:])
    kept = corrected.load(path, scene.counts.shape[1:])
    corrected.save(Correction(found.bad, kept.flat if kept else None), path)
    return found, path


def keep_flat_field(scene: Scene, owner: str, *, remove: bool = False) -> tuple[NDArray[np.int16] | None, Path]:
    """Take the flat field and keep it, or forget it; the bad pixels that are kept stay.

    Raises:
        StorageError: the file cannot be written.
    """
    shape = scene.counts.shape[1:]
    path = corrected.store(owner, shape)
    kept = corrected.load(path, shape)
    bad = kept.bad if kept else np.zeros(shape, np.bool_)
    flat = None if remove else flat_field(scene.counts, bad)
    corrected.save(Correction(bad, flat), path)
    return flat, path
