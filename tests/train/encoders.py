"""Small random encoders with every weight away from its default, so that a forgotten one shows."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from training import MICRO

from edgeunip.train.encoder import Encoder, Origin, blocks, embed, query_key, set_heads

LICENCE = "CC-BY-NC-4.0"


def encoder(*, grid: tuple[int, int] = (4, 5), channels: int = 3, last_heads: int = 4, **options: Any) -> Encoder:
    """An encoder of the size MICRO."""
    values = {
        "embed_dim": MICRO.dim,
        "depth": MICRO.depth,
        "num_heads": MICRO.heads,
        "patch_size": 16,
        "num_classes": 0,
    }
    values |= {"img_size": (16 * grid[0], 16 * grid[1]), "in_chans": channels, **options}
    vit = VisionTransformer(**values)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in vit.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.3 if value.ndim > 1 else 0.1) + (value == 1))
    set_heads(blocks(vit)[-1], last_heads)
    return Encoder(vit, Origin("micro", "made up", "/somewhere/micro.pth", "0" * 64, LICENCE, ("decoder",)))


def last_attention(vit: Any, images: Tensor) -> Tensor:
    """The attention [B, heads, tokens, tokens] of the last block."""
    *before, last = blocks(vit)
    tokens = embed(vit, images)
    for block in before:
        tokens = block(tokens)
    query, key = query_key(last, tokens)
    return (query @ key.transpose(-2, -1)).softmax(-1)
