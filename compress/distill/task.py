"""Batches with the teacher's outputs to the loss of a lesson."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgeunip.compress.distill.lesson import Lesson
from edgeunip.compress.distill.loss import logits_divergence, map_error, pixel_weights
from edgeunip.train.encoder import blocks, query_key
from edgeunip.train.pretrain.kl import attention_kl
from edgeunip.train.pretrain.unip import Teacher as AttentionTeacher
from edgeunip.train.segmentor import SegmentationTask, Teachable, cross_entropy
from edgeunip.train.vit import Backbone


class TaughtTask(SegmentationTask):
    """The weighted sum of a lesson's terms.

    Args:
        model: the student.
        class_weights: [classes], of the pixels in cross-entropy and divergence alike.
        ignore: label value left out.
        lesson: the weights of the terms.
        channels: mean and standard deviation of the channels of the teacher's map, [dim] each; None without that term.
        attention: the teacher's last attention; None without that term.
    """

    model: Teachable

    def __init__(
        self,
        model: Teachable,
        class_weights: Tensor,
        ignore: int,
        lesson: Lesson,
        *,
        channels: tuple[Tensor, Tensor] | None = None,
        attention: AttentionTeacher | None = None,
    ) -> None:
        super().__init__(model, class_weights, ignore)
        self.lesson = lesson
        self.map = MapTerm(model.map_dim, *channels) if channels else None
        self.attention = AttentionTerm(model, attention) if attention else None

    @property
    def trained(self) -> nn.Module:
        """The student, and the projection that is left behind when the run ends."""
        projection = {"projection": self.map.projection} if self.map else {}
        return nn.ModuleDict({"student": self.model, **projection})

    def forward(self, images: Tensor, labels: Tensor, *taught: Tensor) -> Tensor:
        """Return the loss of a batch of :class:`~edgeunip.compress.distill.pictures.TaughtBatches`, scalar."""
        lesson = self.lesson
        outputs, features = self.model.taught(images)
        terms = []
        if lesson.labels:
            entropies = [
                weight * cross_entropy(logits, labels, self.class_weights, self.ignore) for logits, weight in outputs
            ]
            terms.append(lesson.labels * torch.stack(entropies).sum())
        if lesson.logits:
            weight = pixel_weights(taught[0], taught[1], self.class_weights)
            terms.append(lesson.logits * logits_divergence(outputs[0][0], taught[0], weight, lesson.temperature))
        if self.map:
            terms.append(lesson.features * self.map(features, *taught[-2:]))
        if self.attention:
            terms.append(lesson.attention * self.attention(images))
        return torch.stack(terms).sum()

    def train(self, mode: bool = True) -> TaughtTask:
        """Switch the student; a teacher at work stays as it is."""
        super().train(mode)
        if self.attention:
            self.attention.teacher.eval()
        return self


class MapTerm(nn.Module):
    """Holds the student's map at 1/16 against the teacher's, through a learned 1x1 projection."""

    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.projection = nn.Conv2d(dim, len(mean), 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, features: Tensor, target: Tensor, inside: Tensor) -> Tensor:
        """Return the error of the student's map [B, dim, h, w]."""
        return map_error(self.projection(features), target, inside, self.mean, self.std)


class AttentionTerm(nn.Module):
    """Holds the attention of the student's last block against the teacher's, on the same view.

    The student's tokens are taken where its own forward pass brings them: at the door of its last block.
    """

    def __init__(self, model: Teachable, teacher: AttentionTeacher) -> None:
        super().__init__()
        self.teacher = teacher
        assert isinstance(model.backbone, Backbone)
        self.last: list[Any] = [blocks(model.backbone.vit)[-1]]  # in a list: it is the student's part, not this one's
        self.tokens: Tensor | None = None
        self.last[0].register_forward_pre_hook(self._keep)

    def forward(self, images: Tensor) -> Tensor:
        """Return the divergence for images [B, 1, H, W] that the student has just seen."""
        tokens, self.tokens = self.tokens, None
        if tokens is None:
            raise RuntimeError("the student has not seen the images yet")
        return attention_kl(self.teacher(images), query_key(self.last[0], tokens))

    def _keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.tokens = inputs[0] if torch.is_grad_enabled() else None
