"""Checkpoints of others: each format gives the encoder it was made from, and nothing less than the whole is taken."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import public_checkpoints as made
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from public_checkpoints import DEPTH, FORMATS, HEADS, WIDTH

from edgeunip.errors import UsageError, WeightsError
from edgeunip.train.encoder import Encoder, blocks, embed, query_key
from edgeunip.train.public import files, formats
from edgeunip.train.public.open import open_encoder


def quiet(text: str) -> None:
    pass


def save(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def opened(path: Path, **options: Any) -> Encoder:
    return open_encoder(str(path), say=quiet, **({"heads": HEADS} | options))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        opened(path, **options)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_tokens_of_the_model_it_was_made_from(name: str, tmp_path: Path) -> None:
    make, kind, left_out = FORMATS[name]
    vit, content = make()
    encoder = opened(save(tmp_path / "teacher.pth", content))
    torch.testing.assert_close(made.our_tokens(encoder.vit), made.tokens(vit), atol=1e-6, rtol=0)
    torch.testing.assert_close(made.tokens(encoder.vit), made.tokens(vit), atol=1e-6, rtol=0)
    assert encoder.origin.kind == kind
    assert set(left_out) <= set(encoder.origin.left_out)
    assert name == "moco" or encoder.origin.left_out == left_out
    assert not encoder.vit.training


@pytest.mark.parametrize("name", ["mae", "deit3", "deit_distilled"])
def test_safetensors_is_read_as_well(name: str, tmp_path: Path) -> None:
    vit, content = FORMATS[name][0]()
    (tmp_path / "model.safetensors").write_bytes(safetensors.torch.save(content["model"]))
    encoder = opened(tmp_path / "model.safetensors")
    torch.testing.assert_close(made.our_tokens(encoder.vit), made.tokens(vit), atol=1e-6, rtol=0)


def test_old_torch_files_and_half_precision_are_read(tmp_path: Path) -> None:
    vit, content = made.mae()
    half = {"model": {name: value.half() for name, value in content["model"].items()}}
    encoder = opened(save(tmp_path / "old.pth", half, _use_new_zipfile_serialization=False))
    assert {value.dtype for value in encoder.vit.parameters()} == {torch.float32}
    torch.testing.assert_close(made.our_tokens(encoder.vit), made.tokens(vit), atol=2e-2, rtol=0)


def test_origin_says_file_hash_and_licence(tmp_path: Path) -> None:
    path = save(tmp_path / "mae.pth", made.mae()[1])
    origin = opened(path).origin
    assert (origin.name, origin.file, origin.sha256) == (str(path), str(path), files.sha256(path))
    assert origin.licence == "CC-BY-NC-4.0"
    assert opened(save(tmp_path / "unip.pth", made.unip()[1])).origin.licence == "CC-BY-NC-4.0"
    assert opened(save(tmp_path / "dino.pth", made.dino()[1])).origin.licence is None


def test_what_is_opened_is_said_with_its_licence(tmp_path: Path) -> None:
    said: list[str] = []
    path = save(tmp_path / "full.pth", made.mae_full()[1])
    open_encoder(str(path), heads=HEADS, say=said.append)
    assert said == [f"Encoder {path}: MAE, licence CC-BY-NC-4.0, 4 tensors beside the encoder left out"]


# Heads


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)])
def test_heads_by_the_width_of_published_models(width: int, heads: int, tmp_path: Path) -> None:
    vit = made.VisionTransformer(img_size=32, embed_dim=width, depth=1, num_heads=1, num_classes=0, mlp_ratio=0.125)
    assert opened(save(tmp_path / "x.pth", vit.state_dict()), heads=0).heads == (heads,)


def test_an_unusual_width_asks_for_the_heads(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", made.dino()[1])
    with pytest.raises(UsageError, match=r"heads does not stand in the weights.*64 wide.*--heads N"):
        opened(path, heads=0)
    assert opened(path, heads=2).heads == (2, 2)
    assert opened(path, heads=2, last_heads=8).heads == (2, 8)
    with pytest.raises(UsageError, match="7 heads do not divide the width 64"):
        opened(path, heads=7)


def untrained_tail() -> dict[str, torch.Tensor]:
    """A file as UNIP's pre-training leaves it: what follows the last block's queries and keys is as it started."""
    vit = made.sincos_source()
    state = vit.state_dict()
    last = f"blocks.{DEPTH - 1}."
    state[f"{last}attn.qkv.bias"][2 * WIDTH :] = 0
    for name in ("attn.proj.bias", "mlp.fc1.bias", "mlp.fc2.bias", "norm2.bias"):
        state[last + name].zero_()
    state[f"{last}norm2.weight"].fill_(1)
    return dict(state)


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("mae_large_layer18_distill_unip_small_100ep_infmix.pth", 16),
        ("ibot_large_layer21_distill_unip_small_100ep_infmix.pth", 16),
    ],
)
def test_last_heads_of_unip_stand_in_the_arguments_or_the_name(name: str, heads: int, tmp_path: Path) -> None:
    arguments = {"model": untrained_tail(), "args": Namespace(last_heads=8)}
    assert opened(save(tmp_path / "a.pth", arguments)).heads == (HEADS, 8)
    assert opened(save(tmp_path / "b.pth", {**arguments, "args": {"last_heads": 8}})).heads == (HEADS, 8)
    assert opened(save(tmp_path / name, {"model": untrained_tail()})).heads == (HEADS, heads)
    assert opened(tmp_path / name, last_heads=2).heads == (HEADS, 2)


def test_unip_weights_without_the_teachers_heads_ask_for_them(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoint-99.pth", {"model": untrained_tail()})
    with pytest.raises(UsageError, match=r"last block's heads do not stand.*a file of UNIP.*--last-heads N \(16 for"):
        opened(path)
    assert opened(path, last_heads=16).origin.kind == "UNIP"


@pytest.mark.parametrize("name", ["attn.proj.bias", "mlp.fc2.bias", "norm2.weight", "attn.qkv.bias"])
def test_negative_control_a_trained_tail_is_not_unip(name: str, tmp_path: Path) -> None:
    state = untrained_tail()
    state[f"blocks.{DEPTH - 1}.{name}"][-1] = 0.1
    assert opened(save(tmp_path / "x.pth", {"model": state})).origin.kind == "MAE"


# Nothing less than the whole


@pytest.mark.parametrize("name", [*made.dino()[1]])
def test_negative_control_each_tensor_must_be_there(name: str, tmp_path: Path) -> None:
    state = made.dino()[1]
    del state[name]
    message = refused(save(tmp_path / "x.pth", state))
    told = {
        "patch_embed.proj.weight": "holds no plain ViT",
        "cls_token": "17 positions, 0 of them CLS",
        "pos_embed": "no position table",
        "blocks.0.attn.qkv.bias": "unexpected blocks.1.attn.qkv.bias",
    }
    assert told.get(name, f"missing {name}") in message


def test_a_missing_tensor_is_told_with_the_coverage(tmp_path: Path) -> None:
    state = made.dino()[1]
    count = len(state)
    del state["blocks.1.mlp.fc2.weight"]
    message = refused(save(tmp_path / "x.pth", state))
    assert f"cover {100 * (count - 1) / count:.1f} % of a plain ViT, with 1 faults" in message
    assert "(missing blocks.1.mlp.fc2.weight)" in message


@pytest.mark.parametrize(
    "name",
    [
        *("blocks.0.attn.relative_position_bias_table", "blocks.1.adaptmlp.scale", "norm_pre.weight"),
        *("patch_embed.norm.bias", "rel_pos_bias.relative_position_bias_table", "rope.freqs", "pos_embed_cls"),
    ],
)
def test_negative_control_a_part_that_changes_the_tokens_is_refused(name: str, tmp_path: Path) -> None:
    state = {**made.dino()[1], name: torch.zeros(3, 4)}
    assert f"unexpected {name}" in refused(save(tmp_path / "x.pth", state))


def test_negative_control_another_shape(tmp_path: Path) -> None:
    state = made.dino()[1]
    state["blocks.1.mlp.fc1.weight"] = torch.zeros(8, WIDTH)
    assert "blocks.1.mlp.fc1.weight has shape 8 x 64 instead of 256 x 64" in refused(save(tmp_path / "x.pth", state))


def test_negative_control_a_position_table_of_no_square(tmp_path: Path) -> None:
    state = made.dino()[1]
    state["pos_embed"] = torch.zeros(1, 16, WIDTH)
    assert opened(save(tmp_path / "x.pth", state)).vit.no_embed_class  # as DeiT III: 16 patches, none for CLS
    state["pos_embed"] = torch.zeros(1, 15, WIDTH)
    assert "15 positions, 1 of them CLS and registers" in refused(save(tmp_path / "x.pth", state))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"conv1.weight": torch.zeros(3, 3, 7, 7), "bn1.weight": torch.zeros(3)}, "it holds conv1.weight, bn1.weight"),
        ({"model": [1, 2], "optimizer": {}}, "it holds model, optimizer"),
        ({"model": {"patch_embed.proj.weight": "no tensor"}}, "it holds model"),
        ({}, "it holds nothing"),
        ([torch.zeros(2)], "it holds one list"),
        (torch.zeros(2), "it holds one Tensor"),
    ],
)
def test_negative_control_no_vit_in_the_file(content: Any, told: str, tmp_path: Path) -> None:
    assert told in refused(save(tmp_path / "x.pth", content))


def test_two_encoders_of_which_none_is_preferred(tmp_path: Path) -> None:
    state = made.dino()[1]
    path = save(tmp_path / "x.pth", {"left": state, "right": made.under("vision.", state)})
    assert "more than one ViT" in (message := refused(path)) and "(left, right.vision)" in message


@pytest.mark.parametrize("name", ["ibot", "ibot_full", "dino_full"])
def test_negative_control_ibot_is_not_a_random_teacher(name: str, tmp_path: Path) -> None:
    """The reference loads the raw file, not strictly: every name misses and the teacher stays random, in silence."""
    vit, content = FORMATS[name][0]()
    names = {str(key) for key in content}
    assert not names & set(vit.state_dict()), "read as a flat file, nothing of it is the encoder"
    again = [opened(save(tmp_path / "x.pth", content)) for _ in range(2)]
    for encoder in again:
        assert all(torch.equal(value, encoder.vit.state_dict()[key]) for key, value in vit.state_dict().items())


WORDS = st.lists(st.sampled_from(["module", "backbone", "encoder", "model", "net", "teacher", "a_b"]), max_size=3)


@settings(max_examples=40, deadline=None)
@given(containers=WORDS, prefix=WORDS)
def test_the_encoder_is_found_under_any_container_and_prefix(containers: list[str], prefix: list[str]) -> None:
    state = made.dino()[1]
    content: Any = made.under("".join(f"{word}." for word in prefix), state) | made.noise("head.weight")
    for word in reversed(containers):
        content = {word: content, "epoch": 3, "optimizer": {"state": {0: torch.zeros(2)}}}
    found = formats.find(files.File(Path("x.pth"), "", content))
    assert found.left_out == ("head.weight",)
    assert found.tensors.keys() == state.keys()
    assert all(torch.equal(found.tensors[name], value) for name, value in state.items())


# Files


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80), start=st.sampled_from([b"", b"\x80\x02", b"\x10" + bytes(7) + b"{", b"PK\x03\x04"]))
def test_any_bytes_are_a_checkpoint_or_told_to_be_none(data: bytes, start: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(start + data)
    try:
        content = files.read(tmp_path / "x.pth").content
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(content, dict)


class Program:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_negative_control_a_program_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    content = {**made.dino()[1], "args": Program(f"touch {mark}")}
    message = refused(save(tmp_path / "x.pth", content, _use_new_zipfile_serialization=zipped))
    assert "more than tensors and plain values" in message and "asks to run posix.system" in message
    assert "weights_only" not in message
    assert not mark.exists()


@pytest.mark.parametrize(("value", "told"), [(Path("out"), "pathlib"), (np.float64(1), "numpy")])
def test_other_classes_are_refused_by_name(value: Any, told: str, tmp_path: Path) -> None:
    message = refused(save(tmp_path / "x.pth", {"model": made.dino()[1], "args": Namespace(out=value)}))
    assert f"asks to run {told}" in message


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_a_truncated_file_is_refused_wherever_it_ends(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if kind == "safetensors":
        path.write_bytes(safetensors.torch.save(made.dino()[1]))
    else:
        save(path, made.dino()[1], _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in (1, 9, 100, len(data) - 1, *rng.integers(10, len(data), 12).tolist()):
        path.write_bytes(data[:length])
        assert "damaged or no checkpoint" in (message := refused(path))
        assert "fetch it again" in message and "weights_only" not in message


@pytest.mark.parametrize("data", [b"a line of text\n", b"\x89PNG\r\n\x1a\n" + bytes(64), b"PK\x03\x04" + bytes(90)])
def test_a_file_that_is_no_checkpoint(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(data)
    assert "damaged or no checkpoint" in refused(tmp_path / "x.pth")


def test_an_empty_file_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(b"")
    assert "The file of weights is empty" in refused(path)
    with pytest.raises(WeightsError, match="Is a directory"):
        files.read(tmp_path)


# The reference's own numbers


@torch.no_grad()
def logits(encoder: Encoder, images: np.ndarray, layer: int) -> torch.Tensor:
    tokens = embed(encoder.vit, torch.from_numpy(images))
    chain = blocks(encoder.vit)
    for block in chain[: layer - 1]:
        tokens = block(tokens)
    query, key = query_key(chain[layer - 1], tokens)
    return query @ key.transpose(-2, -1)


def test_golden_teacher_and_student_read_from_files_give_the_references_logits(tmp_path: Path) -> None:
    data = golden.load("unip_kd")
    states = {
        name: {key.removeprefix(f"weights/{name}/"): torch.from_numpy(value) for key, value in data.items()
               if key.startswith(f"weights/{name}/")}
        for name in ("teacher", "student")
    }  # fmt: skip
    teacher = opened(save(tmp_path / "mae.pth", {"model": states["teacher"]}), heads=8)
    unip = {"model": states["student"], "args": Namespace(last_heads=8)}
    student = opened(save(tmp_path / "unip.pth", unip), heads=4)
    assert (teacher.origin.kind, student.origin.kind) == ("MAE", "UNIP")
    assert (teacher.heads, student.heads) == ((8, 8, 8), (4, 4, 8))
    for encoder, layer, name in ((teacher, 2, "teacher_logits"), (student, 3, "student_logits")):
        np.testing.assert_allclose(logits(encoder, data["images"], layer).numpy(), data[name], atol=5e-5, rtol=0)
