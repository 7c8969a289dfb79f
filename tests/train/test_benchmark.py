"""The comparison of encoders: words, folders, resuming, failures, tables; and the cost of models (U8)."""

from __future__ import annotations

import csv
import json
import math
import statistics
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from encoders import LICENCE, encoder
from training import EXECUTABLE, digest, environment, make_data, recipe

from edgeunip import durable
from edgeunip.classes import Classes
from edgeunip.errors import DataError, UsageError
from edgeunip.options import spread
from edgeunip.train import benchmark, benchmark_report, fit
from edgeunip.train import run as runs
from edgeunip.train.benchmark import Plan, read_plan, safe
from edgeunip.train.benchmark_report import Result, group, table
from edgeunip.train.cost import Cost, cost
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.public.own import encoder_bytes
from edgeunip.train.recipe import Recipe


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit.report, "write", lambda *_: None)


@pytest.fixture
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_report, "_plot", lambda _: b"")


def silent(_: str) -> None:
    pass


# Words


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("--inits A B C --out X", "--inits A --inits B --inits C --out X"),
        ("--out X --seeds 0 1", "--out X --seeds 0 --seeds 1"),
        ("--inits A --inits B C", "--inits A --inits B --inits C"),
        ("--out X Y --inits A", "--out X Y --inits A"),
        ("--inits --seeds 1 2", "--inits --seeds 1 --seeds 2"),
        ("--inits=A B", "--inits=A B"),
        ("", ""),
    ],
)
def test_spread(words: str, found: str) -> None:
    assert spread(words.split(), ["--inits", "--seeds"]) == found.split()


def plan(data: str | Path, **options: Any) -> Plan:
    words = {
        "splits": [],
        "modes": ["ft,lp"],
        "seeds": [0],
        "inits": ["scratch"],
        "recipe": None,
        "values": [],
    } | options
    return read_plan(
        words.pop("inits"), [str(data)], words.pop("splits"), words.pop("modes"), words.pop("seeds"), **words
    )


