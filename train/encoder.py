"""An encoder: timm's ViT with where it comes from, and the pieces of its forward pass that UNIP needs one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from edgeunip.errors import UsageError
from edgeunip.train.position import resize_pos_embed


@dataclass(frozen=True)
class Origin:
    """Where an encoder's weights come from; it stands in the provenance of all that is made from them.

    Attributes:
        name: as the user wrote it.
        kind: which of the known formats the weights were in, in words.
        file: the file that was read, None for weights that never were in one.
        sha256: of that file, hexadecimal.
        licence: of the weights, as their publisher states it; None where it is not stated.
        left_out: tensors of the file that are no part of the encoder (decoder, classifier, ..).
    """

    name: str
    kind: str
    file: str | None = None
    sha256: str | None = None
    licence: str | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Encoder:
    """A ViT that has all of its weights, in eval mode."""

    vit: VisionTransformer
    origin: Origin

    def __post_init__(self) -> None:
        require_plain(self.vit, self.origin.name)
        self.vit.eval()

    @property
    def heads(self) -> tuple[int, ...]:
        """Attention heads by block."""
        return tuple(block.attn.num_heads for block in blocks(self.vit))


def require_plain(vit: nn.Module, name: str) -> None:
    """Refuse what is no plain ViT: positions added to queries and keys, norms after the attention, another stem.

    Raises:
        UsageError: the model's attention is not softmax(q k^T) v over all tokens from one ``qkv`` layer.
    """
    ok = (
        isinstance(vit, VisionTransformer)
        and type(vit.patch_embed) is PatchEmbed
        and getattr(vit, "dist_token", None) is None
        and all(type(block) is Block and type(block.attn).__name__ == "Attention" for block in blocks(vit))
    )
    if not ok:
        remedy = "Name a plain ViT (vit_*, deit_*, deit3_*)."
        raise UsageError("The model is no plain ViT", where=name, why=type(vit).__name__, remedy=remedy)


def blocks(vit: nn.Module) -> list[Any]:
    """Return a ViT's blocks, first to last."""
    found: Any = vit.blocks
    return list(found)


def patch_size(vit: VisionTransformer) -> int:
    """Return the side of a patch, pixels."""
    projection: Any = vit.patch_embed.proj
    return int(projection.kernel_size[0])


def embed(vit: VisionTransformer, images: Tensor) -> Tensor:
    """Map images [B, channels, H, W] (normalised; H and W multiples of the patch) to the first block's input.

    Returns:
        Tokens [B, prefix + rows * columns, dim]: CLS and registers, then the patches row by row, positions added.
    """
    projection: Any = vit.patch_embed.proj
    patches = projection(images)
    grid = (int(patches.shape[-2]), int(patches.shape[-1]))
    tokens: Tensor = vit.patch_embed.norm(patches.flatten(2).transpose(1, 2))
    prefix = [token.expand(len(images), -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
    if vit.pos_embed is not None:
        inside = 0 if vit.no_embed_class else vit.num_prefix_tokens
        rows, columns = vit.patch_embed.grid_size
        table = resize_pos_embed(vit.pos_embed, (rows, columns), grid, prefix=inside)
        prefix = [torch.cat(prefix, dim=1) + table[:, :inside]] if inside else prefix
        tokens = tokens + table[:, inside:]
    result: Tensor = vit.norm_pre(torch.cat([*prefix, tokens], dim=1))
    return result


def query_key(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return a block's queries and keys, [B, heads, tokens, head width]; values are not computed.

    The queries carry the factor head width^-1/2: q k^T are the scaled logits, and half-precision products stay small.
    """
    attention = block.attn
    batch, count, _ = tokens.shape
    width = 2 * attention.num_heads * attention.head_dim
    bias = None if attention.qkv.bias is None else attention.qkv.bias[:width]
    both = F.linear(block.norm1(tokens), attention.qkv.weight[:width], bias)
    query, key = both.reshape(batch, count, 2, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
    return attention.q_norm(query) * attention.scale, attention.k_norm(key)


def set_heads(block: Any, heads: int) -> None:
    """Split a block's attention into another number of heads; the weights keep their shape.

    Raises:
        UsageError: the heads do not divide the width.
    """
    attention = block.attn
    width = attention.num_heads * attention.head_dim
    if heads < 1 or width % heads:
        raise UsageError(f"{heads} heads do not divide the width {width}")
    attention.num_heads = heads
    attention.head_dim = width // heads
    attention.scale = attention.head_dim**-0.5


@torch.no_grad()
def fold_to_gray(vit: VisionTransformer) -> None:
    """Turn a three-channel patch embedding into the one-channel one that gives the same for three equal channels.

    Exact when all channels are normalised alike, as UNIP does (infrared mean and standard deviation for each).
    """
    projection: Any = vit.patch_embed.proj
    if projection.in_channels == 1:
        return
    folded = nn.Conv2d(1, projection.out_channels, projection.kernel_size, projection.stride)
    folded.weight.copy_(with_channels(projection.weight, 1))
    folded.weight.requires_grad_(projection.weight.requires_grad)
    folded.bias = projection.bias
    vit.patch_embed.proj = folded


def with_channels(weight: Tensor, channels: int) -> Tensor:
    """Give a patch embedding [dim, have, side, side] another number of channels that does the same for gray input."""
    if weight.shape[1] == channels:
        return weight
    total = weight.double().sum(1, keepdim=True)
    return (total / channels).expand(-1, channels, -1, -1).to(weight.dtype)
