"""The teacher's outputs on disk: computed once, on whole pictures, and gone on with where a killed pass was.

A folder holds the outputs of one teacher for one list of pictures; its name is the digest of both. Shards of 32
pictures, float16, each written whole or not at all: what is there is right.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeunip import durable
from edgeunip.compress.distill.teacher import Teacher
from edgeunip.errors import RunError
from edgeunip.train.augment import Picture

SHARD = 32
SAMPLES = 64  # pictures whose maps give the channels' mean and variance

Kind = Literal["logits", "features"]
KINDS: tuple[Kind, ...] = ("logits", "features")


class Shown(Protocol):
    """Pictures as the teacher sees them."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Picture, Picture]:
        """Return (picture, labels), uint8; the labels are not looked at."""
        ...


def key(teacher: Teacher, hashes: Iterable[str]) -> str:
    """Return the name of a folder of outputs: the digest of the teacher, its pictures' making, and the pictures.

    Args:
        teacher: whose outputs.
        hashes: SHA-256 of each image file, in order.
    """
    recipe = teacher.run.recipe
    made = [*teacher.run.size, recipe.agc_parameters().to_json(), recipe.modality, recipe.mean, recipe.std]
    digest = hashlib.sha256(json.dumps([teacher.sha256, made], sort_keys=True).encode())
    for one in hashes:
        digest.update(one.encode())
    return digest.hexdigest()[:32]


class Outputs:
    """A teacher's outputs for a list of pictures. Loader processes get it by pickling: it holds a path only."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        return self.count

    def read(self, kind: Kind, index: int) -> NDArray[np.float16]:
        """Return a picture's logits [classes, h/4, w/4] or features [dim, h/16, w/16]; read from disk when looked at.

        Raises:
            RunError: the file is gone or damaged.
        """
        found: NDArray[np.float16] = _shard(self._file(kind, index // SHARD))[index % SHARD]
        return found

    def fill(
        self,
        teacher: Teacher,
        pictures: Shown,
        kinds: tuple[Kind, ...],
        *,
        rank: int = 0,
        ranks: int = 1,
        say: Callable[[str], None] = print,
    ) -> int:
        """Compute this rank's share of what is missing; return the number of pictures that were computed."""
        shards = range(rank, -(-self.count // SHARD), ranks)
        missing = [shard for shard in shards if any(not self._file(kind, shard).is_file() for kind in kinds)]
        computed = 0
        for done, shard in enumerate(missing):
            if done % 8 == 0:
                say(f"Asking the teacher: shard {done + 1} of {len(missing)}")
            computed += self._compute(teacher, pictures, kinds, shard)
        return computed

    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of each channel of the features, float32 [dim], over a spread of them."""
        chosen = np.linspace(0, self.count - 1, min(SAMPLES, self.count)).astype(int)
        maps = np.stack([self.read("features", int(index)).astype(np.float32) for index in chosen])
        return maps.mean((0, 2, 3)), np.maximum(maps.std((0, 2, 3)), 1e-3)

    def _compute(self, teacher: Teacher, pictures: Shown, kinds: tuple[Kind, ...], shard: int) -> int:
        indices = range(shard * SHARD, min((shard + 1) * SHARD, self.count))
        answers = zip(*(teacher(pictures.read(index)[0]) for index in indices), strict=True)
        for kind, outputs in zip(KINDS, answers, strict=True):
            if kind in kinds:
                durable.write_bytes(self._file(kind, shard), _bytes(np.stack(outputs)))
        return len(indices)

    def _file(self, kind: Kind, shard: int) -> Path:
        return self.folder / f"{kind}-{shard:05d}.npy"


def _bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@lru_cache(maxsize=4096)  # an open map a shard costs address space, no memory
def _shard(path: Path) -> NDArray[np.float16]:
    try:
        found: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        remedy = "Delete it, and go on with --resume: the teacher is asked again."
        raise RunError("The teacher's outputs cannot be read", where=path, why=error, remedy=remedy) from error
    return found
