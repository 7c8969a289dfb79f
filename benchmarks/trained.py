"""What benchmarks that train need: commands run as a user would, runs gone on with, their scores and minutes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeunip.train import log
from edgeunip.train.run import RECIPE, WEIGHTS

SCORE = "report/test.json"


def edgeunip(*words: object, processors: Sequence[int] = ()) -> None:
    """Run a command of edgeunip as its user would, on some processors alone where they are given."""
    pinned = ["taskset", "-c", ",".join(map(str, processors))] if processors else []
    command = [*pinned, sys.executable, "-m", "edgeunip", *map(str, words)]
    print(*pinned, "edgeunip", *map(str, words), flush=True)
    subprocess.run(command, check=True)


def ensure(verb: Sequence[str], run: Path, *words: object, processors: Sequence[int] = ()) -> None:
    """Start a run of a training command, or go on with it; nothing where it has ended."""
    if (run / WEIGHTS).is_file():
        return
    if (run / RECIPE).is_file():
        edgeunip(*verb, "--resume", run, processors=processors)
        return
    edgeunip(*verb, *words, "--out", run, processors=processors)


def assignments(values: dict[str, Any]) -> list[str]:
    """Write recipe values as options."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def test_score(run: Path, data: object, splits: str | None, *, processors: Sequence[int] = ()) -> dict[str, Any]:
    """Score the test split, or find the score it had."""
    path = run / SCORE
    if not path.is_file():
        lists = ["--splits", splits] if splits else []
        edgeunip("eval", run, "--data", data, *lists, "--split", "test", "--json", path, processors=processors)
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def minutes(run: Path) -> float:
    """Return the minutes of training, without evaluation."""
    lines = [json.loads(line) for line in (run / log.METRICS).read_text().splitlines()]
    last: float = [line["seconds"] for line in lines if "loss" in line][-1] / 60
    return last


def mean(values: Sequence[float]) -> str:
    """Write mean and standard deviation."""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{spread}"
