"""Linear probing: 1x1 convolutions on a frozen backbone, which tell what its features hold.

No pyramid, no norm, no dropout, logits at 1/16, as in UNIP's reference. One model can hold several probes: their losses
add up and share nothing, so each learns what it would learn alone, and the backbone runs once for all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeunip.errors import UsageError
from edgeunip.train.vit import Backbone

ALL = "all"
Probes = tuple[tuple[int, ...], ...]


def default_layers(depth: int) -> str:
    """Return the layers whose outputs the reference joins: 4, 6, 8, 12 of 12 and 8, 12, 16, 24 of 24."""
    found = dict.fromkeys(max(1, round(depth * share)) for share in (1 / 3, 1 / 2, 2 / 3, 1))
    return ",".join(map(str, found))


def parse_layers(text: str, depth: int) -> Probes:
    """Read ``4,6,8,12``, one probe on these blocks' outputs joined, or ``all``, one probe a block; counted from 1.

    Raises:
        UsageError: the text is none of these, or the backbone has no such block.
    """
    if text == ALL:
        return tuple((layer,) for layer in range(1, depth + 1))
    numbers = [int(word) if word.strip().isdecimal() else 0 for word in text.split(",")]
    if not all(1 <= number <= depth for number in numbers) or len(set(numbers)) < len(numbers):
        remedy = f"Give different numbers from 1 to {depth}, with commas between, or all."
        raise UsageError("No such layers", where=text, remedy=remedy)
    return (tuple(numbers),)


class LinearSegmentor(nn.Module):
    """Frozen backbone and linear probes.

    The probes start at zero: the problem is convex, and so none depends on how many others there are.

    Args:
        backbone: is frozen: always in eval mode, without gradients.
        classes: number of classes.
        probes: the layers each probe reads, counted from 1; the outputs of several are joined.
    """

    def __init__(self, backbone: Backbone, classes: int, probes: Probes) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        self.probes = probes
        dim = backbone.vit.embed_dim
        self.heads = nn.ModuleList(nn.Conv2d(len(layers) * dim, classes, 1) for layers in probes)
        for value in self.heads.parameters():
            nn.init.zeros_(value)

    def train(self, mode: bool = True) -> LinearSegmentor:
        """Switch the probes; the backbone stays in eval mode, so that no drop path blurs its features."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, H, W] (normalised) to logits [B, probes * classes, H/16, W/16], probe by probe."""
        return torch.cat(self._logits(images), dim=1)

    def training_logits(self, images: Tensor) -> list[tuple[Tensor, float]]:
        """Return the logits of each probe, [B, classes, H/16, W/16], with the weight of its loss."""
        return [(logits, 1.0) for logits in self._logits(images)]

    def _logits(self, images: Tensor) -> list[Tensor]:
        wanted = sorted({layer for layers in self.probes for layer in layers})
        with torch.no_grad():
            maps = dict(zip(wanted, self.backbone.maps(images, wanted), strict=True))
        joined = (torch.cat([maps[layer] for layer in layers], dim=1) for layers in self.probes)
        return [head(features) for head, features in zip(self.heads, joined, strict=True)]
