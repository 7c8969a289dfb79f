"""Our own encoders: written and read back whole, heads and licence with them, and handed to the authors' code."""

from __future__ import annotations

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import public_checkpoints as made
import pytest
import safetensors
import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from training import MICRO

from edgeunip.errors import RunError, UsageError, WeightsError
from edgeunip.train import run as runs
from edgeunip.train.encoder import Encoder, blocks, embed, fold_to_gray, query_key, set_heads
from edgeunip.train.position import sincos_pos_embed
from edgeunip.train.public.open import open_encoder
from edgeunip.train.public.own import encoder_bytes, to_reference
from edgeunip.train.vit import SIZES, Backbone


def opened(path: Path, **options: Any) -> Encoder:
    return open_encoder(str(path), say=lambda text: None, **options)


def written(path: Path, vit: VisionTransformer, **facts: Any) -> Path:
    path.write_bytes(encoder_bytes(vit, licence="CC-BY-NC-4.0", facts=facts))
    return path


@pytest.mark.parametrize(
    "options", [{}, {"in_chans": 1}, {"init_values": 0.5}, {"final_norm": False}, {"reg_tokens": 2}]
)
def test_an_encoder_is_read_back_bit_for_bit_with_its_heads_and_licence(options: Any, tmp_path: Path) -> None:
    vit = made.source(**options)
    set_heads(blocks(vit)[-1], 8)
    encoder = opened(written(tmp_path / "encoder.safetensors", vit, teacher="mae_large"))
    assert encoder.heads == (4, 8)
    assert torch.equal(made.our_tokens(encoder.vit), made.our_tokens(vit))
    assert encoder.origin.kind == "edgeunip encoder" and encoder.origin.licence == "CC-BY-NC-4.0"
    with safetensors.safe_open(tmp_path / "encoder.safetensors", "pt") as file:
        assert json.loads(file.metadata()["encoder"])["teacher"] == "mae_large"


def test_a_grid_that_is_not_square_is_read_back(tmp_path: Path) -> None:
    vit = VisionTransformer(img_size=(32, 80), embed_dim=64, depth=1, num_heads=4, num_classes=0)
    assert opened(written(tmp_path / "x.safetensors", vit)).vit.patch_embed.grid_size == (2, 5)


def test_equal_encoders_give_equal_bytes() -> None:
    """Several entries in a safetensors header are written in an order that changes from one time to the next."""
    vit = made.source()
    facts = [{"b": 1, "a": [2], "c": 3}, {"c": 3, "b": 1, "a": [2]}] * 4
    assert len({encoder_bytes(vit, licence="x", facts=one) for one in facts}) == 1
    several = {safetensors.torch.save({"x": torch.zeros(1)}, {"a": "1", "b": "2", "c": "3"}) for _ in range(20)}
    assert len(several) > 1, "the reason is gone"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("{", "header is damaged"),
        ("{}", "header is damaged.*heads"),
        ('{"heads": 3, "grid": [4, 4], "licence": null}', "header is damaged"),
        ('{"heads": [4], "grid": [3, 5], "licence": null}', "position table is not understood"),
        ('{"heads": [4, 4, 4], "grid": [4, 4], "licence": null}', "heads do not fit the blocks.*3 and 2"),
    ],
)
def test_negative_control_a_damaged_header(header: str, told: str, tmp_path: Path) -> None:
    tensors = {name: value.contiguous() for name, value in made.source().state_dict().items()}
    (tmp_path / "x.safetensors").write_bytes(safetensors.torch.save(tensors, {"encoder": header}))
    with pytest.raises(WeightsError, match=told):
        opened(tmp_path / "x.safetensors")


def test_negative_control_another_number_of_heads_than_the_files(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", made.source())
    with pytest.raises(UsageError, match="The encoder has 4 heads, not 2"):
        opened(path, heads=2)


# Runs


def picture() -> Tensor:
    return torch.randn(1, 1, 64, 80, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def features(backbone: Backbone) -> Tensor:
    return backbone.eval()(picture())


@torch.no_grad()
def last_block(vit: VisionTransformer) -> Tensor:
    tokens: Tensor = vit.blocks(embed(vit, picture()))
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 5))


@pytest.mark.parametrize("inside", ["", "weights.safetensors"])
def test_a_fine_tuning_run_gives_its_backbone_with_its_last_heads(micro: None, whole_run: Path, inside: str) -> None:
    encoder = opened(whole_run / inside)
    model = runs.open_run(whole_run).model()
    assert encoder.heads == (MICRO.heads, MICRO.last_heads)
    assert encoder.vit.patch_embed.grid_size == (4, 5)
    torch.testing.assert_close(last_block(encoder.vit), features(model.backbone), atol=1e-6, rtol=0)
    assert encoder.origin.kind == "edgeunip run" and encoder.origin.licence is None
    assert encoder.origin.left_out and not any("backbone" in name for name in encoder.origin.left_out)
    split = opened(whole_run / inside, last_heads=MICRO.heads)  # what the reference's fine-tuning makes of it
    assert split.heads == (MICRO.heads, MICRO.heads)
    assert (last_block(split.vit) - last_block(encoder.vit)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("start", "licence"), [({"licence": "CC-BY-NC-4.0"}, "CC-BY-NC-4.0"), ({"licence": None}, None), (None, None)]
)
def test_the_licence_of_a_runs_start_stays_with_it(
    micro: None, whole_run: Path, start: Any, licence: str | None, tmp_path: Path
) -> None:
    shutil.copytree(whole_run, tmp_path / "run")
    facts = json.loads((whole_run / "provenance.json").read_text())
    (tmp_path / "run" / "provenance.json").write_text(json.dumps({**facts, "init": start}))
    assert opened(tmp_path / "run").origin.licence == licence


