"""Linear probes: the reference's numbers, a frozen backbone, and layer-wise probes that do not know of each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dataset_trees
import golden
import numpy as np
import pytest
import safetensors.torch
import torch
from encoders import LICENCE, encoder
from golden import ours
from torch import nn
from training import MICRO, ForkServer, digest, log, recipe

from edgeunip import durable, scoring
from edgeunip.compress import export
from edgeunip.errors import UsageError
from edgeunip.train import fit, segmentor
from edgeunip.train import probe as probing
from edgeunip.train import run as runs
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.evaluate import evaluate, evaluate_probes
from edgeunip.train.linear import LinearSegmentor, default_layers, parse_layers
from edgeunip.train.loader import Pictures
from edgeunip.train.optim import parameter_groups
from edgeunip.train.public.own import encoder_bytes
from edgeunip.train.run import TorchModel
from edgeunip.train.segmentor import SegmentationTask
from edgeunip.train.vit import SIZES, Backbone, ViTSize


@pytest.fixture
def encoder_file(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    durable.write_bytes(path, encoder_bytes(encoder(channels=1).vit, licence=LICENCE))
    return path


def asked(file: object, **values: Any) -> Any:
    return recipe(head="linear", init=str(file), clip=0, **values)


# The reference's numbers


def reference() -> tuple[dict[str, np.ndarray], LinearSegmentor]:
    data = golden.load("linear_probe")
    model = LinearSegmentor(Backbone(ViTSize(32, 4, 4, 4), (4, 4), channels=3), 5, ((1, 2, 3, 4),))
    prefix = "weights/backbone/"
    found = {
        ours(key.removeprefix(prefix)): torch.from_numpy(value)
        for key, value in data.items()
        if key.startswith(prefix) and not key.startswith(prefix + "norm.")
    }
    scales = {name: torch.ones_like(v) for name, v in model.state_dict().items() if name.endswith(".gamma")}
    head = {
        f"heads.0.{part}": torch.from_numpy(data[f"weights/decode_head/conv_seg.{part}"]) for part in ("weight", "bias")
    }
    model.load_state_dict({**found, **scales, **head})
    return data, model


@torch.no_grad()
def test_golden_linear_probe() -> None:
    data, model = reference()
    images = torch.from_numpy(data["images"])
    for index, features in enumerate(model.backbone.maps(images, [1, 2, 3, 4])):
        np.testing.assert_allclose(features.numpy(), data[f"features_{index}"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(model(images).numpy(), data["logits"], atol=1e-4, rtol=0)
    other = LinearSegmentor(model.backbone, 5, ((1, 2, 4, 3),))
    other.heads.load_state_dict(model.heads.state_dict())
    assert np.abs(other(images).numpy() - data["logits"]).max() > 1e-2  # negative control: the order counts


@torch.no_grad()
def test_golden_maps_of_several_blocks() -> None:
    """LL-FPN with one block a level: the reference's ``out_indices`` 0, 1, 2, 3."""
    from test_golden import llfpn_model

    data = golden.load("llfpn")
    model = llfpn_model(data, (4, 4))
    maps = model.backbone.maps(torch.from_numpy(data["images"]), [1, 2, 3, 4])
    for level, features in enumerate(maps):
        np.testing.assert_allclose(model.pyramid(features)[level].numpy(), data[f"multi/out_{level}"], atol=1e-4)


# U13


