"""Does pre-training pay? NMI-HAD from a small teacher into tiny, against masked auto-encoding and scratch.

    python benchmarks/pretraining.py DATA_FOLDER [--out runs/pretraining] [--seeds 0 1 2] [--threads 4]

DATA_FOLDER holds buffalo-udder-thermal/ and hit-uav-thermal/. Pre-training sees the images of the train splits, never a
label. All three are then fine-tuned with one recipe and scored on the test splits. Every part goes on where it was
stopped; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgeunip.train.run import RECIPE, WEIGHTS

SETS = {"buffalo-udder-thermal": "", "hit-uav-thermal": "bydate"}
# Crops of 160 pixels, batches of 64: what four processors do in half an hour, not what the papers do in days.
COMMON = {"crop": 160, "batch": 64, "base_lr": 2.4e-3, "clip": 1, "holdout": 64, "evaluate_every": 250}
DECODER = {"decoder_dim": 128, "decoder_depth": 2, "decoder_heads": 4}
FINE_TUNING: dict[str, dict[str, float]] = {
    "buffalo-udder-thermal": {"height": 240, "width": 320, "steps": 320},
    "hit-uav-thermal": {"height": 384, "width": 480, "crop_height": 192, "crop_width": 240, "steps": 260},
}
RECIPES = {"hit-uav-thermal": "small-objects.toml"}


def main() -> None:
    """Index, pre-train three times, fine-tune all."""
    options = _options()
    index = options.out / "train.parquet"
    if not index.exists():
        sources = [word for name, lists in SETS.items() for word in ("--source", _source(options.data / name, lists))]
        edgeunip("data", "index", index.stem, "--out", index.parent, *sources)
    teacher, student, plain = (options.out / name for name in ("teacher", "unip", "mae"))
    values = COMMON | {"checkpoint_every": 100, "threads": options.threads}
    pretrain("mae", teacher, index, "small", values | DECODER | {"steps": options.teacher_steps})
    pretrain("unip", student, index, "tiny", values | {"steps": options.steps}, "--teacher", teacher)
    pretrain("mae", plain, index, "tiny", values | DECODER | {"steps": options.mae_steps})
    tell_cost(options.out)
    inits = ["scratch", str(plain), str(student)]
    with ThreadPoolExecutor(options.threads) as pool:  # one thread a run: several at once lose nothing to each other
        list(pool.map(lambda job: compare(options, *job), [(name, [init]) for name in SETS for init in inits]))
    for name in SETS:
        compare(options, name, inits)


def pretrain(method: str, out: Path, index: Path, size: str, values: dict[str, float], *more: object) -> None:
    """Start a pre-training, or go on with it; nothing where it has ended."""
    if (out / WEIGHTS).exists():
        return
    if (out / RECIPE).exists():
        edgeunip("pretrain", method, "--resume", out)
        return
    edgeunip("pretrain", method, "--data", index, "--size", size, "--out", out, *more, *settings(values))


def compare(options: argparse.Namespace, name: str, inits: list[str]) -> None:
    """Fine-tune starts on one data set, over the seeds; what has ended is only put into the table."""
    values = {"batch": 4, "warmup": 30, "threads": 1, "evaluate_every": 10_000} | FINE_TUNING[name]
    words = ["--inits", *inits, "--data", options.data / name, "--mode", "ft", "--seeds", *options.seeds]
    words += ["--splits", SETS[name]] if SETS[name] else []
    words += ["--recipe", Path(__file__).parents[1] / "recipes" / RECIPES[name]] if name in RECIPES else []
    edgeunip("benchmark", *words, "--out", options.out / f"ft-{name}", *settings(values))


def tell_cost(out: Path) -> None:
    """Print what each pre-training has computed."""
    for run in ("teacher", "unip", "mae"):
        recipe = [line.split(" = ") for line in (out / run / RECIPE).read_text().splitlines()]
        steps = next(int(value) for key, value in recipe if key == "steps")
        lines = [json.loads(line) for line in (out / run / "metrics.jsonl").read_text().splitlines()]
        held_out = [line["val"] for line in lines if "val" in line]
        print(f"{run}: {steps} steps of 64, {lines[-1]['seconds'] / 60:.1f} minutes")
        print(f"  held out: {held_out[0]} -> {held_out[-1]}")


def settings(values: dict[str, float]) -> list[str]:
    """Write recipe values as options."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def edgeunip(*words: object) -> None:
    """Run a command of edgeunip as its user would."""
    command = [sys.executable, "-m", "edgeunip", *map(str, words)]
    print("edgeunip", *command[3:], flush=True)
    subprocess.run(command, check=True)


def _source(folder: Path, lists: str) -> str:
    return f"{folder}/images,list={folder / lists / 'train.txt'},set={folder.name}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the two data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"), help="default runs/pretraining")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"], help="of the fine-tuning (default 0 1 2)")
    parser.add_argument("--threads", type=int, default=4, help="processor threads (default 4)")
    parser.add_argument("--teacher-steps", type=int, default=500, help="default 500")
    parser.add_argument("--steps", type=int, default=250, help="of the distillation (default 250)")
    parser.add_argument("--mae-steps", type=int, default=2000, help="of the auto-encoder of the student's size (2000)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
