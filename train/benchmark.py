"""The comparison of pre-trained encoders: each on each data set, fine-tuned and probed, over several seeds.

Every combination is a run of its own in ``DIR/INIT/DATA/MODE/seed-N``. A comparison that was stopped goes on where it
was: finished runs are found, half ones resumed. The val split selects nothing; the test split is scored once a run.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeunip import durable
from edgeunip.errors import EdgeunipError, RunError, UsageError, near
from edgeunip.train import benchmark_report, fit, settings
from edgeunip.train import run as runs
from edgeunip.train.benchmark_report import Result
from edgeunip.train.cost import cost
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.evaluate import Mode
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run

SCRATCH = "scratch"
FINE_TUNING, PROBING = "ft", "lp"
SCORE = "report/test.json"


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Attributes:
        inits: encoders as ``train --init`` takes them, or ``scratch``.
        data: data sets by the name they have in tables and folders.
        recipes: by mode: ``ft`` fine-tuning, ``lp`` linear probing.
        seeds: of the runs.
        scoring: how the test images are scored.
    """

    inits: tuple[str, ...]
    data: Mapping[str, DataSet]
    recipes: Mapping[str, Recipe]
    seeds: tuple[int, ...]
    scoring: Mode = "whole"

    def __post_init__(self) -> None:
        for noun, names in (("init", self.inits), ("data set", self.data)):
            if len({safe(name) for name in names}) < len(list(names)):
                raise UsageError(f"Two {noun} names give the same folder", where=", ".join(names))
        for name, data in self.data.items():
            if "test" not in data.splits:
                raise UsageError("A data set without a test split cannot be compared on", where=name)


def run(plan: Plan, out: Path, *, say: Callable[[str], None]) -> list[Result]:
    """Run every combination and write ``results.json``, ``.csv``, ``.md`` and ``.png`` into ``out``, anew after each.

    A combination that fails is told, stands among the results with its error, and does not end the others.
    """
    cells = list(itertools.product(plan.seeds, plan.data, plan.recipes, plan.inits))
    results: list[Result] = []
    for number, (seed, data, mode, init) in enumerate(cells, start=1):
        say(f"{number}/{len(cells)}: {init} on {data}, {mode}, seed {seed}")
        results.append(_combination(plan, out, data, mode, init, seed))
        say(f"  {results[-1]}")
        benchmark_report.write(out, results)
    return results


def read_plan(
    inits: Sequence[str],
    data: Sequence[str],
    splits: Sequence[str],
    modes: Iterable[str],
    seeds: Sequence[int],
    *,
    recipe: Path | None,
    values: Sequence[str],
    scoring: Mode = "whole",
) -> Plan:
    """Make a plan of command-line words.

    Args:
        inits: see :class:`Plan`.
        data: as :func:`open_data` takes them.
        splits: their sub-folders of lists: none, one for all, or one each.
        modes: ``ft`` and ``lp``, also with commas between.
        seeds: see :class:`Plan`.
        recipe: TOML file of recipe values for both modes.
        values: ``key=value`` for both modes, ``ft.key=value`` or ``lp.key=value`` for one.
        scoring: see :class:`Plan`.

    Raises:
        UsageError: a word is wrong.
        DataError: a data set cannot be opened.
    """
    if len(splits) not in (0, 1, len(data)):
        remedy = "Give none, one for all, or one each."
        raise UsageError(f"{len(splits)} --splits for {len(data)} data sets", remedy=remedy)
    each: Sequence[str | None] = splits if len(splits) > 1 else [*splits, None][:1] * len(data)
    opened = {_name(one, lists): open_data(one, splits=lists) for one, lists in zip(data, each, strict=True)}
    if len(opened) < len(data):
        raise UsageError("Two data sets have the same name", where=", ".join(data), remedy="Rename a folder.")
    base = settings.read(recipe, Recipe()) if recipe else Recipe()
    named = dict.fromkeys(mode for word in modes for mode in word.split(","))
    recipes = {mode: _recipe(base, mode, values) for mode in named}
    return Plan(tuple(inits), opened, recipes, tuple(dict.fromkeys(seeds)), scoring)


def safe(name: str) -> str:
    """Return a name as that of a folder."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "-"


def _name(data: str, lists: str | None) -> str:
    kind, _, place = data.rpartition(":")
    return "-".join(word for word in (kind, Path(place).name, lists) if word)


def _recipe(base: Recipe, mode: str, values: Sequence[str]) -> Recipe:
    if mode not in (FINE_TUNING, PROBING):
        raise UsageError("Unknown mode", where=mode, remedy=near(mode, (FINE_TUNING, PROBING)))
    other = f"{PROBING if mode == FINE_TUNING else FINE_TUNING}."
    mine = settings.parse(value.removeprefix(f"{mode}.") for value in values if not value.startswith(other))
    recipe = settings.override(base, mine | ({"head": "linear"} if mode == PROBING else {}))
    if mode == FINE_TUNING and recipe.head == "linear":
        raise UsageError("Fine-tuning cannot have a linear head", remedy="Leave the head out, or take --mode lp.")
    if recipe.layers == "all":
        raise UsageError("A comparison is of one probe a run", remedy="edgeunip probe --layers all has one a layer.")
    return replace(recipe, devices=recipe.devices or 1)  # several runs in one process cannot each start their ranks


def _combination(plan: Plan, out: Path, data: str, mode: str, init: str, seed: int) -> Result:
    folder = out / safe(init) / safe(data) / mode / f"seed-{seed}"
    recipe = replace(plan.recipes[mode], init="" if init == SCRATCH else init, seed=seed)
    result = Result(init, data, mode, seed, str(folder))
    try:
        run = fit.ensure(recipe, plan.data[data], folder)
        score = _score(run, plan.data[data], plan.scoring)
        return replace(result, cost=cost(run.recipe, run.classes), score=score)
    except EdgeunipError as error:
        return replace(result, error=str(error))


def _score(run: Run, data: DataSet, mode: Mode) -> dict[str, Any]:
    """Score the test split, or find the score it had.

    Raises:
        RunError: it was scored in another mode.
    """
    path = run.path / SCORE
    if not path.is_file():
        (score,) = runs.score(run, data, "test", mode=mode)
        durable.write_json(path, {**score.to_json(), "scoring": mode})
    found: dict[str, Any] = json.loads(path.read_bytes())
    if found["scoring"] != mode:
        why = f"by {found['scoring']}, not by {mode}"
        raise RunError("The test images have been scored in another mode", where=path, why=why)
    return found
