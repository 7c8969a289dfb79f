"""The same minutes of training from several starts: a convolutional net, a ViT from scratch, the ViT pre-trained.

    python benchmarks/starts.py DATA [--splits S] --inits RUN_OR_CKPT ... --processors 0,1 2,3 [--minutes 4]
        [--seeds 0 1 2] [--labelled N] [--recipe FILE] [--set key=value ..] [--out runs/starts]

Each run has the processors of one group, one thread each; as many runs go side by side as there are groups. The number
of steps of the ViT and of the convolutional net is what the first group does in the minutes, measured first and kept in
OUT/steps.json; the minutes each run then took are told. Every run goes on where it was stopped; what is finished is not
done again. All are scored on the test split. ``--labelled`` leaves every start N pictures of the train split, spread
evenly over its list.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import trained
from real_data import seconds_a_step

from edgeunip import durable
from edgeunip.train import settings
from edgeunip.train.datasets import open_data
from edgeunip.train.recipe import Recipe

CONVOLUTIONAL = "edge-s"  # MobileNetV4-small's features


def main() -> None:
    """Train all, score the test split, print the table."""
    options = _options()
    if len({len(group) for group in options.processors}) > 1:
        raise SystemExit(f"Groups of processors differ in size: {options.processors}. Their runs cannot be compared.")
    if options.labelled:
        options.data, options.splits = str(_thinned(options)), None
    vit = {"size": options.size, "merge": options.merge}
    models: dict[str, dict[str, Any]] = {"convolutional": {"size": CONVOLUTIONAL}, "scratch": vit}
    for init in options.inits:
        if Path(init).name in models:
            raise SystemExit(f"Two starts are called {Path(init).name}: {init}. Name folders that differ.")
        models[Path(init).name] = vit | {"init": init}
    steps = _steps(options, {model["size"]: model for model in (models["convolutional"], vit)})
    groups: queue.SimpleQueue[list[int]] = queue.SimpleQueue()
    for group in options.processors:
        groups.put(group)

    def work(job: tuple[str, int]) -> dict[str, Any]:
        name, seed = job
        group = groups.get()
        try:
            return _trained(options, models[name] | {"steps": steps[models[name]["size"]], "seed": seed}, name, group)
        finally:
            groups.put(group)

    with ThreadPoolExecutor(len(options.processors)) as pool:
        done = list(pool.map(work, [(name, seed) for seed in options.seeds for name in models]))
    text = table(done, options.batch)
    durable.write_json(options.out / "results.json", done)
    durable.write_text(options.out / "results.md", text)
    print(f"\n{text}")


def table(done: list[dict[str, Any]], batch: int) -> str:
    """Return mean and spread over the seeds as Markdown."""
    names = list(done[0]["iou"])[1:]
    head = "".join(f" {name} |" for name in names)
    rows = [f"| start | steps of {batch} | minutes | mIoU | by seed |{head}\n|{'---|' * (5 + len(names))}\n"]
    for start in dict.fromkeys(one["start"] for one in done):
        mine = [one for one in done if one["start"] == start]
        each = ", ".join(f"{100 * one['miou']:.1f}" for one in mine)
        ious = [trained.mean([100 * (one["iou"][name] or 0.0) for one in mine]) for name in names]
        scores = [trained.mean([100 * one["miou"] for one in mine]), each, *ious]
        took = trained.mean([one["minutes"] for one in mine])
        rows.append(f"| {' | '.join([start, str(mine[0]['steps']), took, *scores])} |\n")
    return "".join(rows)


def _thinned(options: argparse.Namespace) -> Path:
    """Lay out a data set beside the given one with fewer pictures to train on, the same to judge by."""
    given, thinned = Path(options.data).resolve(), Path(options.out, f"labelled-{options.labelled}")
    for name in ("images", "labels", "classes.json"):
        if not (thinned / name).exists():
            thinned.mkdir(parents=True, exist_ok=True)
            (thinned / name).symlink_to(given / name)
    for split in ("train", "val", "test"):
        stems = (given / (options.splits or "") / f"{split}.txt").read_text().splitlines()
        if split == "train":
            if options.labelled > len(stems):
                raise SystemExit(f"The train split has {len(stems)} pictures, {options.labelled} are asked for.")
            stems = [stems[index * len(stems) // options.labelled] for index in range(options.labelled)]
        durable.write_text(thinned / f"{split}.txt", "\n".join(stems))
    return thinned


def _steps(options: argparse.Namespace, models: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Return the steps of each size, measured on the first call only: a comparison that goes on keeps its own."""
    path = options.out / "steps.json"
    if not path.is_file():
        os.sched_setaffinity(0, options.processors[0])
        data = open_data(options.data, splits=options.splits)
        seconds = {size: seconds_a_step(_recipe(options, model), data) for size, model in models.items()}
        durable.write_json(path, {size: round(options.minutes * 60 / one) for size, one in seconds.items()})
    kept: dict[str, int] = json.loads(path.read_bytes())
    return kept


def _recipe(options: argparse.Namespace, values: dict[str, Any]) -> Recipe:
    base = settings.read(options.recipe, Recipe()) if options.recipe else Recipe()
    fixed = {"batch": options.batch, "threads": len(options.processors[0]), "evaluate_every": 10**6}
    fixed |= {"warmup": max(1, values.get("steps", 0) // 10)}
    return settings.override(base, fixed | settings.parse(options.set) | values)


def _trained(options: argparse.Namespace, values: dict[str, Any], name: str, group: list[int]) -> dict[str, Any]:
    """Train one model, or find it trained; return its score."""
    run = options.out / name / f"seed-{values['seed']}"
    file = options.out / f"recipe-{name}-{values['seed']}.toml"
    durable.write_text(file, _recipe(options, values).to_toml())
    words = ["--data", options.data, *(["--splits", options.splits] if options.splits else []), "--recipe", file]
    trained.ensure(["train"], run, *words, processors=group)
    found = trained.test_score(run, options.data, options.splits, processors=group)
    return {"start": name, "seed": values["seed"], "steps": values["steps"], "minutes": trained.minutes(run), **found}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="the data set")
    parser.add_argument("--splits", help="sub-folder of its split lists")
    parser.add_argument("--inits", nargs="*", default=[], help="pre-trained encoders of the ViT's size")
    parser.add_argument("--size", default="tiny", help="of the ViT (default tiny)")
    parser.add_argument(
        "--merge", type=int, default=2, help="patches are merged behind this block (default 2; 0 never)"
    )
    parser.add_argument("--minutes", type=float, default=4.0, help="of training (default 4)")
    parser.add_argument("--batch", type=int, default=4, help="pictures a step (default 4)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default 0 1 2")
    parser.add_argument("--processors", nargs="+", type=_group, default=[[0, 1]], help="groups, default 0,1")
    parser.add_argument("--labelled", type=int, default=0, help="pictures to train on (default 0: all)")
    parser.add_argument("--recipe", type=Path, help="TOML file of recipe values")
    parser.add_argument("--set", action="append", default=[], help="a recipe value, key=value")
    parser.add_argument("--out", type=Path, default=Path("runs/starts"), help="default runs/starts")
    return parser.parse_args()


def _group(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