def test_u13_a_pure_convolution_on_frozen_features(tmp_path: Path) -> None:
    """U13: one 1x1 convolution of 4 x 192 channels is all that learns; ViT-tiny on SODA's layout trains."""
    source = soda(tmp_path / "soda")
    model = segmentor.build(Backbone(SIZES["tiny"], (2, 2)), "linear", 21, layers=default_layers(12))
    assert isinstance(model, LinearSegmentor)
    assert model.probes == ((4, 6, 8, 12),)
    learning = {name: tuple(value.shape) for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {"heads.0.weight": (21, 4 * 192, 1, 1), "heads.0.bias": (21,)}
    behind = [module for name, module in model.named_modules() if not name.startswith("backbone")]
    assert {type(module) for module in behind} == {LinearSegmentor, nn.ModuleList, nn.Conv2d}
    values = {"steps": 2, "batch": 2, "height": 32, "width": 32, "last_heads": 16, "focus": 0}
    found = probing.probe(asked("random:vit_tiny_patch16_224", **values), open_data(f"soda:{source}"), tmp_path / "run")
    assert found.run.recipe.layers == "4,6,8,12"
    assert found.run.recipe.size == "tiny"
    start, after = (weights(found.run.path, name) for name in ("checkpoints/step-00000000-*", "weights.safetensors"))
    for name, value in after.items():
        same = torch.equal(value, start[f"model/{name}" if f"model/{name}" in start else name])
        assert same == name.startswith("backbone."), name
    assert 0 <= found.to_json()["test"]["miou"] <= 1
    assert str(found).startswith("layers 4,6,8,12: val mIoU ")


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    (path,) = run.glob(name)
    return safetensors.torch.load_file(path)


def soda(root: Path) -> Path:
    """SODA's layout with every class in every label."""
    shape = (48, 64)
    for stem in range(14):
        image = dataset_trees.counts(stem, shape)
        dataset_trees.put(root / f"JPEGImages/{stem}.jpg", dataset_trees.encode(image, ".jpg"))
        label = dataset_trees.label(*range(21), shape=shape)
        dataset_trees.put(root / f"SegmentationClassPNG/{stem}.png", dataset_trees.encode(label))
    dataset_trees.put(root / "train_infrared.txt", "\n".join(map(str, range(12))).encode())
    dataset_trees.put(root / "test_infrared.txt", b"12\n13\n")
    return root


# The frozen backbone


def test_nothing_flows_into_the_backbone() -> None:
    backbone = Backbone(MICRO, (4, 5), drop_path=0.9)
    model = LinearSegmentor(backbone, 3, ((1,), (1, 2)))
    for _ in range(2):  # as it is made, and after an evaluation
        assert model.training and not backbone.training
        assert not any(module.training for module in backbone.modules())
        model.eval().train()
    images, labels = torch.randn(2, 1, 64, 80), torch.randint(0, 3, (2, 64, 80))
    assert torch.equal(backbone(images), backbone(images))  # no drop path
    features = [logits.grad_fn.next_functions[0][0] for logits, _ in model.training_logits(images)]  # type: ignore[union-attr]
    assert features == [None, None]  # the convolution's input has no history: none of the backbone's memory is kept
    SegmentationTask(model, torch.ones(3), 255)(images, labels).backward()
    assert all(value.grad is None for value in backbone.parameters())
    assert all(value.grad is not None and value.grad.any() for value in model.heads.parameters())
    groups = parameter_groups(model, 2, weight_decay=0.05, layer_decay=0.5)
    assert {name for group in groups for name in group["names"]} == {
        f"heads.{index}.{part}" for index in (0, 1) for part in ("weight", "bias")
    }
    assert {group["lr_scale"] for group in groups} == {1.0}


def test_blocks_behind_the_last_one_read_do_not_run() -> None:
    backbone = Backbone(ViTSize(32, 4, 2, 4), (4, 5))
    ran: list[int] = []
    for index, block in enumerate(backbone.vit.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    LinearSegmentor(backbone, 3, ((2,), (1,)))(torch.randn(1, 1, 64, 80))
    assert ran == [0, 1]


# Layers


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(12, "4,6,8,12"), (24, "8,12,16,24"), (2, "1,2"), (1, "1"), (6, "2,3,4,6"), (32, "11,16,21,32")],
)
def test_default_layers(depth: int, layers: str) -> None:
    assert default_layers(depth) == layers
    assert parse_layers(layers, depth) == (tuple(int(one) for one in layers.split(",")),)


def test_all_layers() -> None:
    assert parse_layers("all", 3) == ((1,), (2,), (3,))
    assert parse_layers("12, 4", 12) == ((12, 4),)


@pytest.mark.parametrize("text", ["0", "13", "4,4", "four", "4,,6", "-1", "1.5", "", "all,1", "²"])
def test_layers_that_are_none(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"^No such layers: .*different numbers from 1 to 12, with commas between, or all"
    ):
        parse_layers(text, 12)


