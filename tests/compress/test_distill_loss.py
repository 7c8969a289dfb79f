"""The terms of a lesson's loss against numbers worked out by hand, and against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from edgeunip.compress.distill.loss import logits_divergence, map_error, pixel_weights


def logits(*shares: float) -> torch.Tensor:
    """One pixel whose classes have these shares at temperature 1."""
    return torch.tensor(shares).log().reshape(1, -1, 1, 1)


def test_divergence_by_hand() -> None:
    """KL of (3/4, 1/4) from (1/2, 1/2) is 3/4 log 3/2 + 1/4 log 1/2."""
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    found = logits_divergence(logits(0.5, 0.5), logits(0.75, 0.25), torch.ones(1, 1, 1), 1.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_temperature_softens_and_its_square_scales() -> None:
    """At T = 2 the shares 9/10 and 1/10 become 3/4 and 1/4: half the log-odds."""
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    found = logits_divergence(logits(0.5, 0.5), logits(0.9, 0.1), torch.ones(1, 1, 1), 2.0)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_divergence_is_the_weighted_mean_over_pixels() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weight = torch.rand(2, 4, 5)
    weight[0, 0] = 0.0
    found = logits_divergence(student, teacher, weight, 3.0)
    each = F.kl_div(F.log_softmax(student / 3, 1), F.log_softmax(teacher / 3, 1), reduction="none", log_target=True)
    torch.testing.assert_close(found, (9 * (each.sum(1) * weight).sum() / weight.sum()).float(), rtol=1e-5, atol=0)
    student[0, :, 0] += torch.randn(3, 5)
    torch.testing.assert_close(logits_divergence(student, teacher, weight, 3.0), found)  # pixels of weight 0


def test_a_student_like_its_teacher_has_nothing_to_learn() -> None:
    torch.manual_seed(1)
    teacher = torch.randn(1, 4, 3, 3)
    student = (teacher + 5.0).requires_grad_()  # the same classes: only differences count
    loss = logits_divergence(student, teacher, torch.ones(1, 3, 3), 2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


def test_the_gradient_at_high_temperature_is_that_of_matching_logits() -> None:
    """Hinton's limit: T^2 KL goes to half the squared difference of the centred logits, over the classes."""
    student, teacher = torch.tensor([[[[1.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[2.0]]]])
    found = logits_divergence(student, teacher, torch.ones(1, 1, 1), 50.0)
    assert found.item() == pytest.approx(0.5 * (1.5**2 + 1.5**2) / 2, rel=0.02)


def test_pixels_weigh_what_the_teacher_sees_there() -> None:
    teacher = torch.tensor([[[[2.0, 0.0, 3.0]], [[1.0, 4.0, 0.0]]]])
    weights = pixel_weights(teacher, torch.tensor([[[True, True, False]]]), torch.tensor([0.5, 7.0]))
    assert weights.tolist() == [[[0.5, 7.0, 0.0]]]


def test_no_pixel_no_loss() -> None:
    """All padding: zero, not a number divided by zero."""
    found = logits_divergence(torch.randn(1, 2, 1, 1), torch.randn(1, 2, 1, 1), torch.zeros(1, 1, 1), 2.0)
    assert found.item() == 0


def test_map_error_by_hand() -> None:
    """Channels (10, 20) of mean (8, 20) and deviation (2, 5) are (1, 0); the student says (0, 2): (1 + 4) / 2."""
    teacher = torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1).expand(1, 2, 1, 2)
    student = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1).repeat(1, 1, 1, 2)
    student[..., 1] = 100.0  # beyond the picture
    inside = torch.tensor([[[True, False]]])
    found = map_error(student, teacher, inside, torch.tensor([8.0, 20.0]), torch.tensor([2.0, 5.0]))
    assert found.item() == pytest.approx(2.5)
