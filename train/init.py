"""A pre-trained encoder as the start of a segmentor: every tensor of the backbone is set from it, or it is refused.

The heads of the last block stay as the encoder has them, so that the attention that was distilled is the attention that
runs; ``last_heads`` of the recipe re-splits them, as UNIP's reference does. The encoder's final norm has no use here:
decoders and probes read the last block's output as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgeunip.errors import UsageError
from edgeunip.train.encoder import Encoder, blocks, patch_size, with_channels
from edgeunip.train.position import resize_pos_embed
from edgeunip.train.public.open import open_encoder
from edgeunip.train.recipe import Recipe
from edgeunip.train.vit import PATCH, SIZES, Backbone

NO_USE = ("norm.", "fc_norm.", "head.", "head_dist.")
PROJECTION = "patch_embed.proj.weight"


def open_start(recipe: Recipe, say: Callable[[str], None]) -> Encoder | None:
    """Open the encoder a recipe starts from, and say what it is and under which licence; None for scratch.

    Raises:
        EdgeunipError: it cannot be found, read or understood.
    """
    if not recipe.init:
        return None
    return open_encoder(recipe.init, last_heads=recipe.last_heads, say=say)


def located(name: str) -> str:
    """Return an encoder's name as it is found from any folder: a file or run by its absolute path."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name and path.exists() else name


def adopt(recipe: Recipe, encoder: Encoder) -> Recipe:
    """Fill in what a recipe leaves to the encoder it starts from: size (``auto``) and heads of the last block (0).

    Raises:
        UsageError: the encoder is of another size, or of none.
    """
    depth, dim, origin = len(blocks(encoder.vit)), encoder.vit.embed_dim, encoder.origin
    fitting = [name for name, size in SIZES.items() if (size.depth, size.dim) == (depth, dim)]
    has = f"it has {depth} blocks of width {dim}"
    if not fitting:
        known = ", ".join(f"{name} {size.depth} of {size.dim}" for name, size in SIZES.items())
        raise UsageError("The encoder has none of the sizes", where=origin.name, why=f"{has}; known: {known}")
    if recipe.size not in ("auto", fitting[0]):
        size = SIZES[recipe.size]
        why = f"{has}, {recipe.size} has {size.depth} of {size.dim}"
        raise UsageError("The encoder is of another size", where=origin.name, why=why, remedy="Leave --size out.")
    chosen: Any = fitting[0]
    return replace(
        recipe,
        size=chosen,
        last_heads=recipe.last_heads or encoder.heads[-1],
        init=located(recipe.init) or origin.file or origin.name,
    )


@torch.no_grad()
def load(backbone: Backbone, encoder: Encoder) -> None:
    """Set every tensor of a backbone from an encoder of its depth and width.

    Three channels are folded to one by their sum, which is exact where all are normalised alike; one is spread over
    three, which is exact for gray. The position table is resampled (bicubic, corners not aligned) to the backbone's
    grid. LayerScale is 1 where the encoder has none.

    Raises:
        UsageError: the encoder has a part the backbone has not, or lacks one.
    """
    name = encoder.origin.name
    _require_alike(backbone, encoder)
    theirs = {key: value for key, value in encoder.vit.state_dict().items() if not key.startswith(NO_USE)}
    ours = backbone.vit.state_dict()
    scales = {key: torch.ones_like(value) for key, value in ours.items() if key.endswith(".gamma")}
    found = {**scales, **theirs, "pos_embed": _position(backbone, encoder)}
    found[PROJECTION] = with_channels(theirs[PROJECTION], ours[PROJECTION].shape[1])
    shapes = [{key: value.shape for key, value in tensors.items()} for tensors in (ours, found)]
    if differing := sorted({key for key, _ in shapes[0].items() ^ shapes[1].items()}):
        why = f"{', '.join(differing[:6])}{', ..' if len(differing) > 6 else ''}"
        raise UsageError(f"The encoder does not fit the model in {len(differing)} tensors", where=name, why=why)
    backbone.vit.load_state_dict(found)


def _require_alike(backbone: Backbone, encoder: Encoder) -> None:
    """Refuse an encoder that computes something else than the backbone would with its weights."""
    vit, block = encoder.vit, blocks(encoder.vit)[0]
    mine, prefix = blocks(backbone.vit)[0], encoder.vit.num_prefix_tokens
    heads = {one.attn.num_heads for one in blocks(backbone.vit)[:-1]}
    reasons = [
        (patch_size(vit) != PATCH, f"its patches are {patch_size(vit)} pixels wide, not {PATCH}"),
        (vit.reg_token is not None, "it has tokens beside CLS (registers, or DeiT's distillation token)"),
        (vit.cls_token is None or prefix != 1, f"it has {prefix} tokens before the patches, not CLS alone"),
        (vit.pos_embed is None, "it has no position table"),
        (set(encoder.heads[:-1]) - heads, f"its blocks have {encoder.heads[0]} heads, not {max(heads, default=0)}"),
        (block.norm1.eps != mine.norm1.eps, f"its norms' epsilon is {block.norm1.eps}, not {mine.norm1.eps}"),
        (type(block.mlp.act) is not type(mine.mlp.act), f"its activation is {type(block.mlp.act).__name__}"),
    ]  # fmt: skip
    for wrong, why in reasons:
        if wrong:
            raise UsageError("The encoder cannot start a segmentor", where=encoder.origin.name, why=why)


def _position(backbone: Backbone, encoder: Encoder) -> Tensor:
    vit = encoder.vit
    table: Any = vit.pos_embed
    prefix = 0 if vit.no_embed_class else 1
    rows, columns = vit.patch_embed.grid_size
    resized = resize_pos_embed(table, (rows, columns), backbone.grid, prefix=prefix)
    if prefix:
        return resized
    return torch.cat([torch.zeros_like(resized[:, :1]), resized], dim=1)  # CLS gets no position there: zero
