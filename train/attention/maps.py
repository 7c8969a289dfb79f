"""Where single queries look: attention of a few patches of one picture, layer by layer and head by head."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeunip.train.attention.measures import BUDGET
from edgeunip.train.attention.pictures import Preparation, as_tensor
from edgeunip.train.augment import Picture
from edgeunip.train.encoder import Encoder, blocks, embed, query_key

Place = tuple[int, int]


@dataclass(frozen=True)
class LayerMaps:
    """A layer's attention over one picture; each map sums to 1.

    Attributes:
        queries: [Q, H, rows, columns], for each query and head where it looks.
        everyone: [rows, columns], the mean over all queries and heads.
    """

    queries: NDArray[np.float32]
    everyone: NDArray[np.float32]


def places(picture: Picture, patch: int) -> dict[str, Place]:
    """Return the patches (row, column) asked about: the brightest, the darkest and the middle one."""
    gray = np.atleast_3d(picture).mean(axis=2)
    rows, columns = gray.shape[0] // patch, gray.shape[1] // patch
    means = gray.reshape(rows, patch, columns, patch).mean(axis=(1, 3))
    brightest, darkest = (divmod(int(index), columns) for index in (means.argmax(), means.argmin()))
    return {"brightest patch": brightest, "darkest patch": darkest, "middle": (rows // 2, columns // 2)}


@torch.no_grad()
def attention_maps(
    encoder: Encoder, picture: Picture, how: Preparation, queries: Collection[Place], layers: Collection[int]
) -> dict[int, LayerMaps]:
    """Return the attention maps of some layers (counted from 1) for a picture [H, W] or [H, W, 3]."""
    grid = picture.shape[0] // how.patch, picture.shape[1] // how.patch
    images = as_tensor([picture], how).to(next(encoder.vit.parameters()).device)
    tokens = embed(encoder.vit, images)
    found = {}
    for layer, block in enumerate(blocks(encoder.vit)[: max(layers)], 1):
        if layer in layers:
            query, key = query_key(block, tokens)
            found[layer] = _maps(query[0], key[0], grid, [row * grid[1] + column for row, column in queries])
        tokens = block(tokens)
    return found


def _maps(query: Tensor, key: Tensor, grid: tuple[int, int], asked: list[int]) -> LayerMaps:
    heads, tokens, _ = query.shape
    prefix = tokens - grid[0] * grid[1]
    query = query[:, prefix:]
    marginal = torch.zeros(heads, grid[0] * grid[1], device=query.device)
    for some in torch.split(query, max(1, BUDGET // (4 * heads * tokens)), dim=1):
        marginal += _attention(some, key, prefix).sum(1)
    maps = _attention(query[:, asked], key, prefix).transpose(0, 1).reshape(len(asked), heads, *grid)
    everyone = (marginal.mean(0) / query.shape[1]).reshape(grid)
    return LayerMaps(maps.cpu().numpy(), everyone.cpu().numpy())


def _attention(query: Tensor, key: Tensor, prefix: int) -> Tensor:
    attention = (query.float() @ key.float().transpose(1, 2)).softmax(-1)[..., prefix:]
    return attention / attention.sum(-1, keepdim=True).clamp_min(1e-32)
