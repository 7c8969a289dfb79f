"""Patches merged 2x2 behind a block: where each one goes, what comes back, and what a run makes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from training import MICRO, digest, interrupt_at, log, recipe

from edgeunip.classes import Classes
from edgeunip.errors import UsageError
from edgeunip.train import fit, segmentor
from edgeunip.train import run as runs
from edgeunip.train.cost import cost
from edgeunip.train.datasets import DataSet
from edgeunip.train.encoder import embed
from edgeunip.train.recipe import Recipe
from edgeunip.train.tokens import as_map, merge
from edgeunip.train.vit import SIZES, Backbone, ViTSize

FOUR = ViTSize(dim=32, depth=4, heads=2, last_heads=4)
sides = st.tuples(st.integers(1, 7), st.integers(1, 7))


def tokens_of(grid: tuple[int, int], dim: int = 3, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(grid[0] * 8 + grid[1])
    return torch.randn(batch, 1 + grid[0] * grid[1], dim, generator=generator, dtype=torch.float64)


def backbone(merged: int, *, seed: int = 0, size: ViTSize = FOUR) -> Backbone:
    torch.manual_seed(seed)
    return Backbone(size, (4, 5), merge=merged).eval()


@settings(deadline=None, max_examples=40)
@given(grid=sides)
def test_each_patch_goes_into_its_square(grid: tuple[int, int]) -> None:
    """Against a loop over the squares; at an odd side the last patches are alone, not padded."""
    rows, columns = grid
    tokens = tokens_of(grid)
    found = merge(tokens, grid).coarse
    wide = math.ceil(columns / 2)
    assert found.shape == (2, 1 + math.ceil(rows / 2) * wide, 3)
    torch.testing.assert_close(found[:, 0], tokens[:, 0], rtol=0, atol=0)
    for row in range(0, rows, 2):
        for column in range(0, columns, 2):
            square = [(r, c) for r in (row, row + 1) for c in (column, column + 1) if r < rows and c < columns]
            mean = torch.stack([tokens[:, 1 + r * columns + c] for r, c in square]).mean(0)
            torch.testing.assert_close(found[:, 1 + row // 2 * wide + column // 2], mean)


def by_loop(added: Tensor, rows: int, columns: int) -> Tensor:
    """Enlarge a map [B, dim, h, w] by two: patch i lies at (i - 0.5) / 2 of the merged ones, ends repeated."""
    high, wide = added.shape[-2:]
    result = torch.empty(*added.shape[:2], rows, columns, dtype=added.dtype)
    for row in range(rows):
        for column in range(columns):
            y, x = max((row - 0.5) / 2, 0), max((column - 0.5) / 2, 0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, high - 1), min(left + 1, wide - 1)
            v, u = y - top, x - left
            above = added[..., top, left] * (1 - u) + added[..., top, right] * u
            below = added[..., bottom, left] * (1 - u) + added[..., bottom, right] * u
            result[..., row, column] = above * (1 - v) + below * v
    return result


@settings(deadline=None, max_examples=40)
@given(grid=sides)
def test_what_is_added_comes_back_to_its_place(grid: tuple[int, int]) -> None:
    tokens = tokens_of(grid)
    merged = merge(tokens, grid)
    torch.testing.assert_close(merged.spread(merged.coarse), as_map(tokens, grid), rtol=0, atol=0)
    change = torch.randn(merged.coarse.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    wanted = as_map(tokens, grid) + by_loop(as_map(change, merged.coarse_grid), *grid)
    torch.testing.assert_close(merged.spread(merged.coarse + change), wanted)


@torch.no_grad()
def test_the_blocks_before_the_merge_are_untouched_and_those_behind_see_the_merged() -> None:
    images = torch.randn(2, 1, 80, 112)
    plain, merged = backbone(0), backbone(2)
    assert all(torch.equal(merged.state_dict()[name], value) for name, value in plain.state_dict().items())
    for index in (0, 1):
        torch.testing.assert_close(merged.maps(images, [1, 2])[index], plain.maps(images, [1, 2])[index])
    seen: list[int] = []
    for block in merged.vit.blocks:
        block.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    third, last = merged.maps(images, [3, 4])
    assert seen == [36, 36, 13, 13]
    assert third.shape == last.shape == (2, 32, 5, 7)
    assert not torch.allclose(last, plain(images), atol=1e-3)


@torch.no_grad()
def test_tokens_that_are_alike_lose_nothing() -> None:
    """A uniform picture, no positions, CLS as the patches: attention over fewer of the same is the same."""
    plain, merged = backbone(0), backbone(2)
    images = torch.full((1, 1, 64, 80), 0.7)
    for model in (plain, merged):
        model.position.zero_()
        model.vit.cls_token.copy_(embed(model.vit, images)[:, 1:2])  # type: ignore[union-attr]
    torch.testing.assert_close(merged(images), plain(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", ["light", "uper"])
def test_every_parameter_learns(head: Any) -> None:
    torch.manual_seed(0)
    model = segmentor.build(Backbone(FOUR, (4, 5), merge=1), head, 3)
    torch.stack(
        [logits.square().mean() for logits, _ in model.training_logits(torch.randn(2, 1, 64, 80))]
    ).sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []


def test_cost_counts_the_merged_tokens() -> None:
    classes = Classes.from_json({"classes": [{"name": name, "rgb": [0, 0, 0]} for name in "ab"], "ignore": 255})
    base = {"size": "tiny", "height": 480, "width": 640, "crop_height": 480, "crop_width": 640}
    plain, merged = (cost(recipe(**base, merge=at), classes) for at in (0, 4))
    assert merged.parameters == plain.parameters
    products = 2 * 192 * (4 * 1201**2 + 8 * 301**2)
    assert merged.attention_macs == products and plain.attention_macs == 2 * 192 * 12 * 1201**2
    assert plain.macs - merged.macs == 8 * 900 * 12 * 192**2


@pytest.mark.parametrize("at", [-1, 4, 5])
def test_no_block_behind_the_merge(at: int) -> None:
    with pytest.raises(UsageError, match=f"^Nothing can be merged behind block {at} of 4. Give 0 to 3\\.$") as refused:
        backbone(at)
    assert "\n" not in str(refused.value)


def test_recipe() -> None:
    assert Recipe().merge == 0
    with pytest.raises(UsageError, match="recipe's merge cannot be -1"):
        recipe(merge=-1)
    with pytest.raises(UsageError, match="The size edge-s is convolutional: leave merge out"):
        recipe(size="edge-s", merge=2)


@pytest.mark.usefixtures("micro")
def test_a_run_stores_it_and_resumes_to_the_same_weights(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit.report, "write", lambda *_: None)
    whole = fit.train(recipe(merge=1), data, tmp_path / "whole")
    assert whole.recipe.merge == 1 and whole.model().backbone.merge == 1
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 7)
        fit.train(recipe(merge=1), data, tmp_path / "broken")
    fit.resume(tmp_path / "broken")
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")
    assert log(tmp_path / "broken")[-1] == log(tmp_path / "whole")[-1]
    plain = fit.train(recipe(), data, tmp_path / "plain")
    assert digest(plain.path) != digest(whole.path)


@pytest.mark.usefixtures("micro")
def test_weights_of_an_unmerged_run_fit(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From ``init`` as from the weights themselves: nothing is learnt by the merge."""
    monkeypatch.setattr(fit.report, "write", lambda *_: None)
    plain = fit.train(recipe(steps=2), data, tmp_path / "plain")
    merged = runs.build_model(recipe(size="tiny", merge=1, crop_height=64, crop_width=80), plain.classes)
    merged.load_state_dict(plain.model().state_dict())
    started = fit.train(recipe(steps=1, merge=1, init=str(plain.path)), data, tmp_path / "started")
    assert started.recipe.merge == 1
    assert SIZES["tiny"] == MICRO
