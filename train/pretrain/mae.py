"""Masked auto-encoding (MAE, He et al. 2022): the baseline UNIP is measured against, and a way to make a teacher."""

from __future__ import annotations

import torch
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from edgeunip.train.encoder import embed
from edgeunip.train.position import sincos_pos_embed
from edgeunip.train.pretrain.student import initialise, run_blocks
from edgeunip.train.vit import PATCH, ViTSize


class MaskedAutoencoder(nn.Module):
    """An encoder sees a quarter of the patches, a small decoder paints the others.

    Args:
        encoder: the ViT that is pre-trained (fixed positions, CLS).
        decoder: width, depth and heads of the decoder.
        grid: (rows, columns) of the training images, patches.
        mask: share of the patches that is hidden.
        normalise: whether each patch's target has zero mean and unit variance.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        decoder: ViTSize,
        grid: tuple[int, int],
        *,
        mask: float = 0.75,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.mask, self.normalise = encoder, mask, normalise
        self.decoder_embed = nn.Linear(encoder.embed_dim, decoder.dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, decoder.dim) * 0.02)
        self.decoder_position = nn.Buffer(sincos_pos_embed(decoder.dim, grid), persistent=False)
        self.decoder_blocks = nn.ModuleList(
            Block(decoder.dim, decoder.heads, qkv_bias=True, norm_layer=LayerNorm) for _ in range(decoder.depth)
        )
        self.decoder_norm = LayerNorm(decoder.dim)
        self.predict = nn.Linear(decoder.dim, PATCH**2)
        for part in (self.decoder_embed, self.decoder_blocks, self.predict):
            initialise(part)

    @property
    def trained(self) -> nn.Module:
        """What a checkpoint holds."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of normalised images [B, 1, H, W]: the squared error over the hidden patches."""
        count = images.shape[-2] * images.shape[-1] // PATCH**2
        order = torch.rand(len(images), count).argsort(dim=1).to(images.device, non_blocking=True)
        return self.loss(images, order)

    def loss(self, images: Tensor, order: Tensor) -> Tensor:
        """Return the loss with the patches in a given order [B, N]: the first quarter is seen, the rest hidden."""
        seen = order[:, : int(order.shape[1] * (1 - self.mask))]
        painted = self._decode(self._encode(images, seen), order)
        hidden = torch.ones_like(order, dtype=painted.dtype).scatter(1, seen, 0.0)
        return reconstruction_loss(painted, patches(images), hidden, normalise=self.normalise)

    def _encode(self, images: Tensor, seen: Tensor) -> Tensor:
        """Return the encoded CLS and seen patches, [B, 1 + seen, dim]."""
        tokens = embed(self.encoder, images)
        chosen = tokens[:, 1:].gather(1, seen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        tokens = run_blocks(list(self.encoder.blocks), torch.cat([tokens[:, :1], chosen], dim=1))
        encoded: Tensor = self.encoder.norm(tokens)
        return encoded

    def _decode(self, encoded: Tensor, order: Tensor) -> Tensor:
        """Put mask tokens where patches are hidden and paint all of them, [B, N, 256]."""
        tokens = self.decoder_embed(encoded)
        batch, count = order.shape
        masks = self.mask_token.expand(batch, count - tokens.shape[1] + 1, -1).to(tokens.dtype)
        place = order.argsort(dim=1).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
        full = torch.cat([tokens[:, 1:], masks], dim=1).gather(1, place)
        full = torch.cat([tokens[:, :1], full], dim=1) + self.decoder_position
        painted: Tensor = self.predict(self.decoder_norm(run_blocks(list(self.decoder_blocks), full)))
        return painted[:, 1:]


def patches(images: Tensor) -> Tensor:
    """Cut images [B, C, H, W] into patches [B, N, 256 * C], row by row, channel fastest."""
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, PATCH**2 * channels)


def reconstruction_loss(painted: Tensor, target: Tensor, hidden: Tensor, *, normalise: bool) -> Tensor:
    """Return the mean squared error over the hidden patches (MAE; variance unbiased, + 1e-6).

    Args:
        painted, target: [B, N, values].
        hidden: 1 where a patch was hidden, [B, N].
        normalise: bring each target patch to zero mean and unit variance first.
    """
    painted, target = painted.float(), target.float()
    if normalise:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    error = (painted - target).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()
