"""Fewer blocks: val mIoU of a trained run without some of its blocks and without retraining, by how they are chosen.

    python benchmarks/pruning.py RUN [--every 5]

"important" keeps the blocks whose single absence costs most, "even" spreads them, "first" keeps the first ones; the
last block is always among them. What won is what a student starts from (compress/distill/start.py).
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgeunip.errors import UsageError
from edgeunip.train import run as runs
from edgeunip.train.encoder import blocks
from edgeunip.train.evaluate import evaluate
from edgeunip.train.loader import Pictures
from edgeunip.train.run import TorchModel
from edgeunip.train.segmentor import LightSegmentor, UPerSegmentor

Model = LightSegmentor | UPerSegmentor
COUNTS = (10, 8, 6, 4)


def main() -> None:
    """Print a line a number of blocks."""
    options = _options()
    run = runs.open_run(options.run)
    model: Any = run.model()
    data, agc = run.data(), run.recipe.agc_parameters()
    pictures = Pictures(data, data.split("val")[:: options.every], agc)

    def score(scored: Any) -> float:
        return 100 * evaluate(TorchModel(scored, run.recipe), pictures, size=run.size).miou

    importance = block_importance(model, lambda: score(model))
    print(f"{len(pictures)} val images, whole {score(model):.1f}; importance", *(f"{fall:.1f}" for fall in importance))
    for count in COUNTS:
        ways = {
            "important": most_important(importance, count),
            "even": tuple(int(block) for block in np.round(np.linspace(0, len(importance) - 1, count))),
            "first": (*range(count - 1), len(importance) - 1),
        }
        print(count, *(f"{way} {score(with_blocks(model, kept)):.1f}" for way, kept in ways.items()))


def block_importance(model: Model, score: Callable[[], float]) -> tuple[float, ...]:
    """Return by how much the score falls when one block is skipped, first block to last.

    A single skip tells little about several at once: blocks stand in for each other.

    Args:
        model: trained; each block in turn is taken out of it and put back.
        score: scores that very model, higher is better; best on training pictures, as val shall judge the outcome.
    """
    whole = score()
    falls = []
    for index in range(model.backbone.depth):
        with _skipped(model.backbone.vit, index):
            falls.append(whole - score())
    return tuple(falls)


def most_important(importance: Sequence[float], count: int) -> tuple[int, ...]:
    """Return the indices of the ``count`` blocks to keep, rising from 0.

    The last one is always among them: the decoder reads it, and its heads are those UNIP distilled.

    Raises:
        UsageError: there are not so many blocks, or none is asked for.
    """
    last = len(importance) - 1
    if not 1 <= count <= len(importance):
        raise UsageError(f"{count} blocks cannot be kept of {len(importance)}")
    others = sorted(range(last), key=lambda index: importance[index], reverse=True)[: count - 1]
    return (*sorted(others), last)


def with_blocks(model: Model, kept: Sequence[int]) -> Model:
    """Return a copy of a model that has only some of its blocks, counted from 0.

    Where it merges patches, as many of the kept blocks stay before the merge as were there.

    Raises:
        UsageError: the indices do not rise or there are no such blocks, or all kept ones are on one side of the merge.
    """
    depth = model.backbone.depth
    if not kept or list(kept) != sorted(set(kept)) or not 0 <= kept[0] <= kept[-1] < depth:
        raise UsageError(f"The blocks {list(kept)} are no rising choice of the {depth}, counted from 0")
    merge = sum(index < model.backbone.merge for index in kept)
    if model.backbone.merge and not 0 < merge < len(kept):
        raise UsageError(f"The blocks {list(kept)} are all on one side of the merge behind {model.backbone.merge}")
    pruned = copy.deepcopy(model)
    pruned.backbone.vit.blocks = nn.Sequential(*(blocks(pruned.backbone.vit)[index] for index in kept))
    pruned.backbone.merge = merge
    return pruned


@contextmanager
def _skipped(vit: Any, index: int) -> Iterator[None]:
    """Put nothing in a block's place."""
    block = vit.blocks[index]
    vit.blocks[index] = nn.Identity()
    try:
        yield
    finally:
        vit.blocks[index] = block


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished ViT run")
    parser.add_argument("--every", type=int, default=5, help="take every so many val images (default 5)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
