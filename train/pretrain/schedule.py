"""Schedules of pre-training: learning rate over epochs, momentum of the averaged weights, and the parameter groups."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from edgeunip.train.pretrain.student import GRAY


def cosine_lr(epoch: float, *, base: float, warmup: float, epochs: float) -> float:
    """Return the learning rate at a fractional epoch: linear from 0 over the warm-up, then half a cosine to 0 (MAE)."""
    if epoch < warmup:
        return base * epoch / warmup
    return base * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def ema_momentum(step: int, steps: int, start: float) -> float:
    """Return the decay of the averaged weights at a step (0-based): half a cosine from ``start`` to 1 (UNIP's code)."""
    return 1 + 0.5 * (start - 1) * (1 + math.cos(math.pi * step / steps))


def parameter_groups(model: nn.Module, *, weight_decay: float) -> list[dict[str, Any]]:
    """Group the trainable parameters; vectors (biases, norms) get no weight decay, CLS and mask tokens do.

    The one-channel patch embedding stands for three equal channels. Trained as three, each would get the same gradient
    and so the same AdamW step, and their sum three of it: it moves at three times the rate, and decays as the others.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = float(GRAY) if name.endswith("patch_embed.proj.weight") and parameter.shape[1] == 1 else 1.0
        decay = 0.0 if parameter.ndim <= 1 else weight_decay / scale
        fresh: dict[str, Any] = {"params": [], "names": [], "weight_decay": decay, "lr_scale": scale}
        group = groups.setdefault((decay, scale), fresh)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
