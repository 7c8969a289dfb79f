"""A data set and a model so small that a training run takes a second; both as in real life otherwise."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import encode, put
from numpy.typing import NDArray

from edgeunip.train.loop import Loop
from edgeunip.train.pretrain.recipe import UnipRecipe
from edgeunip.train.pretrain.student import new_vit
from edgeunip.train.public.own import encoder_bytes
from edgeunip.train.recipe import Recipe
from edgeunip.train.settings import override
from edgeunip.train.vit import ViTSize

SHAPE = (64, 80)
MICRO = ViTSize(dim=32, depth=2, heads=2, last_heads=4)
CLASSES = [{"name": name, "rgb": [60 * i, 200, 0]} for i, name in enumerate(("ground", "wall", "person"))]
SPLITS = {"train": 10, "val": 3, "test": 3}
GRAYS = np.array([40, 110, 220], np.uint8)
EXECUTABLE = Path(sys.executable).with_name("edgeunip")


def scene(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw ground, a wall and two people; (picture, labels), with noise and a margin of ignored pixels."""
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    label[: rng.integers(15, 35)] = 1
    for _ in range(2):
        top, left = rng.integers(10, 40), rng.integers(0, 60)
        label[top : top + 20, left : left + 9] = 2
    picture = GRAYS[label].astype(float) + rng.normal(0, 6, SHAPE)
    label[:2] = 255
    return picture.clip(0, 255).astype(np.uint8), label


def make_data(root: Path) -> Path:
    """Write the scenes as a data set of the project's format."""
    seed = 0
    for split, count in SPLITS.items():
        stems = [f"{split}{index}" for index in range(count)]
        for stem in stems:
            picture, label = scene(seed := seed + 1)
            put(root / "images" / f"{stem}.png", encode(picture))
            put(root / "labels" / f"{stem}.png", encode(label))
        put(root / f"{split}.txt", "\n".join(stems).encode())
    put(root / "classes.json", json.dumps({"classes": CLASSES}).encode())
    return root


def recipe(**values: Any) -> Recipe:
    """A run of 12 steps with two lines of loss, three checkpoints and three scores."""
    base = Recipe(steps=12, batch=4, warmup=2, checkpoint_every=3, evaluate_every=4, threads=1, precision="32-true")
    return override(base, values)


def unip(**values: Any) -> UnipRecipe:
    """A distillation of 12 steps of two micro-batches, with checkpoints and scores."""
    base = UnipRecipe(size="tiny", crop=64, steps=12, batch=4, micro_batch=2, holdout=2, layer=2, base_lr=0.3)
    rest = {"warmup_epochs": 0.5, "checkpoint_every": 3, "evaluate_every": 5, "threads": 1, "precision": "32-true"}
    return override(base, rest | values)


def make_teacher(path: Path) -> Path:
    """Write a teacher of three blocks and four heads, its weights large enough for attention that is not even."""
    torch.manual_seed(5)
    vit = new_vit(ViTSize(dim=48, depth=3, heads=4, last_heads=4), (4, 4))
    with torch.no_grad():
        for value in vit.parameters():
            value.mul_(1.5)
    put(path, encoder_bytes(vit, licence="CC-BY-NC-4.0"))
    return path


def interrupt_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """End a run in this process after ``step`` steps, as a power cut would: nothing more is saved."""
    real = Loop.after

    def after(loop: Loop, done: int) -> None:
        real(loop, done)
        if done == step:
            raise KeyboardInterrupt

    patch.setattr(Loop, "after", after)


def log(run: Path) -> list[dict[str, Any]]:
    """The run's lines of losses and scores, without the seconds."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def digest(run: Path) -> str:
    return hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / "checkpoints").glob("step-*.safetensors"))


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ForkServer:
    """Trainers in processes of their own, forked from one that has imported torch already."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-W", "error", str(Path(__file__).with_name("fork_server.py"))]
        self.output = (folder / "output").open("wb+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.output, env=environment()
        )

    def train(
        self,
        data: Path,
        out: Path,
        values: dict[str, Any] | None = None,
        *,
        send: signal.Signals = signal.SIGKILL,
        after: int | float | None = None,
        again_after_s: float | None = None,
        ranks: int = 1,
    ) -> list[int]:
        """Start the run ``out`` with recipe values, or resume it; return the exit code of each rank, -N for a signal N.

        ``after``: send the last rank a signal once the run has made this many steps (int), or after this many seconds
        (float); ``again_after_s``: and once more, so much later.
        """
        port = free_port() if ranks > 1 else 0
        job = [str(data), str(out), values, send.value, after, again_after_s, ranks, port]
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write((json.dumps(job) + "\n").encode())
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.read()
        return [int(code) for code in line.split()]

    def read(self) -> str:
        """What the trainers have printed."""
        self.output.seek(0)
        return self.output.read().decode()

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
        self.output.close()
