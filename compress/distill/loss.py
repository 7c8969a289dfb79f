"""The terms of a lesson's loss that come from the teacher's outputs. Each is a mean over the global batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeunip.train.segmentor import share_of_mean


def logits_divergence(student: Tensor, teacher: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(teacher || student) of the classes softened by T, averaged over the pixels' weights; scalar.

    Args:
        student: logits [B, classes, h, w].
        teacher: logits of the same shape; no gradient flows into them.
        weight: of each pixel, [B, h, w]; 0 leaves it out.
        temperature: T.
    """
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    guess = F.log_softmax(student.float() / temperature, dim=1)
    divergence = (target.exp() * (target - guess)).sum(1)
    return temperature**2 * share_of_mean((divergence * weight).sum(), weight.sum())


def pixel_weights(teacher: Tensor, inside: Tensor, class_weights: Tensor) -> Tensor:
    """Return each pixel's weight: that of the class the teacher sees; 0 beyond the picture. [B, h, w]."""
    return class_weights[teacher.argmax(1)] * inside


def map_error(student: Tensor, teacher: Tensor, inside: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the squared error of the teacher's map, its channels standardised, averaged over what is valid; scalar.

    Args:
        student: [B, dim, h, w], after the projection.
        teacher: [B, dim, h, w].
        inside: where the map is valid, [B, h, w].
        mean, std: of the teacher's channels, [dim].
    """
    target = (teacher - mean[:, None, None]) / std[:, None, None]
    error = torch.square(student.float() - target).mean(1)
    return share_of_mean((error * inside).sum(), inside.sum(dtype=torch.float32))
