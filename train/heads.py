"""LL-FPN and UPerNet as UNIP's reference trains them (mmsegmentation 0.11): the yardstick decoder."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeunip.train.norm import BatchNorm2d

POOLS = (1, 2, 3, 6)


class LastLayerPyramid(nn.Module):
    """LL-FPN: four levels from the one map of the last block (UNIP, section 3.3 of the paper's recipe).

    1/4 by two transposed convolutions, 1/8 by one, 1/16 as it is, 1/32 by max-pooling.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_quarter = nn.Sequential(
            nn.ConvTranspose2d(dim, dim, 2, stride=2),
            BatchNorm2d(dim),
            nn.GELU(),
            nn.ConvTranspose2d(dim, dim, 2, stride=2),
        )
        self.to_eighth = nn.ConvTranspose2d(dim, dim, 2, stride=2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map [B, dim, h, w] to [B, dim, 4h, 4w], [B, dim, 2h, 2w], [B, dim, h, w], [B, dim, h/2, w/2]."""
        return self.to_quarter(features), self.to_eighth(features), features, F.max_pool2d(features, 2)


class UPerHead(nn.Module):
    """UPerNet: pyramid pooling on the coarsest level, top-down sum, all levels fused at 1/4.

    Args:
        dim: channels of each of the four levels.
        channels: width of the decoder; the reference takes ``dim``.
        classes: number of classes.
        dropout: rate of whole channels dropped before the classifier.
    """

    def __init__(self, dim: int, channels: int, classes: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.pools = nn.ModuleList(conv(dim, channels, 1) for _ in POOLS)
        self.bottleneck = conv(dim + len(POOLS) * channels, channels, 3)
        self.laterals = nn.ModuleList(conv(dim, channels, 1) for _ in range(3))
        self.smooths = nn.ModuleList(conv(channels, channels, 3) for _ in range(3))
        self.fuse = conv(4 * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, levels: tuple[Tensor, ...]) -> Tensor:
        """Map the levels at 1/4, 1/8, 1/16, 1/32 to logits [B, classes, H/4, W/4]."""
        maps = [lateral(level) for lateral, level in zip(self.laterals, levels, strict=False)]
        maps.append(self._pool(levels[-1]))
        for below in range(len(maps) - 1, 0, -1):
            maps[below - 1] = maps[below - 1] + resize(maps[below], maps[below - 1])
        smoothed = [smooth(level) for smooth, level in zip(self.smooths, maps, strict=False)] + [maps[-1]]
        fused = self.fuse(torch.cat([resize(level, smoothed[0]) for level in smoothed], dim=1))
        logits: Tensor = self.classify(self.dropout(fused))
        return logits

    def _pool(self, level: Tensor) -> Tensor:
        pooled = [
            resize(reduce(adaptive_pool(level, size)), level) for reduce, size in zip(self.pools, POOLS, strict=True)
        ]
        context: Tensor = self.bottleneck(torch.cat([level, *pooled], dim=1))
        return context


class AuxiliaryHead(nn.Module):
    """A small classifier on the 1/16 level whose loss speeds up training; not part of the exported model."""

    def __init__(self, dim: int, channels: int, classes: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = conv(dim, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, level: Tensor) -> Tensor:
        """Map [B, dim, h, w] to logits [B, classes, h, w]."""
        logits: Tensor = self.classify(self.dropout(self.conv(level)))
        return logits


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def adaptive_pool(level: Tensor, size: int) -> Tensor:
    """Average a map [B, C, h, w] over ``size`` x ``size`` windows as ``F.adaptive_avg_pool2d`` does, by two products.

    Written with constant matrices since windows that do not divide the map have no form in ONNX.
    """
    # A tracer hands out sizes as tensors: as numbers they make the matrices constants.
    rows, columns = (_windows(int(side), size).to(level) for side in level.shape[-2:])
    pooled: Tensor = rows @ level @ columns.T
    return pooled


@lru_cache(maxsize=64)
def _windows(side: int, size: int) -> Tensor:
    """Return the matrix [size, side] whose row i averages floor(i side / size) to ceil((i + 1) side / size)."""
    matrix = torch.zeros(size, side, dtype=torch.float64)
    for row in range(size):
        start, end = row * side // size, -(-(row + 1) * side // size)
        matrix[row, start:end] = 1 / (end - start)
    return matrix


def resize(features: Tensor, like: Tensor) -> Tensor:
    """Resample a map to the spatial size of another, bilinear."""
    return F.interpolate(features, size=like.shape[-2:], mode="bilinear", align_corners=False)
