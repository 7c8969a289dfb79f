"""What is measured of attention: normalised mutual information, distance, entropy; and the spectrum of features.

The definitions are those of Park et al. (cl-vs-mim), which UNIP takes over: CLS and register tokens are dropped from
the attention, rows and columns, and the rows are renormalised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BUDGET = 1 << 24

_NMI_EPSILON = 1e-8
_DISTANCE_EPSILON = 1e-32
_FOURIER_EPSILON = 1e-6


@dataclass(frozen=True)
class Measures:
    """Measures of B images and H heads; every tensor is [B, H].

    Attributes:
        nmi: normalised mutual information of query and key, 0 (all queries attend alike) .. 1 (each to its own key).
        distance: mean distance between query and attended key, pixels.
        entropy: mean entropy of a query's attention, nats; at most ln N.
    """

    nmi: Tensor
    distance: Tensor
    entropy: Tensor


def measure(query: Tensor, key: Tensor, grid: tuple[int, int], *, patch: int, budget: int = BUDGET) -> Measures:
    """Measure a layer's attention without ever holding more than ``budget`` bytes of it.

    All three measures are means over queries, so the attention is computed for some matrices, or some rows of one
    matrix, at a time; what is computed from it makes it at most four times ``budget`` at once.

    Args:
        query: [B, H, T, d], scaled; T = prefix tokens + rows * columns of the grid.
        key: [B, H, T, d].
        grid: (rows, columns) of the patches.
        patch: side of a patch, pixels.
        budget: bytes of attention held at a time, float32; at least one row is.
    """
    batch, heads, tokens, width = query.shape
    patches = grid[0] * grid[1]
    queries, keys = query[:, :, tokens - patches :].reshape(-1, patches, width), key.reshape(-1, tokens, width)
    rows = min(patches, max(1, budget // (4 * tokens)))
    group = max(1, budget // (4 * tokens * patches))
    pairs = zip(torch.split(queries, group), torch.split(keys, group), strict=True)
    parts = [_measure(some, keys_of_some, grid, patch, rows) for some, keys_of_some in pairs]
    nmi, distance, entropy = (torch.cat(part).reshape(batch, heads) for part in zip(*parts, strict=True))
    return Measures(nmi, distance, entropy)


def _measure(query: Tensor, key: Tensor, grid: tuple[int, int], patch: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Measure matrices [G, N, d] x [G, T, d], ``rows`` queries at a time; each result is [G]."""
    groups, count, _ = query.shape
    marginal = torch.zeros(groups, count, dtype=torch.float64, device=key.device)
    entropy, distance = (torch.zeros(groups, dtype=torch.float64, device=key.device) for _ in range(2))
    for start in range(0, count, rows):
        table = distances(grid, patch, queries=slice(start, start + rows), device=key.device)
        attention = _attention(query[:, start : start + rows], key, count)
        distance += _row_distance(attention, table).sum(-1, dtype=torch.float64)
        shares = _renormalised(attention)
        del attention, table
        marginal += shares.sum(1)
        entropy += _entropy(shares).sum(-1, dtype=torch.float64)
        del shares
    return _nmi(entropy / count, marginal / count, count), distance / count, entropy / count


def _attention(query: Tensor, key: Tensor, patches: int) -> Tensor:
    """Attention [G, rows, N] of some queries to the patches; prefix tokens take their share and are dropped."""
    logits = query.float() @ key.float().transpose(1, 2)
    return logits.softmax(-1)[..., key.shape[1] - patches :]


def nmi(attention: Tensor, *, prefix: int = 1) -> Tensor:
    """Return the normalised mutual information of attention maps [..., T, T] with ``prefix`` tokens first; [...].

    I(Q; K) / sqrt(H(Q) H(K)) with p(q) = 1/N, in the entropy form: I = H(K) - mean over q of H(K | q).
    """
    shares = _renormalised(attention[..., prefix:, prefix:].float())
    return _nmi(_entropy(shares).mean(-1, dtype=torch.float64), shares.mean(-2).double(), shares.shape[-1])


