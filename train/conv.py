"""The convolutional students: a small timm backbone and a decoder that fuses its maps at 1/32, 1/16, 1/8 and 1/4.

For two CPU cores a ViT/16 is the wrong shape: these take a tenth of ViT-tiny's operations at 480x640. They start from
random weights, and are meant to be taught: ``edgeunip distill``. ReLU throughout, no squeeze, no pooling but one mean:
what every quantiser and runtime knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from edgeunip.train.heads import conv, resize
from edgeunip.train.light import Separable
from edgeunip.train.norm import BatchNorm2d


@dataclass(frozen=True)
class ConvSize:
    """The timm backbone, and the decoder's widths at 1/16, 1/8 and 1/4."""

    backbone: str
    widths: tuple[int, int, int]


CONV_SIZES = {
    "edge-s": ConvSize("mobilenetv4_conv_small", (96, 64, 48)),
    "edge-xs": ConvSize("mobilenetv4_conv_small_050", (64, 48, 32)),
}


class ConvBackbone(nn.Module):
    """A timm backbone that gives its maps at 1/4, 1/8, 1/16 and 1/32.

    Args:
        name: of timm.
        channels: image channels; 1 for thermal.
        drop_path: rate of the last block; rises linearly from 0 at the first.

    Attributes:
        channels: image channels.
        depth: number of stages, by which learning rates can decay.
        dims: channels of the four maps.
    """

    def __init__(self, name: str, *, channels: int = 1, drop_path: float = 0.0) -> None:
        super().__init__()
        taken: dict[str, Any] = {"features_only": True, "out_indices": (1, 2, 3, 4), "pretrained": False}
        features: Any = timm.create_model(name, in_chans=channels, drop_path_rate=drop_path, **taken)
        _norms_of_all_ranks(features)
        self.features, self.channels, self.depth = features, channels, len(features.blocks)
        self.dims: tuple[int, ...] = tuple(features.feature_info.channels())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images [B, channels, H, W] (normalised) to maps [B, dims[i], ceil(H / s), ceil(W / s)], s = 4, .., 32."""
        return tuple(self.features(images))


class Join(nn.Module):
    """Brings a coarse map to the next finer one's width and size, and mixes the two."""

    def __init__(self, coarse: int, fine: int, outputs: int) -> None:
        super().__init__()
        self.reduce = conv(coarse, fine, 1)
        self.mix = Separable(2 * fine, outputs)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Map [B, coarse, h, w] and [B, fine, 2h, 2w] to [B, outputs, 2h, 2w]; an odd size is met by resampling."""
        mixed: Tensor = self.mix(torch.cat([resize(self.reduce(coarse), fine), fine], dim=1))
        return mixed


class ConvHead(nn.Module):
    """Fuses the backbone's maps from the coarsest to the finest, each as wide as it was before at most.

    Args:
        dims: channels of the maps at 1/4, 1/8, 1/16, 1/32.
        classes: number of classes.
        widths: of the fused maps at 1/16, 1/8, 1/4.
        dropout: rate of whole channels dropped before the classifier.
    """

    def __init__(
        self, dims: Sequence[int], classes: int, *, widths: tuple[int, int, int], dropout: float = 0.1
    ) -> None:
        super().__init__()
        quarter, eighth, sixteenth, last = dims
        self.last = conv(last, widths[0], 1)
        self.context = nn.Conv2d(widths[0], widths[0], 1)
        self.at_sixteenth = Join(widths[0], sixteenth, widths[0])
        self.at_eighth = Join(widths[0], eighth, widths[1])
        self.at_quarter = Join(widths[1], quarter, widths[2])
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(widths[2], classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return logits [B, classes, H/4, W/4] and the fused map at 1/16, [B, widths[0], H/16, W/16]."""
        quarter, eighth, sixteenth, last = maps
        coarse = self.last(last)
        coarse = coarse + self.context(coarse.mean((2, 3), keepdim=True))
        fused = self.at_sixteenth(coarse, sixteenth)
        fine = self.at_quarter(self.at_eighth(fused, eighth), quarter)
        return self.classify(self.dropout(fine)), fused


class ConvSegmentor(nn.Module):
    """Convolutional backbone and its decoder."""

    def __init__(self, backbone: ConvBackbone, head: ConvHead, *, map_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.map_dim = map_dim
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, H, W] (normalised; multiples of 16 pixels) to logits [B, classes, H/4, W/4]."""
        logits: Tensor = self.head(self.backbone(images))[0]
        return logits

    def training_logits(self, images: Tensor) -> list[tuple[Tensor, float]]:
        """Return the logits to be trained, each with the weight of its loss."""
        return self.taught(images)[0]

    def taught(self, images: Tensor) -> tuple[list[tuple[Tensor, float]], Tensor]:
        """Return the training logits, and the map at 1/16 that is held against a teacher's."""
        logits, fused = self.head(self.backbone(images))
        return [(logits, 1.0)], fused


def build(size: ConvSize, classes: int, *, channels: int, drop_path: float, dropout: float) -> ConvSegmentor:
    """Make the untrained model of a size."""
    backbone = ConvBackbone(size.backbone, channels=channels, drop_path=drop_path)
    head = ConvHead(backbone.dims, classes, widths=size.widths, dropout=dropout)
    return ConvSegmentor(backbone, head, map_dim=size.widths[0])


def _norms_of_all_ranks(module: nn.Module) -> None:
    """Put the batch norm that spans all ranks into timm's place, its activation behind it."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = BatchNorm2d(child.num_features, eps=child.eps, momentum=child.momentum)
            setattr(module, name, nn.Sequential(norm, getattr(child, "act", nn.Identity())))
        else:
            _norms_of_all_ranks(child)
