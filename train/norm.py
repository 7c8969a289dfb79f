"""Batch norm whose statistics span all ranks, on GPUs and on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class BatchNorm2d(nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d``, which normalises over the global batch when several ranks train.

    torch's own SyncBatchNorm refuses CPU tensors, so a run on two CPU ranks could not equal a run on one.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [B, C, H, W] per channel."""
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return super().forward(input)
        if distributed.get_world_size() == 1:
            return super().forward(input)
        return self._across_ranks(input.float()).to(input.dtype)

    def _across_ranks(self, input: Tensor) -> Tensor:
        channels = input.shape[1]
        sums = [power.sum((0, 2, 3), dtype=torch.float64) for power in (input, input.square())]
        count = sums[0].new_tensor([input.numel() / channels])
        reduced: Tensor = _SumOfRanks.apply(torch.cat([*sums, count]))
        total, squares, count = torch.split(reduced, [channels, channels, 1])
        mean = total / count
        # In double precision: the difference of two large numbers would be noise in single.
        variance = (squares / count - mean.square()).clamp_min(0).float()
        mean = mean.float()
        self._track(mean.detach(), variance.detach(), count.detach().float())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        normalised: Tensor = input * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return normalised

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = self.momentum or 0.0
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), momentum)


class _SumOfRanks(torch.autograd.Function):
    """The sum of a tensor over all ranks, through which gradients flow back to all ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
