"""Position tables of a ViT: the fixed sine-cosine one, and the resampling of any to another grid."""

from __future__ import annotations

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn import functional as F


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


def resize_pos_embed(
    table: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int = 1, overshoot: float = 0.0
) -> Tensor:
    """Resample a position table [1, prefix + N, dim] from one grid (rows, columns) to another; bicubic.

    Args:
        table: the table.
        old: its grid.
        new: the grid wanted.
        prefix: rows before the patches' (CLS, registers), which are kept.
        overshoot: added to the target size when the scale factor is formed (DINO's 0.1, which UNIP's probing backbone
            inherits); 0 maps the corners exactly.
    """
    if old == new:
        return table
    if overshoot == 0:
        # antialias=False is the reference's kernel; timm's own default uses another bicubic.
        resized: Tensor = resample_abs_pos_embed(
            table, list(new), list(old), num_prefix_tokens=prefix, antialias=False, align_corners=False
        )
        return resized
    grid = table[:, prefix:].transpose(1, 2).reshape(1, -1, *old)
    factors = tuple((n + overshoot) / o for n, o in zip(new, old, strict=True))
    grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :prefix], grid.flatten(2).transpose(1, 2)], dim=1)
