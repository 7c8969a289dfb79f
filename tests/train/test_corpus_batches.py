"""Micro-batches: every image once an epoch on any number of ranks, from any step on, from files or shards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus_scenes import build, folder
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip.errors import DataError, UsageError
from edgeunip.train.corpus.batches import MicroBatches, Pictures
from edgeunip.train.corpus.corpus import Corpus, open_corpus
from edgeunip.train.corpus.views import RandomResizedCrop
from edgeunip.train.loader import Draw, loader

COUNT = 11
VIEW = RandomResizedCrop(size=32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return open_corpus(str(folder(tmp_path_factory.mktemp("images"), COUNT, suffix=".jpg")))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus) -> Corpus:
    report = build(tmp_path_factory.mktemp("packed"), corpus.location, per_shard=4)
    return open_corpus(str(report.path))


def batches(
    corpus: Corpus, *, first: int = 0, last: int = 4, micro: int = 2, rank: int = 0, ranks: int = 1
) -> MicroBatches:
    draw = Draw(5, 8, len(corpus))
    pictures = Pictures(corpus)
    return MicroBatches(pictures, VIEW, draw, micro=micro, first=first, last=last, rank=rank, ranks=ranks)


def test_what_an_item_is(corpus: Corpus) -> None:
    found = batches(corpus)
    assert (len(found), found.a_step) == (16, 4)
    assert (found[0].shape, found[0].dtype) == ((2, 1, 32, 32), torch.uint8)
    assert len({item.numpy().tobytes() for item in map(found.__getitem__, range(16))}) == 16


@settings(deadline=None)
@given(
    count=st.integers(1, 60), micro=st.integers(1, 4), accumulate=st.integers(1, 3), ranks=st.integers(1, 3),
    seed=st.integers(0, 1 << 32),
)  # fmt: skip
def test_every_image_once_an_epoch(
    corpus: Corpus, count: int, micro: int, accumulate: int, ranks: int, seed: int
) -> None:
    """Over all ranks and micro-batches, also where an epoch ends within a batch."""
    draw = Draw(seed, micro * accumulate * ranks, count)
    epochs, pictures = 3, Pictures(corpus)
    steps = -(-count * epochs // draw.batch)
    drawn = {}
    for rank in range(ranks):
        share = MicroBatches(pictures, VIEW, draw, micro=micro, first=0, last=steps, rank=rank, ranks=ranks)
        for item in range(len(share)):
            for step, position, index in share.samples(item):
                at = step * draw.batch + position
                assert at not in drawn
                drawn[at] = index
    assert sorted(drawn) == list(range(steps * draw.batch))
    for epoch in range(epochs):
        assert sorted(drawn[at] for at in range(epoch * count, (epoch + 1) * count)) == list(range(count))


@pytest.mark.parametrize(("micro", "ranks"), [(8, 1), (4, 1), (4, 2), (2, 2), (1, 4)])
def test_a_sample_does_not_depend_on_ranks_or_micro_batches(corpus: Corpus, micro: int, ranks: int) -> None:
    whole = batches(corpus, micro=8)
    shares = [batches(corpus, micro=micro, rank=rank, ranks=ranks) for rank in range(ranks)]
    for step in range(4):
        items = range(step * shares[0].a_step, (step + 1) * shares[0].a_step)
        parts = torch.cat([share[item] for share in shares for item in items])
        assert torch.equal(parts, whole[step])


def test_from_any_step_on(corpus: Corpus) -> None:
    whole, later = batches(corpus), batches(corpus, first=2)
    assert len(later) == 8
    for item in range(8):
        assert torch.equal(later[item], whole[8 + item])


def test_an_epoch_shows_other_views_of_the_same_image(corpus: Corpus) -> None:
    draw = Draw(0, 11, 11)
    found = MicroBatches(Pictures(corpus), VIEW, draw, micro=11, first=0, last=2)
    one, two = (dict(zip([s[2] for s in found.samples(item)], found[item], strict=True)) for item in (0, 1))
    assert one.keys() == two.keys()
    assert not any(torch.equal(one[index], two[index]) for index in one)


def test_shards_are_read_as_files_are(corpus: Corpus, packed: Corpus) -> None:
    for item in range(16):
        assert torch.equal(batches(corpus)[item], batches(packed)[item])


def test_workers_change_nothing(packed: Corpus) -> None:
    here = list(loader(batches(packed), workers=0, pin=False))
    there = list(loader(batches(packed), workers=2, pin=False))
    assert len(here) == len(there) == 16
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_kept_pictures_are_bounded(corpus: Corpus) -> None:
    pictures = Pictures(corpus, cache=5 * 96 * 128)
    read = [pictures[index] for index in range(COUNT)]
    assert len(pictures._kept) == 5 and len(pictures) == COUNT
    for index in range(COUNT):
        np.testing.assert_array_equal(pictures[index], read[index])


def test_an_image_that_vanishes_is_named(tmp_path: Path) -> None:
    corpus = open_corpus(str(folder(tmp_path, COUNT)))
    corpus.path(Draw(5, 8, COUNT)(0)[3]).unlink()
    walk = loader(batches(corpus), workers=0, pin=False)
    next(walk)
    with pytest.raises(DataError, match=r"The image cannot be read: .*\.png"):
        next(walk)


def test_a_batch_that_cannot_be_cut(corpus: Corpus) -> None:
    told = r"^A batch of 8 cannot be cut into micro-batches \(it is no multiple of 3 pictures x 1 processes\)$"
    with pytest.raises(UsageError, match=told):
        batches(corpus, micro=3)
    with pytest.raises(UsageError, match="2 pictures x 3 processes"):
        batches(corpus, ranks=3)
