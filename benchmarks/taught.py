"""Does a teacher pay? The same student from scratch and taught, equal steps, over several seeds.

    python benchmarks/taught.py TEACHER DATA [--student edge-s] [--minutes 4] [--seeds 0 1 2] [--out runs/taught]

TEACHER is a finished run on DATA. The number of steps is what this machine trains from scratch in the minutes,
measured first and kept in OUT/steps.json; both sides then make that many, and the minutes each took are told: the
teacher's own outputs are computed once and are no part of them. Every run goes on where it was stopped; what is
finished is not done again. Pin it to as many processors as threads.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import trained
from real_data import seconds_a_step

from edgeunip import durable
from edgeunip.train import settings
from edgeunip.train.datasets import open_data
from edgeunip.train.recipe import Recipe

SCRATCH, TAUGHT = "scratch", "taught"


def main() -> None:
    """Train all runs, score the test split, print the table after each seed."""
    options = _options()
    steps = _steps(options)
    done: list[dict[str, Any]] = []
    for seed in options.seeds:
        for way in (SCRATCH, TAUGHT):
            run = options.out / way / f"seed-{seed}"
            _train(options, way, run, steps, seed)
            found = trained.test_score(run, options.data, options.splits)
            done.append({"way": way, "seed": seed, **found, "minutes": trained.minutes(run)})
        durable.write_json(options.out / "results.json", {"steps": steps, "runs": done})
        text = table(done, steps, options.label)
        durable.write_text(options.out / "results.md", text)
        print(f"\n{text}", flush=True)


def table(done: list[dict[str, Any]], steps: int, label: str | None) -> str:
    """Return mean and spread over the seeds as Markdown; ``label`` is the class told beside the mIoU."""
    names = list(done[0]["iou"])
    shown = label or names[-1]
    rows = [f"| {steps} steps | {shown} IoU, % | by seed | mIoU, % | minutes |\n|---|---|---|---|---|\n"]
    for way in (SCRATCH, TAUGHT):
        mine = [one for one in done if one["way"] == way]
        ious = [100 * (one["iou"][shown] or 0.0) for one in mine]
        mious = [100 * one["miou"] for one in mine]
        each = ", ".join(f"{iou:.1f}" for iou in ious)
        minutes = trained.mean([one["minutes"] for one in mine])
        rows.append(f"| {way} | {trained.mean(ious)} | {each} | {trained.mean(mious)} | {minutes} |\n")
    return "".join(rows)


def _steps(options: argparse.Namespace) -> int:
    """Return the number of steps, measured on the first call only: a comparison that goes on keeps its own."""
    path = options.out / "steps.json"
    if options.steps or not path.is_file():
        steps = options.steps or round(options.minutes * 60 / _seconds_a_step(options))
        durable.write_json(path, {"steps": steps})
    kept: int = json.loads(path.read_bytes())["steps"]
    return kept


def _seconds_a_step(options: argparse.Namespace) -> float:
    return seconds_a_step(_recipe(options, steps=100, seed=0), open_data(options.data, splits=options.splits))


def _recipe(options: argparse.Namespace, *, steps: int, seed: int) -> Recipe:
    """Return the recipe of both sides, every value given: a lesson would take the teacher's for what is left out."""
    fixed = {"size": options.student, "height": options.height, "width": options.width, "threads": options.threads}
    fixed |= {"steps": steps, "warmup": max(1, steps // 10), "evaluate_every": 10**6, "seed": seed}
    return settings.override(Recipe(), fixed | settings.parse(options.set))


def _train(options: argparse.Namespace, way: str, run: Path, steps: int, seed: int) -> None:
    """Start a run, or go on with it; nothing where it has ended."""
    file = options.out / f"recipe-{seed}.toml"
    durable.write_text(file, _recipe(options, steps=steps, seed=seed).to_toml())
    words = ["--data", options.data, *(["--splits", options.splits] if options.splits else []), "--recipe", file]
    if way == TAUGHT:
        words += ["--teacher", options.teacher, "--student", options.student]
        words += [word for value in options.lesson for word in ("--set", value)]
    trained.ensure(["train" if way == SCRATCH else "distill"], run, *words)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path, help="a finished run")
    parser.add_argument("data", help="the data set")
    parser.add_argument("--splits", help="sub-folder of its split lists")
    parser.add_argument("--student", default="edge-s", help="default edge-s")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training from scratch (default 4)")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default 2)")
    parser.add_argument("--height", type=int, default=240, help="of the input, pixels (default 240)")
    parser.add_argument("--width", type=int, default=320, help="of the input, pixels (default 320)")
    parser.add_argument("--label", help="class whose IoU is told (default: the last)")
    parser.add_argument("--set", action="append", default=[], help="a recipe value of both sides, key=value")
    parser.add_argument("--lesson", action="append", default=[], help="a value of the lesson, key=value")
    parser.add_argument("--out", type=Path, default=Path("runs/taught"), help="default runs/taught")
    return parser.parse_args()


if __name__ == "__main__":
    main()
