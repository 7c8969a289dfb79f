"""The log of a run: progress bar, ``metrics.jsonl``, TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from edgeunip import durable

METRICS = "metrics.jsonl"
PRINT_EVERY_S = 10.0


class Log:
    """Losses and scores of a run, written by rank 0; the other ranks only count.

    Args:
        folder: of the run.
        first: the step it goes on from; what the log holds from there on is dropped, for it comes again.
        steps: of the whole run.
        on: whether this is rank 0.
    """

    def __init__(self, folder: Path, *, first: int, steps: int, on: bool) -> None:
        self.on, self._first, self._total = on, first, steps
        self._since = time.monotonic()
        self._trained_s = _keep_lines(folder / METRICS, first) if on else 0.0
        self._at_start = self._trained_s
        if on:
            self._file = durable.Stream(folder / METRICS, append=True)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first)
        visible = on and sys.stderr.isatty()
        self._bar = tqdm(total=steps, initial=first, unit="step", disable=not visible, dynamic_ncols=True)
        self._printed = math.inf if visible or not on else time.monotonic()

    def __enter__(self) -> Log:
        self._since = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self.on:
            self._board.close()
            self._file.close()

    def advance(self) -> None:
        """Count a step."""
        self._bar.update()

    def loss(self, done: int, mean: float, rate: float) -> None:
        """Write the mean loss since the last line and the learning rate, after ``done`` steps."""
        self._write({"step": done, "loss": mean, "lr": rate, "seconds": self._seconds()})
        self._bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
        self._print(done, mean)

    def score(self, done: int, values: dict[str, Any], told: str, *, took_s: float) -> None:
        """Write what held-out data gave, which took ``took_s`` seconds that count as no training; ``told`` is shown."""
        self._since += took_s
        self._write({"step": done, "val": values, "seconds": self._seconds()})
        self._bar.write(f"step {done}: {told}")

    def _seconds(self) -> float:
        """Add the time since the last call to the seconds trained, which are returned."""
        now = time.monotonic()
        self._trained_s += now - self._since
        self._since = now
        return self._trained_s

    def _print(self, done: int, loss: float) -> None:
        """Without a terminal, a line now and then stands in for the progress bar."""
        if time.monotonic() - self._printed < PRINT_EVERY_S:
            return
        self._printed = time.monotonic()
        step_s = (self._trained_s - self._at_start) / (done - self._first)
        left = (self._total - done) * step_s / 60
        print(f"step {done}/{self._total}: loss {loss:.4f}, {step_s:.2f} s a step, {left:.1f} min left", flush=True)

    def _write(self, line: dict[str, Any]) -> None:
        if not self.on:
            return
        self._file.write((json.dumps(line) + "\n").encode())
        for key in ("loss", "lr"):
            if key in line:
                self._board.add_scalar(key, line[key], line["step"])
        for key, value in line.get("val", {}).items():
            if isinstance(value, float):
                self._board.add_scalar(f"val/{key}", value, line["step"])


def _keep_lines(path: Path, step: int) -> float:
    """Drop the log's lines that will be written again from ``step`` on; return the seconds trained until then.

    The score after ``step`` is one of them: the run may have ended before it was known.
    """
    if not path.is_file():
        return 0.0
    kept = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a killed run may be torn
        if entry["step"] < step + ("loss" in entry):
            kept.append(entry)
    durable.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
    return float(kept[-1]["seconds"]) if kept else 0.0