def attention_distance(attention: Tensor, grid: tuple[int, int], *, patch: int, prefix: int = 1) -> Tensor:
    """Return the mean distance in pixels between query and attended key of maps [..., T, T]; [...]."""
    table = distances(grid, patch, device=attention.device)
    return _row_distance(attention[..., prefix:, prefix:].float(), table).mean(-1, dtype=torch.float64)


def row_entropy(attention: Tensor, *, prefix: int = 1) -> Tensor:
    """Return the mean entropy of a row in nats of maps [..., T, T]; [...]."""
    return _entropy(_renormalised(attention[..., prefix:, prefix:].float())).mean(-1, dtype=torch.float64)


def distances(
    grid: tuple[int, int], patch: int, *, queries: slice | None = None, device: torch.device | None = None
) -> Tensor:
    """Return the distances from some patches (all by default) to all, centre to centre, pixels, float32 [Q, N]."""
    rows, columns = (torch.arange(length, dtype=torch.float32, device=device) for length in grid)
    row, column = (axis.reshape(-1) for axis in torch.meshgrid(rows, columns, indexing="ij"))
    of = queries or slice(None)
    return patch * torch.hypot(row[of, None] - row, column[of, None] - column)


@dataclass(frozen=True)
class Even:
    """What attention that looks at all patches alike measures: its distance in pixels and its entropy in nats."""

    distance_px: float
    entropy: float


def even(grid: tuple[int, int], patch: int) -> Even:
    """Return the measures of even attention on a grid (rows, columns) of patches."""
    return Even(float(distances(grid, patch).mean()), math.log(grid[0] * grid[1]))


def frequencies(grid: tuple[int, int]) -> list[float]:
    """Return the frequencies along the diagonal of a grid's spectrum, cycles a patch: 0 up to at most 0.5."""
    side = min(grid)
    return [index / side for index in range(side - side // 2)]


def fourier_profile(features: Tensor, at: Sequence[float]) -> Tensor:
    """Return the log amplitude of features [B, rows, columns, C] along the spectrum's diagonal, relative to DC.

    The mean over images and channels of ln(|fft2| + 1e-6), read at the frequencies ``at`` (cycles a patch, the same
    along both axes; the nearest that the grid has). Below 0: less of a fine pattern than of a constant one.
    """
    amplitude = torch.fft.fft2(features.float(), dim=(1, 2)).abs()
    spectrum = (amplitude + _FOURIER_EPSILON).log().mean(dim=(0, 3), dtype=torch.float64)
    rows, columns = ([round(frequency * length) for frequency in at] for length in spectrum.shape)
    profile: Tensor = spectrum[rows, columns] - spectrum[0, 0]
    return profile


def _renormalised(attention: Tensor) -> Tensor:
    shares = attention + _NMI_EPSILON
    shares /= shares.sum(-1, keepdim=True)
    return shares


def _entropy(shares: Tensor) -> Tensor:
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy


def _nmi(entropy: Tensor, marginal: Tensor, count: int) -> Tensor:
    """NMI from H(K | Q) [...] and p(k) [..., N]. One patch, or one key for all queries, tells nothing: 0."""
    of_keys = torch.special.entr(marginal).sum(-1).clamp_min(0)
    scale = (math.log(count) * of_keys).sqrt()
    return torch.where(scale == 0, 0.0, (of_keys - entropy) / scale)  # NaN stays NaN, for the caller to refuse


def _row_distance(attention: Tensor, table: Tensor) -> Tensor:
    """Mean distance of each row's keys, pixels [..., rows]; a row that attends to no patch counts them all alike."""
    weighted = torch.einsum("...qk,qk->...q", attention, table) + _DISTANCE_EPSILON * table.sum(-1)
    return weighted / (attention.sum(-1) + _DISTANCE_EPSILON * table.shape[-1])
