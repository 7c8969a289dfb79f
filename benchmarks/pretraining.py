"""Does pre-training pay? NMI-HAD from a small teacher into tiny, against masked auto-encoding and scratch.

    python benchmarks/pretraining.py DATA_FOLDER [--out runs/pretraining] [--seeds 0 1 2] [--processors 0,1 2,3]

DATA_FOLDER holds buffalo-udder-thermal/ and hit-uav-thermal/. Pre-training sees the images of the train splits, never a
label. All three, and a convolutional net beside them, are then trained by one recipe for the same minutes and scored on
the test splits (``starts.py``). Every part goes on where it was stopped; what is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import trained

from edgeunip.train.run import RECIPE

HERE = Path(__file__).parent
SETS = {"buffalo-udder-thermal": "", "hit-uav-thermal": "bydate"}
# Crops of 160 pixels, batches of 64: what four processors do in half an hour, not what the papers do in days.
COMMON = {"crop": 160, "batch": 64, "base_lr": 2.4e-3, "clip": 1, "holdout": 64, "evaluate_every": 250}
DECODER = {"decoder_dim": 128, "decoder_depth": 2, "decoder_heads": 4}
FINE_TUNING: dict[str, dict[str, float]] = {
    "buffalo-udder-thermal": {"height": 240, "width": 320},
    "hit-uav-thermal": {"height": 512, "width": 640},
}
RECIPES = {"buffalo-udder-thermal": "large-objects.toml", "hit-uav-thermal": "small-objects.toml"}


def main() -> None:
    """Index, pre-train three times, fine-tune all."""
    options = _options()
    index = options.out / "train.parquet"
    if not index.exists():
        sources = [word for name, lists in SETS.items() for word in ("--source", _source(options.data / name, lists))]
        trained.edgeunip("data", "index", index.stem, "--out", index.parent, *sources)
    teacher, student, plain = (options.out / name for name in ("teacher", "unip", "mae"))
    threads = sum(len(group.split(",")) for group in options.processors)
    values = COMMON | {"checkpoint_every": 100, "threads": threads}
    pretrain("mae", teacher, index, "small", values | DECODER | {"steps": options.teacher_steps})
    pretrain("unip", student, index, "tiny", values | {"steps": options.steps}, "--teacher", teacher)
    pretrain("mae", plain, index, "tiny", values | DECODER | {"steps": options.mae_steps})
    tell_cost(options.out)
    for name in SETS:
        compare(options, name, [plain, student])


def pretrain(method: str, out: Path, index: Path, size: str, values: dict[str, float], *more: object) -> None:
    """Start a pre-training, or go on with it; nothing where it has ended."""
    words = ["--data", index, "--size", size, *more, *trained.assignments(values)]
    trained.ensure(["pretrain", method], out, *words)


def compare(options: argparse.Namespace, name: str, inits: list[Path]) -> None:
    """Train from all starts on one data set, over the seeds."""
    words = [options.data / name, "--inits", *inits, "--seeds", *options.seeds, "--processors", *options.processors]
    words += ["--splits", SETS[name]] if SETS[name] else []
    words += ["--recipe", HERE.parent / "recipes" / RECIPES[name], "--out", options.out / f"starts-{name}"]
    words += trained.assignments(FINE_TUNING[name])
    subprocess.run([sys.executable, HERE / "starts.py", *map(str, words)], check=True)


def tell_cost(out: Path) -> None:
    """Print what each pre-training has computed."""
    for run in ("teacher", "unip", "mae"):
        recipe = [line.split(" = ") for line in (out / run / RECIPE).read_text().splitlines()]
        steps = next(int(value) for key, value in recipe if key == "steps")
        lines = [json.loads(line) for line in (out / run / "metrics.jsonl").read_text().splitlines()]
        held_out = [line["val"] for line in lines if "val" in line]
        print(f"{run}: {steps} steps of 64, {lines[-1]['seconds'] / 60:.1f} minutes")
        print(f"  held out: {held_out[0]} -> {held_out[-1]}")


def _source(folder: Path, lists: str) -> str:
    return f"{folder}/images,list={folder / lists / 'train.txt'},set={folder.name}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the two data sets")
    parser.add_argument("--out", type=Path, default=Path("runs/pretraining"), help="default runs/pretraining")
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"], help="of the fine-tuning (default 0 1 2)")
    parser.add_argument("--processors", nargs="+", default=["0,1", "2,3"], help="groups, a run each (default 0,1 2,3)")
    parser.add_argument("--teacher-steps", type=int, default=500, help="default 500")
    parser.add_argument("--steps", type=int, default=250, help="of the distillation (default 250)")
    parser.add_argument("--mae-steps", type=int, default=2000, help="of the auto-encoder of the student's size (2000)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
