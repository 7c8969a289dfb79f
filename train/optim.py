"""AdamW, parameter groups with layer-wise learning-rate decay, and the poly schedule with warm-up."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

WARMUP_RATIO = 1e-6


def layer_id(name: str, depth: int) -> int:
    """Return the depth at which a parameter sits: 0 the embeddings, i + 1 block i, ``depth`` + 1 all behind."""
    if re.search(r"\b(cls_token|pos_embed|patch_embed|conv_stem|features\.bn1)\b", name):
        return 0
    if found := re.search(r"\bblocks\.(\d+)\.", name):
        return int(found[1]) + 1
    return depth + 1


def parameter_groups(model: nn.Module, depth: int, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters by depth and by weight decay.

    Each group carries ``lr_scale`` = layer_decay^(depth + 1 - layer id). Vectors (biases, norms, LayerScale) get no
    weight decay; the position and CLS tables do, as in UNIP's reference.
    """
    groups: dict[tuple[int, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = layer_id(name, depth)
        decay = 0.0 if parameter.ndim <= 1 else weight_decay
        scale = layer_decay ** (depth + 1 - layer)
        fresh: dict[str, Any] = {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale}
        group = groups.setdefault((layer, decay), fresh)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def adamw(groups: list[dict[str, Any]], *, precision: str, beta2: float = 0.999) -> torch.optim.AdamW:
    """Make AdamW, whose rate is set at every step.

    It is one kernel, but under fp16 several: Fabric clips no gradient that the kernel itself would unscale.
    """
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, beta2), fused=precision != "16-mixed")


def poly_lr(step: int, *, base: float, steps: int, warmup: int, power: float = 1.0) -> float:
    """Return the learning rate of a step (0-based): polynomial to 0, under a linear warm-up from 1e-6 of it.

    As mmcv 1.3's poly schedule: the warm-up scales the decayed rate of the same step.
    """
    rate: float = base * (1 - step / steps) ** power
    if step < warmup:
        rate *= 1 - (1 - step / warmup) * (1 - WARMUP_RATIO)
    return rate
