"""Starting a segmentor from an encoder: every tensor is set, and what was distilled is what runs (U7)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from encoders import LICENCE, encoder, last_attention
from training import MICRO, checkpoints, digest, interrupt_at, recipe

from edgeunip import durable
from edgeunip.errors import EdgeunipError, RunError, UsageError
from edgeunip.train import checkpoint, fit, init
from edgeunip.train import run as runs
from edgeunip.train.datasets import DataSet
from edgeunip.train.encoder import Encoder
from edgeunip.train.optim import parameter_groups
from edgeunip.train.public.own import encoder_bytes
from edgeunip.train.resolve import differences, resolve
from edgeunip.train.tokens import as_map
from edgeunip.train.vit import PATCH, Backbone, ViTSize

pytestmark = pytest.mark.usefixtures("micro")
GRAY = torch.randn(2, 1, 64, 80, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit.report, "write", lambda *_: None)


def started(source: Encoder, *, grid: tuple[int, int] = (4, 5), channels: int = 1, size: ViTSize = MICRO) -> Backbone:
    backbone = Backbone(size, grid, channels=channels).eval()
    for value in backbone.parameters():
        value.data.fill_(torch.nan)  # whatever is left out shows
    init.load(backbone, source)
    return backbone


def last_map(source: Encoder, images: torch.Tensor) -> torch.Tensor:
    """The last block's output by timm's own forward pass, without the final norm."""
    source.vit.norm = torch.nn.Identity()
    return as_map(source.vit.forward_features(images), (images.shape[-2] // PATCH, images.shape[-1] // PATCH))


@pytest.mark.parametrize("options", [{}, {"no_embed_class": True}, {"init_values": 1e-5}, {"channels": 1}])
@torch.no_grad()
def test_the_backbone_computes_what_the_encoder_does(options: dict[str, Any]) -> None:
    source = encoder(**options)
    images = GRAY.expand(-1, options.get("channels", 3), -1, -1)
    found = started(source)(GRAY)
    torch.testing.assert_close(found, last_map(source, images), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_three_channels_stay_three() -> None:
    source, images = encoder(), torch.randn(2, 3, 64, 80)
    torch.testing.assert_close(started(source, channels=3)(images), last_map(source, images), atol=1e-4, rtol=1e-4)
    gray = encoder(channels=1)
    spread = started(gray, channels=3)(GRAY.expand(-1, 3, -1, -1))
    torch.testing.assert_close(spread, last_map(gray, GRAY), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_u7_last_heads_are_kept_downstream() -> None:
    """U7: downstream last-block attention equals the distilled one; re-split as the reference does, it does not."""
    source = encoder(last_heads=8, channels=1)
    wanted = last_attention(source.vit, GRAY)
    kept = started(source, size=replace(MICRO, last_heads=8))
    torch.testing.assert_close(last_attention(kept.vit, GRAY), wanted, atol=1e-6, rtol=0)
    resplit = started(source, size=replace(MICRO, last_heads=2))
    assert last_attention(resplit.vit, GRAY).shape[1] == 2
    assert (last_attention(resplit.vit, GRAY).mean(1) - wanted.mean(1)).abs().max() > 1e-2
    assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), resplit.parameters(), strict=True))


def test_the_recipe_takes_size_and_heads_from_the_encoder(data: DataSet) -> None:
    source = encoder(last_heads=8)
    found = resolve(recipe(), data, source)
    assert (found.size, found.last_heads, found.init) == ("tiny", 8, "/somewhere/micro.pth")
    assert resolve(recipe(last_heads=2), data, source).last_heads == 2
    assert resolve(recipe(), data).last_heads == MICRO.last_heads
    with pytest.raises(UsageError) as told:
        resolve(recipe(size="small"), data, source)
    why = "it has 2 blocks of width 32, small has 12 of 384"
    assert str(told.value) == f"The encoder is of another size: micro ({why}). Leave --size out."
    with pytest.raises(
        UsageError,
        match=r"none of the sizes: micro \(it has 3 blocks of width 32; known: micro 4 of 192, tiny 2 of 32, ",
    ):
        resolve(recipe(), data, encoder(depth=3))


def test_the_position_table_is_resampled_to_the_crop() -> None:
    """From 14 x 14, bicubic, corners not aligned; the CLS row stays."""
    source = encoder(grid=(14, 14))
    table = started(source, grid=(4, 6)).position
    old = source.vit.pos_embed
    assert old is not None
    grid = old[:, 1:].transpose(1, 2).reshape(1, -1, 14, 14)
    wanted = torch.nn.functional.interpolate(grid, size=(4, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(table[:, 1:], wanted.flatten(2).transpose(1, 2), atol=1e-6, rtol=0)
    assert torch.equal(table[:, :1], old[:, :1])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"reg_tokens": 2}, "it has tokens beside CLS (registers, or DeiT's distillation token)"),
        ({"class_token": False, "global_pool": "avg"}, "it has 0 tokens before the patches, not CLS alone"),
        ({"pos_embed": "none"}, "it has no position table"),
        ({"num_heads": 8}, "its blocks have 8 heads, not 2"),
        ({"norm_layer": torch.nn.LayerNorm}, "its norms' epsilon is 1e-05, not 1e-06"),
        ({"act_layer": torch.nn.ReLU}, "its activation is ReLU"),
    ],
)
def test_what_the_backbone_cannot_be_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError) as told:
        started(encoder(**options))
    assert str(told.value) == f"The encoder cannot start a segmentor: micro ({why})"


@pytest.mark.parametrize(
    ("options", "count", "names"),
    [
        ({"qkv_bias": False}, 2, "blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias"),
        ({"qk_norm": True}, 8, "blocks.0.attn.k_norm.bias, "),
        ({"pre_norm": True}, 3, "norm_pre.bias, norm_pre.weight, patch_embed.proj.bias"),
        ({"mlp_ratio": 2}, 6, "blocks.0.mlp.fc1.bias, "),
    ],
)
def test_tensors_that_do_not_fit_are_named(options: dict[str, Any], count: int, names: str) -> None:
    options.setdefault("pre_norm", False)
    with pytest.raises(UsageError) as told:
        started(encoder(**options))
    expected = rf"The encoder does not fit the model in {count} tensors: micro ({names}"
    assert str(told.value).startswith(expected)


def test_other_patches_are_refused() -> None:
    with pytest.raises(UsageError, match="its patches are 8 pixels wide, not 16"):
        started(encoder(patch_size=8))


def test_layer_decay_moves_every_group_by_its_scale(data: DataSet, tmp_path: Path) -> None:
    """One step of AdamW moves each tensor by about its rate: the groups' scales reach the weights (U9)."""
    source = encoder()
    values = {"steps": 1, "warmup": 0, "layer_decay": 0.5, "lr": 1e-3, "weight_decay": 0, "clip": 0, "drop_path": 0}
    run = fit.train(recipe(**values), data, tmp_path / "run", start=source)
    before = runs.build_model(run.recipe, run.classes)
    init.load(before.backbone, source)
    scales = {
        name: group["lr_scale"]
        for group in parameter_groups(before, 2, weight_decay=0.05, layer_decay=0.5)
        for name in group["names"]
    }
    assert set(scales.values()) == {0.125, 0.25, 0.5, 1.0}
    after = safetensors.torch.load_file(run.path / "weights.safetensors")
    for name, value in before.backbone.named_parameters(prefix="backbone"):
        moved = float((after[name] - value.detach()).abs().max())
        assert moved < 1.02e-3 * scales[name], name
        if name.endswith(("qkv.weight", "fc1.weight", "proj.weight", "pos_embed")):  # AdamW's eps is nothing to these
            assert moved == pytest.approx(1e-3 * scales[name], rel=0.02), name


