"""The edge decoder: the last layer's map and a shallow detail path from the picture, joined at 1/8.

UPerNet at the backbone's width takes four fifths of the reference's operations, most of them at 1/4. Here no map
larger than 1/8 is computed at full width. What the ViT cannot see, since a patch is 16 pixels wide, comes from four
strided convolutions on the picture: they resolve small objects and, being convolutions, learn from few images what a
ViT from scratch needs many for. The whole decoder takes 0.77 GMACs at 480x640, 6 % of ViT-tiny's 13.1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeunip.train.heads import conv, resize

DETAIL = (16, 32, 64, 128)


class DetailPath(nn.Module):
    """Strided convolutions on the picture: features at 1/4, 1/8 and 1/16."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half, quarter, eighth, sixteenth = DETAIL
        self.to_quarter = nn.Sequential(conv(channels, half, 3, stride=2), conv(half, quarter, 3, stride=2))
        self.to_eighth = nn.Sequential(conv(quarter, eighth, 3, stride=2), Separable(eighth, eighth))
        self.to_sixteenth = nn.Sequential(
            conv(eighth, sixteenth, 3, stride=2), Separable(sixteenth, sixteenth), Separable(sixteenth, sixteenth)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map [B, channels, H, W] to [B, 32, H/4, W/4], [B, 64, H/8, W/8], [B, 128, H/16, W/16]."""
        quarter = self.to_quarter(images)
        eighth = self.to_eighth(quarter)
        return quarter, eighth, self.to_sixteenth(eighth)


class LightHead(nn.Module):
    """Fuses the last layer's map with the detail path.

    Args:
        dim: channels of the last layer's map.
        classes: number of classes.
        channels: image channels.
        width: of the maps at 1/16 and 1/8; the map at 1/4 has a quarter of it.
        dropout: rate of whole channels dropped before the classifier.
    """

    def __init__(self, dim: int, classes: int, *, channels: int = 1, width: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        _, quarter, eighth, sixteenth = DETAIL
        self.detail = DetailPath(channels)
        self.last_layer = conv(dim, width, 1)
        self.context = nn.Conv2d(width, width, 1)
        self.at_sixteenth = nn.Sequential(conv(width + sixteenth, width, 1), Separable(width, width))
        self.at_eighth = nn.Sequential(conv(width + eighth, width, 1), Separable(width, width))
        self.to_quarter = conv(width, width // 4, 1)
        self.at_quarter = Separable(width // 4 + quarter, 2 * quarter)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(2 * quarter, classes, 1)

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """Return logits [B, classes, H/4, W/4]; the last layer is [B, dim, H/16, W/16], images [B, channels, H, W]."""
        quarter, eighth, sixteenth = self.detail(images)
        last = self.last_layer(features)
        last = last + self.context(last.mean((2, 3), keepdim=True))
        coarse = self.at_sixteenth(torch.cat([last, sixteenth], dim=1))
        middle = self.at_eighth(torch.cat([resize(coarse, eighth), eighth], dim=1))
        fine = self.at_quarter(torch.cat([resize(self.to_quarter(middle), quarter), quarter], dim=1))
        logits: Tensor = self.classify(self.dropout(fine))
        return logits


class Separable(nn.Sequential):
    """Depthwise 3x3, then pointwise convolution, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(conv(inputs, inputs, 3, groups=inputs), conv(inputs, outputs, 1))
