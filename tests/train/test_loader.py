"""Batches: every sample once an epoch, the same on any number of ranks and workers, from any step on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training import make_data, recipe

from edgeunip.errors import DataError, TrainingError
from edgeunip.thermal import Agc
from edgeunip.train.augment import Augmentation
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.loader import Batches, Draw, Pictures, loader, workers_watched

AUGMENT = Augmentation(64, 80, (64, 80), 255, recipe())


def batches(data: DataSet, *, first: int = 0, last: int = 6, rank: int = 0, ranks: int = 1, seed: int = 0) -> Batches:
    pictures = Pictures(data, data.split("train"), Agc())
    return Batches(pictures, AUGMENT, Draw(seed, 4, len(pictures)), first=first, last=last, rank=rank, ranks=ranks)


def same(ones: Any, others: Any) -> None:
    ones, others = list(ones), list(others)
    assert len(ones) == len(others) > 0
    for one, other in zip(ones, others, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)


@given(count=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 1 << 32), epochs=st.integers(1, 4))
def test_every_sample_once_an_epoch(count: int, batch: int, seed: int, epochs: int) -> None:
    """Whatever the batch: an epoch may end within one."""
    draw = Draw(seed, batch, count)
    steps = -(-count * epochs // batch)
    drawn = [index for step in range(steps) for index in draw(step)]
    assert len(drawn) == steps * batch
    for epoch in range(epochs):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_epochs_and_seeds_differ() -> None:
    orders = [Draw(seed, 50, 50)(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] != sorted(orders[0])


def test_what_a_batch_is(data: DataSet) -> None:
    images, labels = batches(data)[0]
    assert (images.shape, images.dtype) == ((4, 1, 64, 80), torch.float32)
    assert (labels.shape, labels.dtype) == ((4, 64, 80), torch.int64)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 255}


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_share_the_batch_in_order(data: DataSet, ranks: int) -> None:
    whole = batches(data)
    shares = [batches(data, rank=rank, ranks=ranks) for rank in range(ranks)]
    for step in range(len(whole)):
        parts = [share[step] for share in shares]
        same([[torch.cat(column) for column in zip(*parts, strict=True)]], [whole[step]])


def test_a_batch_is_a_function_of_seed_and_step(data: DataSet) -> None:
    """Not of where the run began, nor of what was drawn before, nor of the global generators."""
    whole = batches(data)
    torch.manual_seed(5)
    same((batches(data, first=3)[item] for item in range(3)), (whole[step] for step in (3, 4, 5)))
    assert not torch.equal(batches(data, seed=1)[0][0], whole[0][0])


def test_kept_pictures_are_as_those_from_disk(data: DataSet) -> None:
    kept = batches(data, last=8)
    once, again = [kept[step] for step in range(8)], [kept[step] for step in range(8)]
    same(once, again)
    assert len(kept.pictures._kept) == 10
    fresh = batches(data, last=8)
    fresh.pictures = Pictures(data, fresh.pictures.samples, fresh.pictures.agc, cache=0)
    same(once, (fresh[step] for step in range(8)))
    assert not fresh.pictures._kept


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(data: DataSet, workers: int) -> None:
    same(loader(batches(data), workers=workers, pin=False), loader(batches(data), workers=0, pin=False))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_is_named_in_one_line(tmp_path: Path, workers: int) -> None:
    data = open_data(str(make_data(tmp_path)))
    gone = data.split("train")[Draw(0, 4, 10)(1)[2]].image
    gone.unlink()
    walk = loader(batches(data), workers=workers, pin=False)
    next(walk)
    with pytest.raises(DataError, match=f"{gone.name}") as told:
        next(walk)
    assert "Traceback" not in str(told.value)
    walk.close()


class Suicidal(Batches):
    def __getitem__(self, item: int) -> Any:
        if item == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(item)


def test_a_worker_that_is_killed(data: DataSet) -> None:
    whole = batches(data)
    fatal = Suicidal(whole.pictures, AUGMENT, whole.draw, first=0, last=6, rank=0, ranks=1)
    told = r"^A loader process died \(DataLoader worker .*lower workers or batch"
    with pytest.raises(TrainingError, match=told), workers_watched():
        list(loader(fatal, workers=1, pin=False))


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), workers_watched():
        raise RuntimeError("something else")
