"""From a labelled folder to an int8 bundle within a given number of training minutes, every figure on the test split.

    python benchmarks/real_data.py DIR [--splits bydate] [--minutes 4] [--threads 2] [--set key=value ...] [--out runs]

Pin it to as many processors as threads: ``taskset -c 0,1 python benchmarks/real_data.py ...``. The number of steps is
what the machine does in the minutes, measured on a short run of the same recipe first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeunip import bundle, scoring
from edgeunip.compress.export import Int8, export
from edgeunip.compress.search import Budget
from edgeunip.runtimes.bench import bench, describe
from edgeunip.train import fit, log, loop, run, settings
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.recipe import Recipe

TRIAL_STEPS = 20


def main() -> None:
    """Train, export, score, and print one line a model."""
    options = _options()
    data = open_data(options.data, splits=options.splits)
    base = settings.read(options.recipe, Recipe()) if options.recipe else Recipe()
    base = replace(settings.override(base, settings.parse(options.set)), threads=options.threads)
    steps = options.steps or round(options.minutes * 60 / seconds_a_step(base, data))
    chosen = replace(base, steps=steps, warmup=max(1, steps // 10), evaluate_every=max(1, steps // 2))
    trained = fit.train(chosen, data, options.out / f"{Path(data.location).name}-{options.minutes:g}min")
    made = {precision: _export(trained, data, int8=precision == "int8") for precision in ("float32", "int8")}
    scores = {"torch": trained.path} | {precision: built.path for precision, built in made.items()}
    print(f"\nmachine: {run.machine()['processor']}, {options.threads} threads; seed {chosen.seed}; {steps} steps")
    print(
        f"training: {_minutes(trained.path):.1f} minutes without evaluation, input {trained.size[0]}x{trained.size[1]}"
    )
    for name, path in scores.items():
        found = scoring.score(path, data.location, splits=data.lists, split="test", mode="whole")
        print(f"\n{name}: {scoring.describe(found)}")
    print(f"\n{describe(bench(made['int8'], seconds=30, threads=options.threads))}")


def seconds_a_step(base: Recipe, data: DataSet) -> float:
    """Return the time of a training step on this machine, from the second half of a short run."""
    with tempfile.TemporaryDirectory() as folder:
        trial = fit.train(replace(base, steps=TRIAL_STEPS), data, Path(folder) / "trial")
        first, last = (line["seconds"] for line in _losses(trial.path)[-2:])
    step: float = (last - first) / loop.LOG_EVERY
    return step


def _export(trained: run.Run, data: DataSet, *, int8: bool) -> bundle.Bundle:
    out = trained.path.parent / f"{trained.path.name}-{'int8' if int8 else 'float32'}.bundle"
    return export(trained, data, out, target="x86-cpu", int8=Int8(Budget(min_speedup=0)) if int8 else None)


def _minutes(path: Path) -> float:
    minutes: float = _losses(path)[-1]["seconds"] / 60
    return minutes


def _losses(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (path / log.METRICS).read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the data set")
    parser.add_argument("--splits", help="sub-folder of its split lists")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training (default 4)")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default 2)")
    parser.add_argument("--recipe", type=Path, help="TOML file of recipe values")
    parser.add_argument("--set", action="append", default=[], help="a recipe value, key=value")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where run and bundles go (default runs)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