def test_a_runs_weights_without_its_recipe_ask_for_the_heads(micro: None, whole_run: Path, tmp_path: Path) -> None:
    shutil.copy(whole_run / "weights.safetensors", tmp_path / "copy.safetensors")
    with pytest.raises(UsageError, match=r"last block's heads.*edgeunip run.*Name the run's folder"):
        opened(tmp_path / "copy.safetensors", heads=MICRO.heads)


def test_a_pre_training_run_is_read_by_its_weights(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('objective = "unip"\n')
    written(tmp_path / "weights.safetensors", made.source())
    assert opened(tmp_path).origin.kind == "edgeunip encoder"


def test_a_run_that_has_not_ended_and_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The folder is no training run"):
        opened(tmp_path)
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(RunError, match=r"no weights yet.*--resume"):
        opened(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(safetensors.torch.save({"head.weight": torch.zeros(1)}))
    with pytest.raises(RunError, match=r"recipe does not name its size.*auto"):
        opened(tmp_path)
    (tmp_path / "recipe.toml").write_text('size = "tiny"')
    with pytest.raises(WeightsError, match="The run holds no backbone"):
        opened(tmp_path)


# To the authors' code and back (U5, U6)


def student(name: str) -> VisionTransformer:
    size = SIZES[name]
    vit = VisionTransformer(
        img_size=224, in_chans=1, embed_dim=size.dim, depth=size.depth, num_heads=size.heads, num_classes=0,
        weight_init="skip",
    )  # fmt: skip
    set_heads(blocks(vit)[-1], size.last_heads)
    vit.pos_embed = torch.nn.Parameter(sincos_pos_embed(size.dim, (14, 14)))
    return vit


@pytest.mark.parametrize(("name", "parameters"), [("tiny", 5_524_416), ("small", 21_665_664), ("base", 85_798_656)])
def test_u5_u6_the_state_dict_has_the_references_names_shapes_and_parameters(name: str, parameters: int) -> None:
    data = golden.load("unip_kd")
    state = to_reference(student(name))
    shapes = {str(key): str(shape) for key, shape in
              zip(data[f"state_dict/{name}/names"], data[f"state_dict/{name}/shapes"], strict=True)}  # fmt: skip
    assert {key: "x".join(map(str, value.shape)) for key, value in state.items()} == shapes
    assert len(state) == 150
    assert sum(value.numel() for value in state.values()) == parameters == data[f"state_dict/{name}/parameters"]


def test_u5_round_trip_reference_to_ours_to_reference(tmp_path: Path) -> None:
    """The reference's student, folded to one channel and written back, gives the reference's logits on gray images."""
    data = golden.load("unip_kd")
    prefix = "weights/student/"
    theirs = {key[len(prefix) :]: torch.from_numpy(value) for key, value in data.items() if key.startswith(prefix)}
    torch.save({"model": theirs, "args": Namespace(last_heads=8)}, tmp_path / "unip.pth")
    encoder = opened(tmp_path / "unip.pth", heads=4)
    unchanged = to_reference(encoder.vit)
    assert unchanged.keys() == theirs.keys() and all(torch.equal(unchanged[key], theirs[key]) for key in theirs)
    fold_to_gray(encoder.vit)
    torch.save({"model": to_reference(encoder.vit), "args": Namespace(last_heads=8)}, tmp_path / "back.pth")
    back = opened(tmp_path / "back.pth", heads=4)
    images = torch.from_numpy(data["gray/images"])
    for vit, channels in ((encoder.vit, 1), (back.vit, 3)):
        with torch.no_grad():
            *before, last = blocks(vit)
            tokens = embed(vit, images.expand(-1, channels, -1, -1))
            for block in before:
                tokens = block(tokens)
            query, key = query_key(last, tokens)
        found = (query @ key.transpose(-2, -1)).numpy()
        np.testing.assert_allclose(found, data["gray/student_logits"], atol=5e-5, rtol=0)


def test_layer_scale_is_folded_and_a_missing_norm_filled_in(tmp_path: Path) -> None:
    vit = made.source(in_chans=1, init_values=0.5, final_norm=False)
    state = to_reference(vit)
    assert not [name for name in state if "ls" in name.split(".")]
    assert torch.equal(state["norm.weight"], torch.ones(64)) and not state["norm.bias"].any()
    torch.save({"model": state}, tmp_path / "x.pth")
    again = opened(tmp_path / "x.pth", heads=4).vit
    fold_to_gray(again)
    torch.testing.assert_close(made.our_tokens(again), made.our_tokens(vit), atol=2e-6, rtol=0)
    assert "blocks.0.ls1.gamma" in vit.state_dict(), "the encoder itself is untouched"


@pytest.mark.parametrize("options", [{"reg_tokens": 2}, {"no_embed_class": True}, {"img_size": (32, 48)}])
def test_what_the_reference_cannot_hold_is_refused(options: Any) -> None:
    options = {"img_size": 32, "embed_dim": 64, "depth": 1, "num_heads": 4, "num_classes": 0} | options
    with pytest.raises(UsageError, match="cannot be written for the UNIP authors' code"):
        to_reference(VisionTransformer(**options))