def test_settings_go_to_both_modes_or_to_one(data_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('head = "uper"\nlr = 1e-4\n')
    found = plan(data_folder, recipe=file, values=["batch=3", "lp.lr=0.01", "ft.clip=0.5"], seeds=[4, 5, 4])
    assert found.seeds == (4, 5)
    both = {"batch": 3, "devices": 1}
    assert found.recipes == {
        "ft": replace(Recipe(head="uper", lr=1e-4, clip=0.5), **both),
        "lp": replace(Recipe(head="linear", lr=0.01), **both),
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"modes": ["ft,pl"]}, "Unknown mode: pl. Did you mean lp?"),
        ({"splits": ["a", "b"]}, "2 --splits for 1 data sets. Give none, one for all, or one each."),
        (
            {"values": ["ft.head=linear"]},
            "Fine-tuning cannot have a linear head. Leave the head out, or take --mode lp.",
        ),
        (
            {"values": ["lp.layers=all"]},
            "A comparison is of one probe a run. edgeunip probe --layers all has one a layer.",
        ),
        ({"inits": ["a/b", "a:b"]}, "Two init names give the same folder: a/b, a:b"),
        ({"values": ["ft.stepz=3"]}, "Unknown recipe key: stepz. Did you mean steps"),
    ],
)
def test_wrong_words(data_folder: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan(data_folder, **options)
    assert str(caught.value).startswith(told)


def test_data_sets_without_test_or_twice(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Two data sets have the same name"):
        read_plan(["scratch"], [str(data_folder)] * 2, [], ["ft"], [0], recipe=None, values=[])
    (make_data(tmp_path / "set") / "test.txt").unlink()
    with pytest.raises(UsageError, match="A data set without a test split cannot be compared on: set"):
        plan(tmp_path / "set")
    with pytest.raises(DataError, match="No such data-set folder"):
        plan(tmp_path / "none")


def test_a_list_of_its_own_for_each_data_set(tmp_path: Path) -> None:
    root = make_data(tmp_path / "set")
    for name in ("train", "val", "test"):
        durable.write_text(root / "short" / f"{name}.txt", f"{name}0\n")
    found = read_plan(["scratch"], [str(root)] * 2, [".", "short"], ["ft"], [0], recipe=None, values=[])
    assert {name: len(data.split("train")) for name, data in found.data.items()} == {"set-.": 10, "set-short": 1}
    (both,) = plan(root, splits=["short"]).data.values()
    assert len(both.split("train")) == 1


def test_names_of_folders() -> None:
    assert [safe(name) for name in ("hf:a/b:c.pth", "../../x", "/", "ünip", "a b")] == [
        "hf-a-b-c.pth",
        "x",
        "-",
        "ünip",
        "a-b",
    ]


# Runs


def small(data: DataSet, *inits: str, **values: Any) -> Plan:
    recipes = {"ft": recipe(steps=3, **values), "lp": recipe(steps=3, head="linear", clip=0, **values)}
    return Plan(inits, {"scenes": data}, recipes, (0, 1))


@pytest.fixture
def encoder_file(tmp_path: Path) -> str:
    path = tmp_path / "encoder.safetensors"
    durable.write_bytes(path, encoder_bytes(encoder(channels=1).vit, licence=LICENCE))
    return str(path)


@pytest.mark.usefixtures("micro", "unplotted")
def test_a_comparison(data: DataSet, tmp_path: Path, encoder_file: str) -> None:
    out = tmp_path / "out"
    found = benchmark.run(small(data, encoder_file, "scratch", "nothing"), out, say=silent)
    assert len(found) == 12
    assert [one.error is None for one in found] == [one.init != "nothing" for one in found]
    folders = sorted(path.parent.relative_to(out).as_posix() for path in out.glob("*/*/*/seed-*/weights.safetensors"))
    name = safe(encoder_file)
    assert folders == [
        f"{i}/scenes/{m}/seed-{s}" for i in sorted([name, "scratch"]) for m in ("ft", "lp") for s in (0, 1)
    ]
    run = runs.open_run(out / name / "scenes/lp/seed-1")
    assert (run.recipe.head, run.recipe.seed, run.recipe.init) == ("linear", 1, encoder_file)
    assert runs.open_run(out / "scratch/scenes/ft/seed-0").recipe.init == ""
    saved = json.loads((out / "results.json").read_text())
    assert [one["score"] and one["score"]["miou"] for one in saved["runs"]] == [
        one.score and one.score["miou"] for one in found
    ]
    first = saved["summary"][0]
    mious = [one["score"]["miou"] for one in saved["runs"] if (one["init"], one["mode"]) == (encoder_file, "ft")]
    assert first["values"] == mious
    assert first["mean"] == pytest.approx(sum(mious) / 2)
    assert first["deviation"] == pytest.approx(abs(mious[0] - mious[1]) / math.sqrt(2))
    assert saved["runs"][0]["score"]["iou"].keys() == {"ground", "wall", "person"}
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert len(rows) == 12
    assert float(rows[0]["miou"]) == mious[0]
    assert rows[-1]["error"].startswith("Unknown encoder: nothing")
    assert (out / "results.png").exists()


@pytest.mark.usefixtures("micro", "unplotted")
def test_a_comparison_goes_on_where_it_was(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the third of four runs: the first two are found, the third is resumed, all as if undisturbed."""
    wanted, out = small(data, "scratch", checkpoint_every=1), tmp_path / "out"
    whole = benchmark.run(wanted, tmp_path / "whole", say=silent)
    real, steps = fit.Trainer._step, []

    def counted(trainer: fit.Trainer, at: int, *batch: Any) -> Any:
        if len(steps) == 8:
            raise KeyboardInterrupt
        steps.append(at)
        return real(trainer, at, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(fit.Trainer, "_step", counted)
        with pytest.raises(KeyboardInterrupt):
            benchmark.run(wanted, out, say=silent)
    assert len(json.loads((out / "results.json").read_text())["runs"]) == 2
    steps.clear()
    monkeypatch.setattr(fit.Trainer, "_step", counted)
    found = benchmark.run(wanted, out, say=silent)
    assert len(steps) == 1 + 3
    assert [one.score for one in found] == [one.score for one in whole]
    for one, other in zip(found, whole, strict=True):
        assert digest(Path(one.folder)) == digest(Path(other.folder))
    again = benchmark.run(wanted, out, say=silent)
    assert len(steps) == 1 + 3 and again == found


@pytest.mark.usefixtures("micro", "unplotted")
def test_another_recipe_or_scoring_in_the_same_folder_is_refused(data: DataSet, tmp_path: Path) -> None:
    wanted = replace(small(data, "scratch"), seeds=(0,))
    benchmark.run(wanted, tmp_path, say=silent)
    other = replace(small(data, "scratch", lr=0.5), seeds=(0,))
    errors = [one.error for one in benchmark.run(other, tmp_path, say=silent)]
    assert all(error and "(lr is 0.001, not 0.5)" in error for error in errors)
    errors = [one.error for one in benchmark.run(replace(wanted, scoring="slide"), tmp_path, say=silent)]
    assert all(error and "scored in another mode" in error and "by whole, not by slide" in error for error in errors)


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    """The words of the documentation; a failed combination gives exit code 1 and does not end the others."""
    for name in ("one", "two"):
        make_data(tmp_path / name)
    small_model = ["--set", "steps=1", "batch=2", "height=32", "width=32", "warmup=0", "threads=1"]
    inits = "--inits scratch random:vit_tiny_patch16_224 nothing"
    words = f"benchmark {inits} --data one two --mode ft,lp --seeds 0 1 --out out"
    done = subprocess.run(
        [EXECUTABLE, *words.split(), *small_model], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "24/24: nothing on two, lp, seed 1" in done.stderr
    assert len(list((tmp_path / "out").glob("*/*/*/seed-*/report/test.json"))) == 16
    assert done.stdout.endswith((tmp_path / "out/results.md").read_text())  # behind the lines of progress
    assert done.stdout.count("± ") == 8 and done.stdout.count("| failed |") == 4


# Tables


PRICE = Cost(10_400_000, 4_700_000, 36_700_000_000, 4_800_000_000)


def result(init: str, miou: float | None, seed: int = 0, mode: str = "ft") -> Result:
    score = None if miou is None else {"miou": miou, "accuracy": 0.9, "iou": {}, "images": 3}
    return Result(init, "soda", mode, seed, "folder", score, None if miou is None else PRICE, None if score else "lost")


def test_mean_and_spread() -> None:
    values = [0.60, 0.62, 0.67]
    found = group([*(result("unip", value, seed) for seed, value in enumerate(values)), result("mae", 0.5)])
    assert (found[0].mean, found[0].deviation) == (
        pytest.approx(statistics.mean(values)),
        pytest.approx(statistics.stdev(values)),
    )
    assert [str(one) for one in found] == ["63.00 ± 3.61", "50.00"]
    assert found[1].deviation is None


def test_table_tells_what_failed() -> None:
    found = [result("unip", 0.6), result("unip", None, 1), result("mae", None), result("unip", 0.4, mode="lp")]
    lines = table(group(found)).splitlines()
    assert lines[0].startswith("| data | mode | init | test mIoU, % | parameters, M |")
    assert lines[2] == "| soda | ft | unip | 60.00 (1 of 2 runs) | 10.4 | 4.7 | 36.7 | 41.5 |"
    assert lines[3] == "| soda | ft | mae | failed |  |  |  |  |"
    assert lines[4].startswith("| soda | lp | unip | 40.00 |")


def test_the_plot_is_drawn_with_and_without_results(tmp_path: Path) -> None:
    found = [result(f"encoder {index}", 0.5 + index / 50, mode=mode) for index in range(3) for mode in ("ft", "lp")]
    benchmark_report.write(tmp_path, found)
    picture = cv2.imread(str(tmp_path / "results.png"))
    assert picture.shape[1] > 800
    assert len({tuple(colour) for colour in picture.reshape(-1, 3)}) > 20
    benchmark_report.write(tmp_path, [result("mae", None)])
    assert json.loads((tmp_path / "results.json").read_text())["summary"][0]["mean"] is None


# Cost


def priced(**values: Any) -> Cost:
    asked = Recipe(height=512, width=512, crop_height=512, crop_width=512, last_heads=16, **values)
    return cost(asked, Classes(tuple(f"class {i}" for i in range(21)), ((0, 0, 0),) * 21, 255))


@pytest.mark.parametrize(
    ("size", "gmacs", "with_attention", "millions"),
    [("tiny", 36.7, 41.5, 10.4), ("small", 146.2, 155.9, 40.7), ("base", 584.0, 603.3, 161.4)],
)
def test_u8_cost_of_unip_with_upernet(size: Any, gmacs: float, with_attention: float, millions: float) -> None:
    """U8: UNIP-S has 146.2 GMACs without attention's products; all of the published table at 512 x 512, RGB."""
    found = priced(size=size, head="uper", modality="rgb")
    assert found.macs / 1e9 == pytest.approx(gmacs, abs=0.06)
    assert (found.macs + found.attention_macs) / 1e9 == pytest.approx(with_attention, abs=0.06)
    assert found.parameters / 1e6 == pytest.approx(millions, rel=0.005)


def test_cost_of_a_probe() -> None:
    """Only the convolution is trained: 4 x 192 + 1 weights a class."""
    found = priced(size="tiny", head="linear", layers="4,6,8,12")
    assert found.trainable == 21 * (4 * 192 + 1)
    assert found.attention_macs == 12 * 2 * 1025**2 * 192
    whole = priced(size="tiny", head="light")
    assert found.parameters < whole.parameters and whole.trainable == whole.parameters
    assert asdict(found)["macs"] < asdict(whole)["macs"]
    half = priced(size="tiny", head="linear", layers="6")
    assert half.attention_macs == found.attention_macs // 2


def test_cost_of_real_data(data_folder: Path) -> None:
    """A resolved recipe of a data set is all it takes."""
    data = open_data(str(data_folder))
    assert cost(fit.resolve(recipe(), data), data.classes).macs > 0
