"""An encoder's tensors to timm's VisionTransformer: all of its shape is read off them but the number of heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from edgeunip.errors import UsageError, WeightsError
from edgeunip.train.encoder import blocks, set_heads
from edgeunip.train.public.formats import PATCHES, depth, side_of

# Heads by width, as all published plain ViTs have them: 64 channels a head, and ViT-H's 80.
USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}


def usual_heads(width: int, where: object) -> int:
    """Return the heads of a published ViT of this width.

    Raises:
        UsageError: no published ViT has it.
    """
    if width not in USUAL_HEADS:
        why = f"it is {width} wide, which no published ViT is"
        remedy = "Give the number of heads: --heads N."
        raise UsageError(
            "The number of attention heads does not stand in the weights", where=where, why=why, remedy=remedy
        )
    return USUAL_HEADS[width]


def build(
    tensors: Mapping[str, Tensor], heads: Sequence[int], *, where: object, grid: tuple[int, int] | None = None
) -> VisionTransformer:
    """Build the ViT that has exactly these tensors.

    Args:
        tensors: under timm's names, float32.
        heads: of each block; of all blocks when there is one number.
        where: the file, for messages.
        grid: (rows, columns) of the position table, patches; None for a square one.

    Raises:
        WeightsError: a tensor of a plain ViT is missing, is too many, or has another shape.
        UsageError: the heads do not fit.
    """
    heads = list(heads) * (depth(tensors) if len(heads) == 1 else 1)
    if len(heads) != depth(tensors):
        raise WeightsError("The heads do not fit the blocks", where=where, why=f"{len(heads)} and {depth(tensors)}")
    vit = VisionTransformer(**_shape(tensors, where, grid))
    _require_match(vit, tensors, where)
    vit.load_state_dict(dict(tensors))
    for block, number in zip(blocks(vit), heads, strict=True):
        set_heads(block, number)
    return vit.eval()


def _shape(tensors: Mapping[str, Tensor], where: object, grid: tuple[int, int] | None) -> dict[str, Any]:
    width, channels, *patch = tensors[PATCHES].shape
    rows, columns, placed = _positions(tensors, where, grid)
    hidden = tensors.get("blocks.0.mlp.fc1.weight")
    return {
        "img_size": (rows * patch[0], columns * patch[1]),
        "patch_size": tuple(patch),
        "in_chans": channels,
        "num_classes": 0,
        "global_pool": "token" if "cls_token" in tensors else "",
        "embed_dim": width,
        "depth": depth(tensors),
        "num_heads": 1,
        "mlp_ratio": 4.0 if hidden is None else (hidden.shape[0] + 0.5) / width,  # timm rounds the product down
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "qk_norm": "blocks.0.attn.q_norm.weight" in tensors,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in tensors else None,
        "class_token": "cls_token" in tensors,
        "no_embed_class": not placed,
        "reg_tokens": tensors["reg_token"].shape[1] if "reg_token" in tensors else 0,
        "final_norm": "norm.weight" in tensors or "norm.bias" in tensors,
    }


def _positions(tensors: Mapping[str, Tensor], where: object, grid: tuple[int, int] | None) -> tuple[int, int, bool]:
    """Return rows, columns, and whether CLS and registers have a position as well.

    Only tables smaller than any published one form a square both ways.
    """
    if "pos_embed" not in tensors:
        why = "it has no position table pos_embed"
        raise WeightsError("The weights are none of a plain ViT", where=where, why=why)
    length = tensors["pos_embed"].shape[1]
    prefix = sum(tensors[name].shape[1] for name in ("cls_token", "reg_token") if name in tensors)
    for count, placed in ((length - prefix, True), (length, False)):
        if grid is not None and grid[0] * grid[1] == count:
            return *grid, placed
        if grid is None and (side := side_of(count)):
            return side, side, placed
    why = f"{length} positions, {prefix} of them CLS and registers, form no square grid of patches"
    raise WeightsError("The position table is not understood", where=where, why=why)


def _require_match(vit: VisionTransformer, tensors: Mapping[str, Tensor], where: object) -> None:
    wanted = {name: tuple(value.shape) for name, value in vit.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    faults = [f"missing {name}" for name in wanted if name not in found]
    faults += [f"unexpected {name}" for name in found if name not in wanted]
    faults += [
        f"{name} has shape {_times(found[name])} instead of {_times(shape)}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    if faults:
        matched = sum(found.get(name) == shape for name, shape in wanted.items())
        more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise WeightsError(
            f"The weights cover {100 * matched / len(wanted):.1f} % of a plain ViT, with {len(faults)} faults",
            where=where,
            why=", ".join(faults[:6]) + more,
            remedy="Only plain ViTs are read, and those whole.",
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
