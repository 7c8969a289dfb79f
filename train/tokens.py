"""Cheaper tokens: behind some block patches are merged 2x2, and what the rest of the blocks adds is spread back.

The blocks behind the merge see a quarter of the patches, so their linear layers cost a quarter and their attention a
sixteenth. Nothing is learnt here, so the weights of a backbone that merges are those of one that does not. The map
from before the merge stays in the sum: the detail that merging averages away reaches the decoder by this way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int]


@dataclass(frozen=True)
class Merge:
    """Tokens at the place where they are merged.

    Attributes:
        fine: tokens [B, 1 + rows * columns, dim], CLS first, the patches row by row.
        grid: (rows, columns) of the patches.
        coarse: tokens [B, 1 + ceil(rows / 2) * ceil(columns / 2), dim]: CLS as it is, patches averaged 2x2.
    """

    fine: Tensor
    grid: Grid
    coarse: Tensor

    @property
    def coarse_grid(self) -> Grid:
        """(rows, columns) of the merged patches."""
        return -(-self.grid[0] // 2), -(-self.grid[1] // 2)

    def spread(self, tokens: Tensor) -> Tensor:
        """Return the map [B, dim, rows, columns] of what blocks made of the merged tokens.

        It is the map from before the merge plus, enlarged by two (bilinear), what the blocks added to the merged ones.
        """
        added = as_map(tokens - self.coarse, self.coarse_grid)
        # An odd side has been evened out by its last line: the enlarged map is that line longer.
        enlarged = F.interpolate(added, scale_factor=2.0, mode="bilinear", align_corners=False)
        return as_map(self.fine, self.grid) + enlarged[..., : self.grid[0], : self.grid[1]]


def merge(tokens: Tensor, grid: Grid) -> Merge:
    """Average the patches of tokens [B, 1 + rows * columns, dim] 2x2; at an odd side the last ones are alone."""
    patches = as_map(tokens, grid)
    # Lines are doubled rather than pooled with ceil_mode, which runtimes disagree about.
    if grid[0] % 2:
        patches = torch.cat([patches, patches[:, :, -1:]], dim=2)
    if grid[1] % 2:
        patches = torch.cat([patches, patches[:, :, :, -1:]], dim=3)
    merged = F.avg_pool2d(patches, 2).flatten(2).transpose(1, 2)
    return Merge(tokens, grid, torch.cat([tokens[:, :1], merged], dim=1))


def as_map(tokens: Tensor, grid: Grid) -> Tensor:
    """Lay tokens [B, 1 + rows * columns, dim] out as a map [B, dim, rows, columns], without CLS."""
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, *grid)
