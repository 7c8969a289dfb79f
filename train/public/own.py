"""Our own encoders: a file of one, a training run's backbone, and the form the UNIP authors' code reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from edgeunip.errors import RunError, UsageError, WeightsError
from edgeunip.train import settings
from edgeunip.train.encoder import Encoder, Origin, blocks
from edgeunip.train.public.build import build
from edgeunip.train.public.files import File, read
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import PROVENANCE, RECIPE, WEIGHTS
from edgeunip.train.vit import PATCH, SIZES

FACTS = "encoder"
_BACKBONE = "backbone.vit."


def encoder_bytes(vit: VisionTransformer, *, licence: str | None, facts: Mapping[str, Any] | None = None) -> bytes:
    """Return an encoder as a safetensors file: timm's names, and in its header what the tensors do not tell.

    The header holds one entry, ``encoder``, a JSON object: heads of each block, (rows, columns) of the position table,
    licence, and ``facts``. One entry, because safetensors writes several in random order: equal weights and facts
    give equal bytes.

    Args:
        vit: a plain ViT, any number of channels.
        licence: of the weights; that of a teacher binds its student.
        facts: more to keep (teacher, layer, ..); plain JSON values.
    """
    about = {**(facts or {}), "heads": [block.attn.num_heads for block in blocks(vit)], "licence": licence}
    about["grid"] = list(vit.patch_embed.grid_size)
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in vit.state_dict().items()}
    return safetensors.torch.save(tensors, {FACTS: json.dumps(about, sort_keys=True)})


def is_own(file: File) -> bool:
    """Tell a file of :func:`encoder_bytes`."""
    return FACTS in file.metadata


def open_own(file: File, name: str) -> Encoder:
    """Open a file of :func:`encoder_bytes`.

    Raises:
        WeightsError: its header is damaged, or it is not whole.
    """
    try:
        about = json.loads(file.metadata[FACTS])
        heads, grid, licence = [int(one) for one in about["heads"]], tuple(about["grid"]), about["licence"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError("The encoder's header is damaged", where=file.path, why=error) from error
    vit = build(file.content, heads, where=file.path, grid=grid)
    return Encoder(vit, Origin(name, "edgeunip encoder", str(file.path), file.sha256, licence))


def is_run(path: Path) -> bool:
    """Tell the folder of a training run, of fine-tuning or of pre-training."""
    return (path / RECIPE).is_file()


def open_run(path: Path, name: str) -> Encoder:
    """Open the encoder of a run: what pre-training made, or the backbone of a fine-tuned model.

    Raises:
        RunError: the run has not ended.
        WeightsError: its weights do not fit its recipe.
    """
    if not (path / WEIGHTS).is_file():
        raise RunError("The run has no weights yet", where=path, remedy="Let it end, or go on with --resume.")
    file = read(path / WEIGHTS)
    return open_own(file, name) if is_own(file) else _backbone(file, path, name)


def _backbone(file: File, path: Path, name: str) -> Encoder:
    recipe = settings.read(path / RECIPE, Recipe())
    if recipe.is_convolutional:
        raise RunError("The run holds no ViT", where=path, why=f"its size is {recipe.size}")
    if recipe.size not in SIZES:
        raise RunError("The run's recipe does not name its size", where=path / RECIPE, why=recipe.size)
    size = SIZES[recipe.size]
    heads = [size.heads] * (size.depth - 1) + [recipe.last_heads or size.last_heads]
    tensors = {key.removeprefix(_BACKBONE): value for key, value in file.content.items() if key.startswith(_BACKBONE)}
    if not tensors:
        raise WeightsError("The run holds no backbone", where=file.path)
    grid = recipe.crop_height // PATCH, recipe.crop_width // PATCH
    vit = build(tensors, heads, where=file.path, grid=grid)
    left_out = tuple(sorted(key for key in file.content if not key.startswith(_BACKBONE)))
    return Encoder(vit, Origin(name, "edgeunip run", str(path), file.sha256, _licence(path), left_out))


def _licence(path: Path) -> str | None:
    """Return the licence of what a fine-tuning run started from or was taught by, where that was licensed."""
    try:
        provenance = json.loads((path / PROVENANCE).read_bytes())
        parts = [provenance.get(name) for name in ("init", "teacher")]
    except (OSError, ValueError) as error:
        raise RunError("The run's provenance is damaged", where=path / PROVENANCE, why=error) from error
    found = [part["licence"] for part in parts if isinstance(part, dict) and part.get("licence")]
    return str(found[0]) if found else None


@torch.no_grad()
def to_reference(vit: VisionTransformer) -> dict[str, Tensor]:
    """Return an encoder as the UNIP authors' code reads it: three channels, no LayerScale, 150 tensors for 12 blocks.

    The function on three equal channels stays the same: the one channel is spread in thirds, LayerScale is folded
    into the layers before it. A final norm the encoder lacks is written as (1, 0), as UNIP's own files have it.

    Raises:
        UsageError: the encoder has registers, no CLS, or a grid that is not square.
    """
    rows, columns = vit.patch_embed.grid_size
    if vit.reg_token is not None or vit.cls_token is None or vit.no_embed_class or rows != columns:
        why = f"its grid is {rows} x {columns}, with {vit.num_prefix_tokens} tokens before the patches"
        raise UsageError("The encoder cannot be written for the UNIP authors' code", why=why)
    width = vit.embed_dim
    result = {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    result |= {name: value.detach().float().cpu().clone() for name, value in vit.state_dict().items()}
    for index in range(len(vit.blocks)):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            if (gamma := result.pop(f"blocks.{index}.{scale}.gamma", None)) is not None:
                result[f"blocks.{index}.{layer}.weight"] *= gamma[:, None]
                result[f"blocks.{index}.{layer}.bias"] *= gamma
    kernel = result["patch_embed.proj.weight"]
    if kernel.shape[1] == 1:
        result["patch_embed.proj.weight"] = kernel.expand(-1, 3, -1, -1) / 3
    return result
