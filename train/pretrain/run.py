"""The run folder of a pre-training: recipe, provenance, log, checkpoints, and in the end the encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeunip.errors import RunError
from edgeunip.train import settings
from edgeunip.train.encoder import Encoder, Origin
from edgeunip.train.pretrain.recipe import MaeRecipe, UnipRecipe
from edgeunip.train.public.open import open_encoder
from edgeunip.train.run import PROVENANCE, RECIPE, write_start

RECIPES = {recipe.method: recipe for recipe in (UnipRecipe(), MaeRecipe())}


@dataclass(frozen=True)
class PretrainingRun:
    """A pre-training's folder.

    Attributes:
        path: the folder.
        recipe: all values, resolved.
        provenance: the content of ``provenance.json``.
    """

    path: Path
    recipe: UnipRecipe | MaeRecipe
    provenance: dict[str, Any]

    @property
    def licence(self) -> str | None:
        """Licence of the weights it was made from, which binds what it makes; None where there is none stated."""
        source = self.provenance["source"]
        return source["licence"] if source else None

    def source(self, say: Callable[[str], None]) -> Encoder | None:
        """Open the teacher, or the weights it goes on from, again.

        Raises:
            RunError: it is no longer what the run was started with.
        """
        encoder = open_source(self.recipe, say)
        was = self.provenance["source"]
        if encoder is not None and encoder.origin.sha256 != was["sha256"]:
            raise RunError("The weights have changed since the run was started", where=encoder.origin.name)
        return encoder


def open_source(recipe: UnipRecipe | MaeRecipe, say: Callable[[str], None]) -> Encoder | None:
    """Open what a recipe names: UNIP's teacher, or the weights that MAE goes on from (None for none)."""
    name = recipe.teacher if isinstance(recipe, UnipRecipe) else recipe.init
    return open_encoder(name, say=say) if name else None


def create(path: Path, recipe: UnipRecipe | MaeRecipe, facts: dict[str, Any], source: Origin | None) -> PretrainingRun:
    """Make a new run folder; ``latest`` stays with the fine-tuning runs.

    Raises:
        RunError: the folder holds a run already.
    """
    about = {"method": recipe.method, "source": asdict(source) if source else None, **facts}
    write_start(path, recipe.to_toml(), about)
    return open_run(path)


def open_run(path: Path) -> PretrainingRun:
    """Open a pre-training's folder.

    Raises:
        RunError: it is none, or incomplete.
    """
    try:
        provenance = json.loads((path / PROVENANCE).read_bytes())
        base = RECIPES[provenance["method"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "Start one with: edgeunip pretrain unip --teacher T --data DIR."
        raise RunError("Not a pre-training run", where=path, remedy=remedy) from error
    return PretrainingRun(path, settings.read(path / RECIPE, base), provenance)
