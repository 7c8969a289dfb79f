"""The whole model, and the task that turns images and labels into losses."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from edgeunip.train.conv import ConvSegmentor
from edgeunip.train.heads import AuxiliaryHead, LastLayerPyramid, UPerHead
from edgeunip.train.light import LightHead
from edgeunip.train.linear import LinearSegmentor, parse_layers
from edgeunip.train.recipe import HeadName
from edgeunip.train.vit import Backbone


class LightSegmentor(nn.Module):
    """Backbone and light decoder: the edge default."""

    def __init__(self, backbone: Backbone, head: LightHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.map_dim = backbone.vit.embed_dim
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, H, W] (normalised; multiples of 16 pixels) to logits [B, classes, H/4, W/4]."""
        logits: Tensor = self.head(self.backbone(images), images)
        return logits

    def training_logits(self, images: Tensor) -> list[tuple[Tensor, float]]:
        """Return the logits to be trained, each with the weight of its loss."""
        return self.taught(images)[0]

    def taught(self, images: Tensor) -> tuple[list[tuple[Tensor, float]], Tensor]:
        """Return the training logits, and the last layer's map at 1/16, which is held against a teacher's."""
        features = self.backbone(images)
        return [(self.head(features, images), 1.0)], features


class UPerSegmentor(nn.Module):
    """Backbone, LL-FPN, UPerNet and, in training, the auxiliary head: UNIP's reference."""

    def __init__(self, backbone: Backbone, pyramid: LastLayerPyramid, head: UPerHead, auxiliary: AuxiliaryHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.map_dim = backbone.vit.embed_dim
        self.pyramid = pyramid
        self.head = head
        self.auxiliary = auxiliary

    def forward(self, images: Tensor) -> Tensor:
        """Map images [B, channels, H, W] (normalised; multiples of 16 pixels) to logits [B, classes, H/4, W/4]."""
        logits: Tensor = self.head(self.pyramid(self.backbone(images)))
        return logits

    def training_logits(self, images: Tensor) -> list[tuple[Tensor, float]]:
        """Return the logits to be trained, each with the weight of its loss (auxiliary: 0.4)."""
        return self.taught(images)[0]

    def taught(self, images: Tensor) -> tuple[list[tuple[Tensor, float]], Tensor]:
        """Return the training logits, and the last layer's map at 1/16, which is held against a teacher's."""
        features = self.backbone(images)
        levels = self.pyramid(features)
        return [(self.head(levels), 1.0), (self.auxiliary(levels[2]), 0.4)], features


Teachable = LightSegmentor | UPerSegmentor | ConvSegmentor
"""A model that can teach and be taught: it gives logits, and a map at 1/16 of ``map_dim`` channels."""
Segmentor = Teachable | LinearSegmentor


def build(backbone: Backbone, head: HeadName, classes: int, *, dropout: float = 0.1, layers: str = "all") -> Segmentor:
    """Put a decoder for ``classes`` classes on a backbone; ``layers`` are those the linear head reads."""
    dim = backbone.vit.embed_dim
    if head == "linear":
        return LinearSegmentor(backbone, classes, parse_layers(layers, len(backbone.vit.blocks)))
    if head == "light":
        return LightSegmentor(backbone, LightHead(dim, classes, channels=backbone.channels, dropout=dropout))
    return UPerSegmentor(
        backbone,
        LastLayerPyramid(dim),
        UPerHead(dim, dim, classes, dropout=dropout),
        AuxiliaryHead(dim, 256, classes, dropout=dropout),
    )


class SegmentationTask(nn.Module):
    """Images and labels to the loss that is minimised.

    Args:
        model: what is trained.
        class_weights: [classes], the weight of each class's pixels in the cross-entropy.
        ignore: label value left out.
    """

    class_weights: Tensor

    def __init__(self, model: Segmentor, class_weights: Tensor, ignore: int) -> None:
        super().__init__()
        self.model = model
        self.ignore = ignore
        self.register_buffer("class_weights", class_weights, persistent=False)

    @property
    def trained(self) -> nn.Module:
        """What training changes, and a checkpoint holds."""
        return self.model

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of the cross-entropies; images [B, channels, H, W], labels [B, H, W] int64."""
        terms = [
            weight * cross_entropy(logits, labels, self.class_weights, self.ignore)
            for logits, weight in self.model.training_logits(images)
        ]
        return torch.stack(terms).sum()


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor, ignore: int) -> Tensor:
    """Cross-entropy of logits [B, C, h, w], enlarged to the labels [B, H, W], averaged over the valid pixels' weights.

    With several ranks the average is over the global batch: each rank returns its share times the number of ranks,
    so that the mean gradient equals that of one rank with the whole batch. (mmsegmentation 0.11, which UNIP used,
    averages over all pixels, ignored ones included.)
    """
    logits = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    loss = F.cross_entropy(logits, labels, class_weights, ignore_index=ignore, reduction="sum")
    valid = labels != ignore
    return share_of_mean(loss, class_weights[labels.where(valid, 0)].mul(valid).sum())


def share_of_mean(loss: Tensor, weight: Tensor) -> Tensor:
    """Divide this rank's sum of losses by the mean over the ranks of their pixels' weights, both scalars."""
    ranks = 1
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(weight)
        ranks = distributed.get_world_size()
    return loss * ranks / weight.clamp_min(1e-6)
