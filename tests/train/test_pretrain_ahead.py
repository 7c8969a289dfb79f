"""What needs no gradient is computed a micro-batch ahead: in order, on its own threads, with the same numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from edgeunip.train.encoder import Encoder, Origin
from edgeunip.train.pretrain.ahead import ahead, prepared, split
from edgeunip.train.pretrain.student import new_vit
from edgeunip.train.pretrain.unip import Distillation, Teacher
from edgeunip.train.vit import SIZES, ViTSize

WAIT_S = 10


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def distillation(teacher: ViTSize, student: ViTSize, layer: int, side: int = 2) -> Distillation:
    torch.manual_seed(0)
    grid = (side, side)
    encoder = Encoder(new_vit(replace(teacher, last_heads=teacher.heads), grid), Origin("random", "untrained"))
    return Distillation(Teacher(encoder, layer), new_vit(replace(student, last_heads=teacher.heads), grid))


def batches(count: int) -> Iterator[Tensor]:
    return (torch.full((1,), float(number)) for number in range(count))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_in_order_and_none_left_out(count: int) -> None:
    found = list(ahead(batches(count), lambda images: (images + 1, images * 2), 1))
    assert [[float(part) for part in parts] for parts in found] == [[n, n + 1, 2 * n] for n in range(count)]


def test_the_next_is_computed_while_this_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]
    seen: set[str] = set()

    def prepare(images: Tensor) -> tuple[Tensor]:
        seen.add(threading.current_thread().name)
        begun[int(images)].set()
        return (images,)

    walk = ahead(batches(3), prepare, 1)
    next(walk)
    assert begun[1].wait(WAIT_S)  # nobody has asked for it
    assert not begun[2].is_set()  # and no further: memory stays bounded
    assert [float(images) for images, _ in walk] == [1, 2]
    assert seen == {"ahead_0"}


def test_each_part_has_its_threads_and_the_caller_gets_all_back() -> None:
    torch.set_num_threads(4)
    walk = ahead(batches(3), lambda images: (torch.tensor(torch.get_num_threads()),), 3)
    assert torch.get_num_threads() == 4
    assert int(next(walk)[1]) == 3 and torch.get_num_threads() == 1
    walk.close()
    assert torch.get_num_threads() == 4


def test_an_error_arrives_at_its_turn_and_leaves_no_thread() -> None:
    def prepare(images: Tensor) -> tuple[Tensor]:
        if images == 1:
            raise ValueError("batch 1")
        return (images,)

    walk = ahead(batches(3), prepare, 1)
    assert float(next(walk)[0]) == 0
    with pytest.raises(ValueError, match="batch 1"):
        next(walk)
    for thread in threading.enumerate():
        if thread.name.startswith("ahead"):
            thread.join(WAIT_S)
            assert not thread.is_alive()
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("share", "threads", "mine"),
    [(0.49, 1, 0), (0.49, 2, 1), (0.49, 4, 2), (0.79, 2, 0), (0.79, 3, 0), (0.79, 4, 3), (0.2, 5, 1), (0.01, 4, 0)],
)
def test_who_gets_how_many_threads(share: float, threads: int, mine: int) -> None:
    assert split(share, threads) == mine


@pytest.mark.parametrize(("student", "among_two"), [("small", 1), ("tiny", 0)])
def test_the_share_is_that_of_the_counted_operations(student: str, among_two: int) -> None:
    """With a ViT-B teacher and its ninth layer."""
    task = distillation(SIZES["base"], SIZES[student], 9, side=14).eval().to("meta")
    images = torch.zeros(1, 1, 224, 224, device="meta")
    with FlopCounterMode(display=False) as once:
        rest = task.prepare(images)
    with FlopCounterMode(display=False) as learnt:
        task(images, *rest).backward()
    share = once.get_total_flops() / (once.get_total_flops() + learnt.get_total_flops())
    assert task.prepared_share == pytest.approx(share, abs=0.03)
    assert split(task.prepared_share, 2) == among_two


def test_the_loss_is_the_same_prepared_or_not() -> None:
    task = distillation(ViTSize(64, 3, 4, 4), ViTSize(32, 4, 2, 4), 3)
    images = torch.randn(3, 1, 32, 32)
    losses = []
    for parts in ((images,), *prepared(task, iter([images])), *ahead(iter([images]), task.prepare, 1)):
        torch.manual_seed(5)
        task.zero_grad()
        loss = task(*parts)
        loss.backward()
        gradient = task.student.patch_embed.proj.weight.grad
        assert gradient is not None
        losses.append((float(loss.detach()), gradient.clone()))
    for loss, gradient in losses[1:]:
        assert loss == losses[0][0] and torch.equal(gradient, losses[0][1])
