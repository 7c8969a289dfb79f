"""What both pre-training commands do with their options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgeunip.errors import UsageError
from edgeunip.train import settings
from edgeunip.train.init import located
from edgeunip.train.pretrain import fit
from edgeunip.train.pretrain.describe import describe as description
from edgeunip.train.pretrain.recipe import MaeRecipe, UnipRecipe


def run(
    base: UnipRecipe | MaeRecipe,
    named: Mapping[str, str | None],
    data: str | None,
    recipe: Path | None,
    chosen: Sequence[str] | None,
    *,
    out: Path | None,
    resume: Path | None,
    describe: bool,
    say: Callable[[str], None],
) -> None:
    """Start, resume or describe a pre-training.

    Args:
        base: the method's defaults.
        named: recipe values that have an option of their own; None where it is not given.
        data: the images.
        recipe: a file of recipe values.
        chosen: recipe values as key=value, which win.
        out: the run's folder.
        resume: the run to go on with.
        describe: print what it would be, as JSON, and train nothing.
        say: is told what happens.

    Raises:
        UsageError: an option is missing or wrong.
    """
    if resume:
        done = fit.resume(resume, data, say=say)
    else:
        if data is None:
            raise UsageError("No images to train on", remedy="Name them: --data INDEX.parquet or --data FOLDER.")
        start = settings.collect(base, recipe, named, chosen or [])
        resolved = settings.override(start, _places(start))
        if describe:
            print(json.dumps(description(resolved, data, say=say), indent=1))
            return
        done = fit.pretrain(resolved, data, out, say=say)
    say(f"The encoder is in {done.path}. Next: edgeunip train --init {done.path} --data DIR")


def _places(recipe: UnipRecipe | MaeRecipe) -> dict[str, str]:
    """Return the recipe's teacher or start so that it is found from any folder."""
    if isinstance(recipe, UnipRecipe):
        return {"teacher": located(recipe.teacher)}
    return {"init": located(recipe.init)}
