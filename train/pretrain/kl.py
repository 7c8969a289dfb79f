"""UNIP's loss: the divergence of the student's attention from the teacher's, without ever storing an attention map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHE_BYTES = 1 << 20  # of one logits tensor at a time on a CPU: what its second-level caches hold
GPU_BYTES = 1 << 28


def attention_kl(teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean over images, heads and query rows of KL(teacher || student); float32, scalar.

    L = mean of sum_j p_t(j) (log p_t(j) - log p_s(j)), p = softmax(q k^T) over the keys, head i against head i, CLS
    included (papers' code: UNIP ``forward_kd_loss``). The gradient of the logits is (p_s - p_t) / (B H N), so that it
    is formed in the forward pass, a few maps at a time: memory beyond inputs and gradients does not grow with B or H.
    The division waits for the backward pass, whose scale it meets there: half precision holds neither alone.

    Args:
        teacher: scaled queries and keys, [B, H, N, d_t] each; no gradient flows into them.
        student: the same of the student, [B, H, N, d_s].

    Raises:
        ValueError: the two differ in images, heads or tokens.
    """
    if teacher[0].shape[:3] != student[0].shape[:3]:
        shapes = [tuple(pair[0].shape[:3]) for pair in (teacher, student)]
        raise ValueError(f"teacher and student differ in [images, heads, tokens]: {shapes[0]} and {shapes[1]}")
    loss: Tensor = _AttentionKL.apply(*teacher, *student)
    return loss


class _AttentionKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_t: Tensor, key_t: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Add up the loss and form the gradients, some maps at a time."""
        shape, rows = query.shape, query.shape[:3].numel()
        maps = [value.reshape(-1, *value.shape[2:]) for value in (query_t, key_t, query, key)]
        wanted = ctx.needs_input_grad[2] or ctx.needs_input_grad[3]
        gradients = [torch.empty_like(value) for value in maps[2:]] if wanted else []
        limit = CACHE_BYTES if query.device.type == "cpu" else GPU_BYTES
        step = max(1, limit // (4 * shape[2] ** 2))
        total = query.new_zeros((), dtype=torch.float64 if query.device.type == "cpu" else torch.float32)
        for start in range(0, len(maps[0]), step):
            q_t, k_t, q, k = (value[start : start + step] for value in maps)
            target, guess = (q_t @ k_t.mT).float(), (q @ k.mT).float()
            share, slope = target.softmax(-1), guess.softmax(-1)
            total += (_log_sum(guess, slope) - _log_sum(target, share)).sum()
            total += torch.linalg.vecdot(share.flatten(), target.sub_(guess).flatten())
            if wanted:
                slope = slope.sub_(share).to(q.dtype)
                torch.bmm(slope, k, out=gradients[0][start : start + step])
                torch.bmm(slope.mT, q, out=gradients[1][start : start + step])
        ctx.rows = rows
        ctx.save_for_backward(*(gradient.reshape(shape) for gradient in gradients))
        return (total / rows).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass has formed."""
        scale = upstream / ctx.rows
        return None, None, *(gradient * scale for gradient in ctx.saved_tensors)


def _log_sum(logits: Tensor, shares: Tensor) -> Tensor:
    """Return the log of the sum of exp(logits) over the last axis, from the softmax: no second exponential."""
    return logits.amax(-1) - shares.amax(-1).log()