def test_provenance_tells_the_origin(data: DataSet, tmp_path: Path) -> None:
    run = fit.train(recipe(), data, tmp_path / "run", start=encoder())
    assert run.provenance["init"] == {
        "name": "micro",
        "kind": "made up",
        "file": "/somewhere/micro.pth",
        "sha256": "0" * 64,
        "licence": LICENCE,
        "left_out": ["decoder"],
    }


def test_scratch_has_no_origin(whole_run: Path) -> None:
    assert runs.open_run(whole_run).provenance["init"] is None
    assert runs.open_run(whole_run).recipe.init == ""


@pytest.fixture
def encoder_file(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    durable.write_bytes(path, encoder_bytes(encoder(channels=1).vit, licence=LICENCE))
    return path


def test_a_resume_does_not_need_the_encoder(
    data: DataSet, tmp_path: Path, encoder_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before its first checkpoint of its own, with the file gone since."""
    asked = recipe(init=str(encoder_file))
    whole = fit.train(asked, data, tmp_path / "whole")
    assert whole.recipe.init == str(encoder_file)
    assert whole.provenance["init"]["licence"] == LICENCE
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            fit.train(asked, data, tmp_path / "run")
    assert [path.name[:13] for path in checkpoints(tmp_path / "run")] == ["step-00000000"]
    encoder_file.unlink()
    torch.manual_seed(99)
    fit.resume(tmp_path / "run")
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    assert digest(fit.train(recipe(), data, tmp_path / "scratch").path) != digest(tmp_path / "whole")


def test_stopped_before_its_start_was_saved(
    data: DataSet, tmp_path: Path, encoder_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(init=str(encoder_file))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit.train(asked, data, tmp_path / "run")
    assert digest(fit.resume(tmp_path / "run").path) == digest(fit.train(asked, data, tmp_path / "whole").path)
    assert not (tmp_path / "run" / "checkpoints" / "step-00000000").exists()


def test_a_run_is_a_start(whole_run: Path, data: DataSet, tmp_path: Path) -> None:
    """A fine-tuned model's backbone goes on as it was, LayerScale and last heads included."""
    run = fit.train(recipe(init=str(whole_run), steps=1, lr=1e-12), data, tmp_path / "run")
    before, after = (safetensors.torch.load_file(path / "weights.safetensors") for path in (whole_run, run.path))
    for name in before:
        if name.startswith("backbone."):
            torch.testing.assert_close(after[name], before[name], atol=1e-7, rtol=0)
    assert run.provenance["init"]["kind"] == "edgeunip run"


def test_unknown_encoders_leave_nothing(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(EdgeunipError):
        fit.train(recipe(init="no-such-encoder"), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Runs that are found, gone on with or refused


def test_ensure(whole_run: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            fit.ensure(recipe(), data, tmp_path / "run")
    assert digest(fit.ensure(recipe(), data, tmp_path / "run").path) == digest(whole_run)
    monkeypatch.setattr(fit, "Trainer", None)  # found: nothing is trained
    assert fit.ensure(recipe(threads=2), data, tmp_path / "run").path == tmp_path / "run"
    with pytest.raises(RunError) as told:
        fit.ensure(recipe(lr=0.5, head="uper"), replace(data, location="/elsewhere"), tmp_path / "run")
    why = f"head is 'light', not 'uper'; lr is 0.001, not 0.5; it is on {data.location}, not /elsewhere"
    assert str(told.value) == f"The folder holds another run: {tmp_path / 'run'} ({why}). Name another --out."


def test_differences_leave_open_what_is_open(data: DataSet) -> None:
    found = resolve(recipe(), data, encoder())
    assert differences(recipe(init="/somewhere/micro.pth"), found) == []
    assert differences(recipe(), found) == ["init is '/somewhere/micro.pth', not ''"]
    assert differences(replace(found, height=128), found) == ["height is 64, not 128"]
    assert json.dumps(differences(replace(found, seed=1), found)) == '["seed is 0, not 1"]'
