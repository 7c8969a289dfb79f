"""A checkpoint's content to an encoder's tensors under timm's names.

Known are the files of UNIP, MAE, CrossMAE, DINO, DINOv2, iBOT, MoCo v3, DeiT (plain, distilled, III) and timm. They
differ in their containers, in prefixes and in a few names; widths, depth and the rest are read off the shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgeunip.errors import WeightsError
from edgeunip.train.position import sincos_pos_embed
from edgeunip.train.public.files import File

PATCHES = "patch_embed.proj.weight"
UNIP, OWN_RUN = "UNIP", "edgeunip run"
"""Formats whose last block may have other heads than the rest."""
# Of two encoders in one file, the first is the one its authors evaluate.
PREFERRED = (
    ("teacher", "student"), ("base_encoder", "momentum_encoder"), ("model", "model_ema"),
    ("state_dict", "state_dict_ema"),
)  # fmt: skip
# What makes up an encoder. Relative positions and norms before the blocks are listed because they change the tokens:
# they are no part of a plain ViT, and the encoder must be refused rather than read without them.
_PART = re.compile(r"(cls_token|reg_token|dist_token|register_tokens|pos_embed)$|(patch_embed|blocks|norm)\.")
_FOREIGN = re.compile(r"norm_pre\.|pos_embed|.*(rel_pos|relative_position|rope)")
_RENAMES = ((r"\.gamma_([12])$", r".ls\1.gamma"), (r"^(dist_token|register_tokens)$", "reg_token"))


@dataclass(frozen=True)
class Weights:
    """An encoder's tensors.

    Attributes:
        tensors: float32, under timm's names.
        kind: the format, in words.
        left_out: names, as in the file, that stood beside them and are no part of the encoder.
    """

    tensors: dict[str, Tensor]
    kind: str
    left_out: tuple[str, ...]


def find(file: File) -> Weights:
    """Find the encoder in a checkpoint.

    Raises:
        WeightsError: there is none, or there are several and none is known to be the one to take.
    """
    path, prefix, holder = _choose(file, list(_encoders((), file.content)))
    named = {name.removeprefix(prefix): name for name in holder if name.startswith(prefix)}
    taken = {short: name for short, name in named.items() if _PART.match(short) or _FOREIGN.match(short)}
    left_out = tuple(sorted(name for name in holder.keys() - taken.values() if isinstance(holder[name], Tensor)))
    tensors = {_rename(short): holder[name].detach().float() for short, name in taken.items()}
    if "register_tokens" in taken:
        _move_cls_position(tensors)
    kind = _kind(file, tensors, (*path, *prefix.split(".")), frozenset(named))
    return Weights(tensors, kind, left_out)


def _encoders(
    path: tuple[str, ...], content: Mapping[Any, Any]
) -> Iterator[tuple[tuple[str, ...], str, dict[str, Any]]]:
    """Yield (containers, prefix, state dict) of each patch embedding."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _encoders((*path, str(name)), value)
        elif isinstance(value, Tensor) and value.ndim == 4 and str(name).endswith(PATCHES):
            yield path, str(name).removesuffix(PATCHES), {str(key): one for key, one in content.items()}


def _choose(
    file: File, found: list[tuple[tuple[str, ...], str, dict[str, Any]]]
) -> tuple[tuple[str, ...], str, dict[str, Any]]:
    for better, worse in PREFERRED:
        words = [{*path, *prefix.split(".")} for path, prefix, _ in found]
        if any(better in one for one in words):
            found = [one for one, parts in zip(found, words, strict=True) if worse not in parts]
    if not found:
        names = [str(name) for name in file.content][:6]
        why = f"no {PATCHES}; it holds {', '.join(names)}, .." if names else "it holds nothing"
        remedy = "Known are the files of UNIP, MAE, DINO, iBOT, MoCo v3, DeiT and timm's plain ViTs."
        raise WeightsError("The file holds no plain ViT", where=file.path, why=why, remedy=remedy)
    if len(found) > 1:
        places = ", ".join(".".join((*path, prefix)).rstrip(".") or "top level" for path, prefix, _ in found)
        remedy = "Save the one wanted in a file of its own."
        raise WeightsError("The file holds more than one ViT", where=file.path, why=places, remedy=remedy)
    return found[0]


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _move_cls_position(tensors: dict[str, Tensor]) -> None:
    """Add the position of DINOv2's CLS to the token itself: its registers, which stand between, have no position."""
    table, token = tensors.get("pos_embed"), tensors.get("cls_token")
    if table is not None and token is not None and token.shape == table[:, :1].shape:
        tensors["cls_token"], tensors["pos_embed"] = token + table[:, :1], table[:, 1:]


def _kind(file: File, tensors: dict[str, Tensor], containers: tuple[str, ...], names: frozenset[str]) -> str:
    """Name the format by what only it has."""

    def has(start: str) -> bool:
        return any(name.startswith(start) for name in names)

    bare_cls = {"pos_embed", "cls_token"} <= tensors.keys() and side_of(tensors["pos_embed"].shape[1]) is not None
    signs = {
        OWN_RUN: containers[-3:-1] == ("backbone", "vit"),
        UNIP: "last_heads" in file.arguments or is_unip(tensors),
        "MoCo v3": "base_encoder" in containers,
        "CrossMAE": any("decoder_blocks" in name and "cross_attn" in name for name in names) or has("wfm."),
        "DINOv2": has("register_tokens"),
        "DeiT distilled": has("dist_token"),
        "DeiT III": bare_cls and "blocks.0.ls1.gamma" in tensors,
        "MAE": has("decoder") or has_sincos(tensors),
        "MAE, fine-tuned": has("fc_norm"),
        "iBOT": has("masked_embed") or (containers == ("state_dict", "") and not has("head")),
        "DINO": bool({"teacher", "student"} & set(containers)),
        "DeiT": "model" in containers and has("head"),
    }
    return next((kind for kind, sign in signs.items() if sign), "plain ViT (DINO, timm)")


def is_unip(tensors: Mapping[str, Tensor]) -> bool:
    """Tell a ViT of which UNIP's distillation has trained all but what follows the last block's queries and keys."""
    last, first = f"blocks.{depth(tensors) - 1}.", "blocks.0."
    zeros = [f"{last}{name}.bias" for name in ("attn.proj", "norm2", "mlp.fc1", "mlp.fc2")]
    names = (f"{last}attn.qkv.bias", f"{last}norm2.weight", f"{first}attn.proj.bias", *zeros)
    if last == first or any(name not in tensors for name in names) or not has_sincos(tensors):
        return False
    values = tensors[names[0]]
    untrained = all(not tensors[name].any() for name in zeros) and bool((tensors[names[1]] == 1).all())
    return untrained and not values[len(values) * 2 // 3 :].any() and bool(tensors[names[2]].any())


def has_sincos(tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether the position table is the fixed sine-cosine one of MAE and UNIP."""
    table = tensors.get("pos_embed")
    side = None if table is None or table.ndim != 3 else side_of(table.shape[1] - 1)
    if table is None or side is None or table.shape[2] % 4:
        return False
    return torch.allclose(table, sincos_pos_embed(table.shape[2], (side, side)), rtol=0.0, atol=1e-4)


def depth(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of blocks: the highest there is, plus one."""
    found = [re.match(r"blocks\.(\d+)\.", name) for name in tensors]
    return 1 + max((int(one[1]) for one in found if one), default=-1)


def side_of(count: int) -> int | None:
    """Return the side of a square of so many patches, None when they form none."""
    side = round(max(count, 0) ** 0.5)
    return side if side * side == count and side else None
