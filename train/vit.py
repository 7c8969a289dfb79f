"""The UNIP backbone: timm's ViT/16 with the attention heads of the distilled last block kept.

UNIP's pre-training gives the last block the teacher's head count. Fine-tuning must keep it: the weights have the same
shape either way, but re-split they compute another attention than the one that was distilled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from edgeunip.errors import UsageError

PATCH = 16


@dataclass(frozen=True)
class ViTSize:
    """Width, depth and heads of a backbone; ``last_heads`` are those of the last block (UNIP: the teacher's)."""

    dim: int
    depth: int
    heads: int
    last_heads: int


SIZES = {
    "tiny": ViTSize(dim=192, depth=12, heads=3, last_heads=16),
    "small": ViTSize(dim=384, depth=12, heads=6, last_heads=16),
    "base": ViTSize(dim=768, depth=12, heads=12, last_heads=16),
    "large": ViTSize(dim=1024, depth=24, heads=16, last_heads=16),
}


class Backbone(nn.Module):
    """A ViT/16 that gives the output of its last block as a map, without CLS and without a final norm.

    Args:
        size: width, depth, heads.
        grid: (rows, columns) of the position embedding, patches; other image sizes resample it.
        channels: image channels; 1 for thermal.
        drop_path: rate of the last block; rises linearly from 0 at the first.
    """

    def __init__(self, size: ViTSize, grid: tuple[int, int], *, channels: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        if size.dim % size.last_heads:
            raise UsageError(f"{size.last_heads} heads do not divide the width {size.dim}")
        self.grid = grid
        self.vit = VisionTransformer(
            img_size=(grid[0] * PATCH, grid[1] * PATCH),
            patch_size=PATCH,
            in_chans=channels,
            num_classes=0,
            global_pool="",
            embed_dim=size.dim,
            depth=size.depth,
            num_heads=size.heads,
            init_values=1.0,
            final_norm=False,
            drop_path_rate=drop_path,
        )
        set_last_heads(self.vit, size.last_heads)
        self.position.data = sincos_pos_embed(size.dim, grid)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, H, W] (normalised) to features [B, dim, H/16, W/16]."""
        patches = self.vit.patch_embed.proj(images)
        rows, columns = patches.shape[-2:]
        tokens = torch.cat([self.cls.expand(images.shape[0], -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = tokens + resize_pos_embed(self.position, self.grid, (rows, columns))
        tokens = self.vit.blocks(tokens)
        features: Tensor = tokens[:, 1:].transpose(1, 2).reshape(images.shape[0], -1, rows, columns)
        return features

    @property
    def cls(self) -> nn.Parameter:
        """The CLS token [1, 1, dim]."""
        assert self.vit.cls_token is not None
        return self.vit.cls_token

    @property
    def position(self) -> nn.Parameter:
        """The position table [1, 1 + rows * columns, dim]."""
        assert self.vit.pos_embed is not None
        return self.vit.pos_embed


def set_last_heads(vit: VisionTransformer, heads: int) -> None:
    """Split the last block's attention into ``heads`` heads."""
    attention: Any = vit.blocks[-1].attn
    attention.num_heads = heads
    attention.head_dim = attention.attn_dim // heads
    attention.scale = attention.head_dim**-0.5


def sincos_pos_embed(dim: int, grid: tuple[int, int], *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the fixed 2-D sine-cosine table [1, 1 + rows * columns, dim]; the CLS row is zero.

    The first half of the channels encodes the column, the second half the row; within each, [sin(p w), cos(p w)] with
    w_k = 10000^(-k / (dim / 4)) (UNIP, after MAE).
    """
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    rows, columns = (torch.arange(length, dtype=torch.float64) for length in grid)
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    angles = [position.reshape(-1, 1) * omega for position in (column, row)]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return torch.cat([torch.zeros(1, dim, dtype=torch.float64), table]).unsqueeze(0).to(dtype)


def resize_pos_embed(table: Tensor, old: tuple[int, int], new: tuple[int, int], *, overshoot: float = 0.0) -> Tensor:
    """Resample a position table [1, 1 + N, dim] from one grid (rows, columns) to another; bicubic, the CLS row kept.

    ``overshoot`` adds to the target size when the scale factor is formed (DINO's 0.1, which UNIP's probing backbone
    inherits); 0 maps the corners exactly.
    """
    if old == new:
        return table
    if overshoot == 0:
        # antialias=False is the reference's kernel; timm's own default uses another bicubic.
        resized: Tensor = resample_abs_pos_embed(table, list(new), list(old), antialias=False, align_corners=False)
        return resized
    grid = table[:, 1:].transpose(1, 2).reshape(1, -1, *old)
    factors = tuple((n + overshoot) / o for n, o in zip(new, old, strict=True))
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
