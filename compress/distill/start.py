"""What a ViT student starts from: some of its teacher's blocks, where both have one width.

A block of a residual network refines what comes in; leaving some out leaves a network that works worse, but works. The
student keeps the teacher's first layers, its last block, whose attention its decoder reads, and its decoder.
"""

from __future__ import annotations

import torch

from edgeunip.compress.distill.lesson import Lesson
from edgeunip.compress.distill.teacher import Teacher
from edgeunip.errors import UsageError
from edgeunip.train.encoder import blocks
from edgeunip.train.position import resize_pos_embed
from edgeunip.train.recipe import Recipe
from edgeunip.train.segmentor import Segmentor
from edgeunip.train.vit import SIZES, Backbone


def choose_blocks(lesson: Lesson, recipe: Recipe, teacher: Teacher) -> tuple[int, ...]:
    """Return the teacher's blocks a student starts from, counted from 1 and rising; none to start from scratch.

    Raises:
        UsageError: the lesson asks for blocks that do not fit the student.
    """
    if lesson.blocks == "scratch" or recipe.init:
        return ()
    wanted = SIZES[recipe.size] if not recipe.is_convolutional else None
    have = SIZES.get(teacher.run.recipe.size)
    if wanted is None or have is None or wanted.dim != have.dim or wanted.depth > have.depth:
        if lesson.blocks == "auto":
            return ()
        why = f"the student is {recipe.size}, the teacher {teacher.run.recipe.size}"
        raise UsageError("The teacher's blocks do not fit the student", why=why, remedy="Leave blocks out.")
    return first_and_last(have.depth, wanted.depth)


def first_and_last(have: int, wanted: int) -> tuple[int, ...]:
    """Return the first ``wanted - 1`` of ``have`` blocks, counted from 1, and the last, whose attention was distilled.

    Better than evenly spread ones, and far better than those whose single absence costs most (benchmarks/pruning.py).
    """
    return (*range(1, wanted), have)


@torch.no_grad()
def load_blocks(model: Segmentor, teacher: Teacher, chosen: tuple[int, ...]) -> None:
    """Set a student's backbone from the teacher's first layers and the chosen blocks; its decoder too, if it fits."""
    mine, theirs = model.backbone, teacher.model.backbone
    assert isinstance(mine, Backbone) and isinstance(theirs, Backbone)
    weights = theirs.vit.state_dict()
    kept = {name: value for name, value in weights.items() if not name.startswith("blocks.")}
    kept["pos_embed"] = resize_pos_embed(weights["pos_embed"], theirs.grid, mine.grid)
    for place, block in enumerate(chosen):
        state = blocks(theirs.vit)[block - 1].state_dict()
        kept |= {f"blocks.{place}.{name}": value for name, value in state.items()}
    mine.vit.load_state_dict(kept)
    ours, decoder = model.state_dict(), teacher.model.state_dict()
    names = [name for name in ours if not name.startswith("backbone.")]
    if all(name in decoder and decoder[name].shape == ours[name].shape for name in names):
        model.load_state_dict(ours | {name: decoder[name] for name in names})
