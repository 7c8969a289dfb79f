"""Schedules and groups against the numbers of the authors' code."""

from __future__ import annotations

import golden
import numpy as np
import pytest

from edgeunip.train.pretrain.schedule import cosine_lr, ema_momentum, parameter_groups
from edgeunip.train.pretrain.student import new_vit
from edgeunip.train.vit import SIZES


def test_learning_rates() -> None:
    data = golden.load("lr_schedule")
    for case, base, warmup in (("pretrain", 2.4e-3, 5), ("pad", 1.6e-3, 30)):
        ours = [cosine_lr(float(epoch), base=base, warmup=warmup, epochs=100) for epoch in data[f"{case}/epochs"]]
        np.testing.assert_allclose(ours, data[f"{case}/lr"], rtol=1e-12, atol=0)


def test_the_rate_at_accumulation_borders() -> None:
    """A step's epoch is its pictures over the set's: the engine's fraction, micro-batch / micro-batches + epoch."""
    data = golden.load("lr_schedule")
    epochs = [epoch + micro / 1678 for epoch, micro in data["pretrain/batches"].tolist()]
    np.testing.assert_allclose(epochs, data["pretrain/batches_epoch"], rtol=1e-12)
    ours = [cosine_lr(epoch, base=2.4e-3, warmup=5, epochs=100) for epoch in epochs]
    np.testing.assert_allclose(ours, data["pretrain/batches_lr"], rtol=1e-12)


def test_ema_momentum() -> None:
    data = golden.load("lr_schedule")
    ours = [ema_momentum(step, 200, 0.996) for step in range(200)]
    np.testing.assert_allclose(ours, data["ema/schedule"], rtol=1e-12)


def test_weight_decay_groups() -> None:
    data = golden.load("lr_schedule")
    groups = parameter_groups(new_vit(SIZES["tiny"], (14, 14), channels=3), weight_decay=0.05)
    ours = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert ours == dict(zip(data["groups/names"].tolist(), data["groups/weight_decay"].tolist(), strict=True))


def test_the_gray_patch_embedding_moves_as_the_sum_of_three() -> None:
    groups = parameter_groups(new_vit(SIZES["tiny"], (14, 14)), weight_decay=0.06)
    found = {name: (group["lr_scale"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found["patch_embed.proj.weight"] == (3.0, pytest.approx(0.02))
    assert found["blocks.0.attn.qkv.weight"] == (1.0, 0.06)
