"""Encoders by name: untrained ones, names nobody knows, and what is no plain ViT."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled

from edgeunip.errors import UsageError
from edgeunip.train.encoder import Encoder, embed
from edgeunip.train.public import open as opening
from edgeunip.train.public.open import open_encoder


def opened(name: str) -> Encoder:
    return open_encoder(name, say=lambda text: None)


def test_an_untrained_encoder_is_the_same_each_time_and_says_so() -> None:
    first, again, other = (opened(f"random:test_vit{seed}") for seed in ("", ":0", ":1"))
    assert first.origin.kind == "untrained"
    assert (first.origin.file, first.origin.sha256, first.origin.licence) == (None, None, None)
    weights = [encoder.vit.state_dict()["blocks.0.attn.qkv.weight"] for encoder in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_opening_an_encoder_draws_nothing_from_the_callers_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    opened("random:test_vit")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "deit3_small_patch16_224", "test_vit3"])
@torch.no_grad()
def test_timms_own_variants_give_timms_tokens(name: str) -> None:
    """Distilled DeiT is a class of its own in timm; its second token is a register like any."""
    encoder = opened(f"random:{name}:4")
    torch.manual_seed(4)
    source = timm.create_model(name, pretrained=False).eval()
    assert isinstance(source, VisionTransformerDistilled) is ("distilled" in name)
    images = torch.randn(1, 3, *source.patch_embed.img_size)
    expected = source.norm_pre(source._pos_embed(source.patch_embed(images)))
    torch.testing.assert_close(embed(encoder.vit, images), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        encoder.vit.norm(encoder.vit.blocks(expected)), source.forward_features(images), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unip-smal", r"Unknown encoder: unip-smal\. Did you mean unip-small"),
        ("vit_base_patch16_224.mea", r"Did you mean vit_base_patch16_224\.mae or"),
        ("random:vit_tiny_patch16_223", r"Did you mean random:vit_tiny_patch16_224 or"),
        ("random:test_vit:x", r"Unknown encoder: random:test_vit:x"),
        ("resnet50", r"Unknown encoder: resnet50\. Name a file, a run, hf:OWNER/NAME\[:FILE\], unip-small"),
        ("", r"Unknown encoder"),
        ("runs/nothing", r"No such file or folder: runs/nothing$"),
        ("teacher.pth", r"No such file or folder: teacher\.pth$"),
    ],
)
def test_a_name_nobody_knows(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        opened(name)
    assert "\n" not in str(caught.value)


def test_an_architecture_of_which_timm_has_no_weights() -> None:
    with pytest.raises(
        UsageError, match=r"no such weights: vit_giant_patch14_224\. random:vit_giant_patch14_224 is the"
    ):
        opened("vit_giant_patch14_224")


@pytest.mark.parametrize("name", ["vit_base_patch16_rpn_224", "vit_small_patch16_18x2_224"])
def test_negative_control_other_blocks_are_no_plain_vit(name: str) -> None:
    with pytest.raises(UsageError, match="The model is no plain ViT"):
        opened(f"random:{name}")


def test_a_folder_with_a_models_name_is_meant_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unip-small").mkdir()
    monkeypatch.setattr(opening, "_unip_file", lambda size, teacher: pytest.fail(f"{size} {teacher}"))
    with pytest.raises(UsageError, match="The folder is no training run: unip-small"):
        opened("./unip-small")
