"""A data set of synthetic scenes, in the data-set folder format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip import durable
from edgeunip.errors import DataError, UsageError, near
from edgeunip.scenes.labels import CLASSES
from edgeunip.scenes.scene import Scene
from edgeunip.sensors import SENSORS, Sensor, SensorModel
from edgeunip.thermal import Counts, radiometry_to_json

_SPLITS = (("train", 0.70), ("val", 0.15), ("test", 0.15))
_FEWEST = 10
_WATCHED_S = 60.0


def synthesise(
    out: Path,
    images: int,
    *,
    sensor: str = "tc001",
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a data set of synthetic frames and their exact label maps to the folder ``out``, in one step.

    Half of the scenes are by night. A scene gives up to two images, which are always in the same split (70 % train,
    15 % val, 15 % test); each scene is seen by a camera of its own.

    Args:
        out: the folder; one that holds an older data set is replaced whole.
        images: how many, at least 10.
        sensor: key of :data:`~edgeunip.sensors.SENSORS`.
        seed: 0 or more; the same seed gives the same files.
        progress: called after each image with the number of images done.

    Raises:
        UsageError: an unknown sensor, too few images, a negative seed.
        DataError: ``out`` is there and is no data set.
        StorageError: it cannot be written; nothing at ``out`` has changed.
    """
    if sensor not in SENSORS:
        raise UsageError("Unknown sensor", where=sensor, remedy=near(sensor, SENSORS))
    if images < _FEWEST:
        raise UsageError(f"A data set needs at least {_FEWEST} images", where=images)
    if seed < 0:
        raise UsageError("The seed must not be negative", where=seed)
    _check_replaceable(out)
    with durable.folder(out) as staging:
        (staging / "images").mkdir()
        (staging / "labels").mkdir()
        stems: list[list[str]] = []
        for scene, number in enumerate(_per_scene(images)):
            stems.append([])
            for index, (counts, labels) in enumerate(_shots(SENSORS[sensor], seed, scene, number)):
                stems[-1].append(f"{scene:05d}_{index}")
                _write_png(staging / "images" / f"{stems[-1][-1]}.png", counts)
                _write_png(staging / "labels" / f"{stems[-1][-1]}.png", labels)
                if progress is not None:
                    progress(sum(map(len, stems)))
        _write_splits(staging, stems, seed)
        about = {"sensor": sensor, "radiometry": radiometry_to_json(SENSORS[sensor].radiometry), "seed": seed}
        (staging / "classes.json").write_text(json.dumps({**CLASSES.to_json(), **about}, indent=1) + "\n")


def _per_scene(images: int) -> list[int]:
    """Return how many images each scene gives."""
    each = 2 if images >= 2 * _FEWEST else 1
    return [min(each, images - first) for first in range(0, images, each)]


def _shots(sensor: Sensor, seed: int, scene: int, number: int) -> Iterator[tuple[Counts, NDArray[np.uint8]]]:
    """Yield frames and labels of a scene at random times, all before the shutter first closes."""
    rng = np.random.Generator(np.random.PCG64([seed, scene]))
    stage = Scene(int(rng.integers(1 << 62)), night=scene % 2 == 0)
    camera = SensorModel(sensor, int(rng.integers(1 << 62)))
    times = np.sort(rng.uniform(0, min(_WATCHED_S, sensor.ffc_every_s), number))
    for t_s in times:
        celsius, labels = stage.render(float(t_s), sensor.height, sensor.width)
        counts, _ = camera.expose(celsius, float(t_s))
        yield counts, labels


def _write_splits(folder: Path, stems: list[list[str]], seed: int) -> None:
    order = np.random.Generator(np.random.PCG64([seed, 1 << 32])).permutation(len(stems))
    first = 0
    for position, (name, share) in enumerate(_SPLITS):
        last = len(stems) if position == len(_SPLITS) - 1 else first + round(share * len(stems))
        chosen = sorted(stem for scene in order[first:last] for stem in stems[scene])
        (folder / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in chosen))  # durable: in the staging folder
        first = last


def _write_png(path: Path, image: Counts) -> None:
    done, data = cv2.imencode(".png", image)
    if not done:
        raise DataError("The image cannot be encoded", where=path)
    path.write_bytes(data.tobytes())  # durable: in the staging folder


def _check_replaceable(out: Path) -> None:
    """Refuse to replace what edgeunip did not write."""
    if not out.exists():
        return
    if not out.is_dir() or (any(out.iterdir()) and not (out / "classes.json").is_file()):
        raise DataError("Will not replace what is no data set", where=out, remedy="Choose another --out.")