@pytest.mark.usefixtures("micro")
def test_layers_and_clip_are_checked_before_anything_is_written(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such layers: 3"):
        fit.train(recipe(head="linear", layers="3"), data, tmp_path / "run")
    with pytest.raises(UsageError, match="With layers = all clip must be 0"):
        fit.train(recipe(head="linear", layers="all"), data, tmp_path / "run")
    with pytest.raises(UsageError, match=r"The recipe's layers cannot be '1'\. It is the linear head's"):
        recipe(layers="1")
    assert not (tmp_path / "run").exists()


# Layer-wise probing


@pytest.mark.usefixtures("micro")
def test_layerwise_equals_separate_runs(data: DataSet, tmp_path: Path, encoder_file: Path) -> None:
    values = {"lr": 0.01, "seed": 3}
    joint = probing.probe(asked(encoder_file, layers="all", **values), data, tmp_path / "all")
    for index, layer in enumerate((1, 2)):
        alone = probing.probe(asked(encoder_file, layers=str(layer), **values), data, tmp_path / str(layer))
        mine, theirs = (weights(found.run.path, "weights.safetensors") for found in (alone, joint))
        for part in ("weight", "bias"):
            one, other = mine[f"heads.0.{part}"], theirs[f"heads.{index}.{part}"]
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
            assert one.abs().max() > 0.01
        for split in ("val", "test"):
            assert joint.scores[split][index].miou == pytest.approx(alone.scores[split][0].miou, abs=1e-9)
    first, second = joint.scores["val"]
    assert first.miou != second.miou


@pytest.mark.usefixtures("micro")
def test_what_a_layerwise_probe_leaves(data: DataSet, tmp_path: Path, encoder_file: Path) -> None:
    out = tmp_path / "run"
    found = probing.probe(asked(encoder_file, layers="all"), data, out)
    report = json.loads((out / "report/layers.json").read_text())
    assert [one["layer"] for one in report["val"]] == [one["layer"] for one in report["test"]] == [1, 2]
    assert report["test"][1]["miou"] == found.scores["test"][1].miou
    assert found.to_json() == {"run": str(out), "layers": "all", **report}
    table = (out / "report/layers.md").read_text().splitlines()
    assert table[:2] == ["| layer | val mIoU, % | test mIoU, % |", "|---|---|---|"]
    assert table[3] == f"| 2 | {100 * report['val'][1]['miou']:.2f} | {100 * report['test'][1]['miou']:.2f} |"
    assert (out / "report/layers.png").read_bytes().startswith(b"\x89PNG")
    last = log(out)[-1]["val"]
    assert last["miou"] == max(one["miou"] for one in report["val"])
    with pytest.raises(UsageError) as told:
        scoring.score(out, None, splits=None, split="test", mode="whole")
    assert str(told.value).startswith(f"The run holds 2 probes: {out}. Their scores are in report/layers.json")


@pytest.mark.usefixtures("micro")
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_one_pass_scores_every_probe_as_alone(data: DataSet, mode: Any) -> None:
    """The backbone runs once an image, and each probe's score is what it has alone."""
    torch.manual_seed(0)
    asked_for = fit.resolve(recipe(head="linear", layers="all", clip=0, height=48, width=64), data)
    model = runs.build_model(asked_for, data.classes).eval()
    for value in model.heads.parameters():
        nn.init.normal_(value)
    pictures = Pictures(data, data.split("val"), asked_for.agc_parameters())
    calls: list[int] = []
    model.backbone.vit.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    found = evaluate_probes(TorchModel(model, asked_for), pictures, size=(48, 64), mode=mode, probes=2)
    windows = {"whole": 1, "slide": 2}[mode]
    assert len(calls) == 3 * windows
    for index, score in enumerate(found):
        one = LinearSegmentor(model.backbone, 3, ((index + 1,),)).eval()
        one.heads[0] = model.heads[index]
        alone = evaluate(TorchModel(one, asked_for), pictures, size=(48, 64), mode=mode)
        np.testing.assert_array_equal(alone.confusion, score.confusion)


@pytest.mark.slow
def test_two_ranks_probe_as_one(data_folder: Path, tmp_path: Path, encoder_file: Path, server: ForkServer) -> None:
    """With a start that each rank opens, and a frozen backbone between the ranks."""
    values = {"head": "linear", "layers": "all", "clip": 0, "init": str(encoder_file)}
    for ranks in (1, 2):
        assert server.train(data_folder, tmp_path / str(ranks), values, ranks=ranks) == [0] * ranks, server.read()
    one, two = (weights(tmp_path / name, "weights.safetensors") for name in ("1", "2"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-4)


# As a run


@pytest.mark.usefixtures("micro")
def test_a_probe_is_found_again(
    data: DataSet, tmp_path: Path, encoder_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = probing.probe(asked(encoder_file), data, tmp_path / "run")
    score = scoring.score(tmp_path / "run", None, splits=None, split="test", mode="whole")
    assert score["miou"] == first.scores["test"][0].miou
    before = digest(tmp_path / "run")
    monkeypatch.setattr(fit, "Trainer", None)
    again = probing.probe(asked(encoder_file), data, tmp_path / "run")
    assert again.to_json() == first.to_json()
    assert digest(tmp_path / "run") == before


@pytest.mark.usefixtures("micro")
def test_a_probe_is_no_model_to_export(data: DataSet, tmp_path: Path, encoder_file: Path) -> None:
    run = fit.train(asked(encoder_file, steps=1), data, tmp_path / "run")
    with pytest.raises(UsageError) as told:
        export.export(run, data, tmp_path / "bundle", target="x86-cpu")
    why = "it is a linear probe, a measurement"
    remedy = "Train a model: edgeunip train --init ENCODER."
    assert str(told.value) == f"The run cannot be exported: {run.path} ({why}). {remedy}"
    assert not (tmp_path / "bundle").exists()
