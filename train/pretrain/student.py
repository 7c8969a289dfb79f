"""The ViT that is pre-trained, as UNIP and MAE start it, and its forward pass with cheap stochastic depth."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from edgeunip.train.vit import PATCH, ViTSize, make_vit

GRAY = 3
"""Equal channels of the published models' input, which the one channel here stands for."""


def new_vit(size: ViTSize, grid: tuple[int, int], *, channels: int = 1) -> VisionTransformer:
    """Make the ViT/16 of the pre-training recipes, untrained: fixed sine-cosine positions, no LayerScale, final norm.

    Linear layers start Xavier-uniform, biases at zero, CLS at N(0, 0.02), and the patch embedding as the sum over three
    channels of the published initialisation: what the published model is for gray input.
    """
    vit = make_vit(size, grid, channels=channels, weight_init="skip")
    initialise(vit)
    assert vit.pos_embed is not None and vit.cls_token is not None
    vit.pos_embed.requires_grad_(False)
    nn.init.normal_(vit.cls_token, std=0.02)
    projection: Any = vit.patch_embed.proj
    start = torch.empty(size.dim, GRAY, PATCH, PATCH)
    nn.init.xavier_uniform_(start.view(size.dim, -1))
    projection.weight.data = start if channels == GRAY else start.sum(1, keepdim=True)
    nn.init.zeros_(projection.bias)
    return vit


def initialise(module: nn.Module) -> None:
    """Start every linear layer Xavier-uniform with zero bias; norms are as torch starts them."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def run_blocks(chain: list[Any], tokens: Tensor, *, drop_path: float = 0.0) -> Tensor:
    """Pass tokens [B, N, dim] through ViT blocks; in training each branch of each image is dropped with ``drop_path``.

    A dropped branch is not computed at all. The draw is on the CPU, so that a GPU is never waited for.
    """
    for block in chain:
        tokens = _residual(tokens, lambda x, b=block: b.ls1(b.attn(b.norm1(x))), drop_path)
        tokens = _residual(tokens, lambda x, b=block: b.ls2(b.mlp(b.norm2(x))), drop_path)
    return tokens


def _residual(tokens: Tensor, branch: Any, drop_path: float) -> Tensor:
    if drop_path == 0.0:
        added: Tensor = tokens + branch(tokens)
        return added
    kept = torch.nonzero(torch.rand(len(tokens)) >= drop_path).flatten().to(tokens.device, non_blocking=True)
    if len(kept) == 0:
        return tokens
    return tokens.index_add(0, kept, branch(tokens[kept]).to(tokens.dtype), alpha=1 / (1 - drop_path))
