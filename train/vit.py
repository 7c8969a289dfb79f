"""The UNIP backbone: timm's ViT/16 with the attention heads of the distilled last block kept.

UNIP's pre-training gives the last block the teacher's head count. Fine-tuning must keep it: the weights have the same
shape either way, but re-split they compute another attention than the one that was distilled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from edgeunip.errors import UsageError
from edgeunip.train.encoder import blocks, embed, set_heads
from edgeunip.train.position import sincos_pos_embed
from edgeunip.train.tokens import Merge, as_map, merge

PATCH = 16


@dataclass(frozen=True)
class ViTSize:
    """Width, depth and heads of a backbone; ``last_heads`` are those of the last block (UNIP: the teacher's)."""

    dim: int
    depth: int
    heads: int
    last_heads: int


SIZES = {
    "micro": ViTSize(dim=192, depth=4, heads=3, last_heads=16),
    "tiny": ViTSize(dim=192, depth=12, heads=3, last_heads=16),
    "small": ViTSize(dim=384, depth=12, heads=6, last_heads=16),
    "base": ViTSize(dim=768, depth=12, heads=12, last_heads=16),
    "large": ViTSize(dim=1024, depth=24, heads=16, last_heads=16),
}


def make_vit(size: ViTSize, grid: tuple[int, int], *, channels: int, **options: Any) -> VisionTransformer:
    """Make timm's ViT/16 of a size without a classifier, its positions the sine-cosine table of (rows, columns)."""
    vit = VisionTransformer(
        img_size=(grid[0] * PATCH, grid[1] * PATCH),
        patch_size=PATCH,
        in_chans=channels,
        num_classes=0,
        global_pool="",
        embed_dim=size.dim,
        depth=size.depth,
        num_heads=size.heads,
        **options,
    )
    set_heads(blocks(vit)[-1], size.last_heads)
    assert vit.pos_embed is not None
    vit.pos_embed.data = sincos_pos_embed(size.dim, grid)
    return vit


class Backbone(nn.Module):
    """A ViT/16 that gives the output of its last block as a map, without CLS and without a final norm.

    Args:
        size: width, depth, heads.
        grid: (rows, columns) of the position embedding, patches; other image sizes resample it.
        channels: image channels; 1 for thermal.
        drop_path: rate of the last block; rises linearly from 0 at the first.
        merge: patches are merged 2x2 behind this block, counted from 1; 0 = never.

    Raises:
        UsageError: no block is behind the merge.
    """

    def __init__(
        self, size: ViTSize, grid: tuple[int, int], *, channels: int = 1, drop_path: float = 0.0, merge: int = 0
    ) -> None:
        super().__init__()
        require_behind(merge, size.depth)
        self.merge = merge
        self.vit = make_vit(size, grid, channels=channels, init_values=1.0, final_norm=False, drop_path_rate=drop_path)

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, H, W] (normalised) to features [B, dim, H/16, W/16]."""
        return self.maps(images, [len(blocks(self.vit))])[0]

    def maps(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Return the outputs [B, dim, H/16, W/16] of some blocks, counted from 1 and rising; none behind is run."""
        grid = int(images.shape[-2]) // PATCH, int(images.shape[-1]) // PATCH  # whole numbers to a tracer, too
        tokens, found = embed(self.vit, images), []
        merged: Merge | None = None
        for layer, block in enumerate(blocks(self.vit)[: layers[-1]], start=1):
            tokens = block(tokens)
            if layer in layers:
                found.append(as_map(tokens, grid) if merged is None else merged.spread(tokens))
            if layer == self.merge:
                merged = merge(tokens, grid)
                tokens = merged.coarse
        return found

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(blocks(self.vit))

    @property
    def channels(self) -> int:
        """Image channels."""
        projection: Any = self.vit.patch_embed.proj
        return int(projection.in_channels)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the position table, patches."""
        rows, columns = self.vit.patch_embed.grid_size
        return rows, columns

    @property
    def position(self) -> nn.Parameter:
        """The position table [1, 1 + rows * columns, dim]."""
        assert self.vit.pos_embed is not None
        return self.vit.pos_embed


def require_behind(merge: int, depth: int) -> None:
    """Refuse to merge behind the last block or none.

    Raises:
        UsageError: it is not 0 to depth - 1.
    """
    if not 0 <= merge < depth:
        raise UsageError(f"Nothing can be merged behind block {merge} of {depth}", remedy=f"Give 0 to {depth - 1}.")
