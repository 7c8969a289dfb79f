"""What a recipe leaves open, filled in from the data and from the encoder it starts from."""

from __future__ import annotations

from dataclasses import asdict, replace

from edgeunip.errors import UsageError
from edgeunip.train import init
from edgeunip.train.datasets import DataSet
from edgeunip.train.encoder import Encoder
from edgeunip.train.linear import ALL, default_layers, parse_layers
from edgeunip.train.recipe import Recipe
from edgeunip.train.vit import PATCH, SIZES, require_behind

OPEN = ("size", "layers", "last_heads", "height", "width", "crop_height", "crop_width")
MACHINE = ("devices", "workers", "threads")


def resolve(recipe: Recipe, data: DataSet, start: Encoder | None = None) -> Recipe:
    """Fill in what a recipe leaves to the data (input, crop) and to the encoder (size, heads of the last block).

    Raises:
        UsageError: no model can be built or trained with the values.
    """
    recipe = init.adopt(recipe, start) if start else recipe
    recipe = replace(recipe, size="tiny") if recipe.size == "auto" else recipe
    shape = data.read_image(data.split("train")[0]).shape[:2]
    height, width = (
        given or max(PATCH, round(have / PATCH) * PATCH)
        for given, have in zip((recipe.height, recipe.width), shape, strict=True)
    )
    resolved = replace(
        recipe,
        height=height,
        width=width,
        crop_height=recipe.crop_height or height,
        crop_width=recipe.crop_width or width,
    )
    return resolved if resolved.is_convolutional else _with_heads(resolved)


def _with_heads(recipe: Recipe) -> Recipe:
    """Fill in what only a ViT has: the heads of its last block, and the blocks a linear probe reads."""
    size = SIZES[recipe.size]
    layers = recipe.layers or (default_layers(size.depth) if recipe.head == "linear" else "")
    resolved = replace(recipe, last_heads=recipe.last_heads or size.last_heads, layers=layers)
    _require_buildable(resolved)
    return resolved


def _require_buildable(recipe: Recipe) -> None:
    dim = SIZES[recipe.size].dim
    require_behind(recipe.merge, SIZES[recipe.size].depth)
    if dim % recipe.last_heads:
        raise UsageError(f"{recipe.last_heads} last_heads do not divide the width {dim} of the {recipe.size} model")
    smallest = min(recipe.height, recipe.width, recipe.crop_height, recipe.crop_width)
    if recipe.head == "uper" and smallest < 2 * PATCH:
        raise UsageError(f"The uper head needs inputs and crops of {2 * PATCH} pixels or more, not {smallest}")
    if recipe.head == "uper" and recipe.batch < 2:
        raise UsageError("The uper head needs a batch of 2 or more: it normalises one value a picture")
    if recipe.head == "linear":
        parse_layers(recipe.layers, SIZES[recipe.size].depth)
    if recipe.layers == ALL and recipe.clip:
        raise UsageError("With layers = all clip must be 0: the probes' gradients have nothing to do with each other")


def differences(asked: Recipe, resolved: Recipe) -> list[str]:
    """Tell in words where a resolved recipe is not the one asked for; what was left open there agrees with anything."""
    values = {**asdict(asked), "init": init.located(asked.init)}
    have, left_open = asdict(resolved), ("auto", "", 0)
    given = [key for key in values if key not in MACHINE and not (key in OPEN and values[key] in left_open)]
    return [f"{key} is {have[key]!r}, not {values[key]!r}" for key in given if have[key] != values[key]]
