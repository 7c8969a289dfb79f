"""The convolutional students: shapes, cost, gradients, what their recipe refuses, and a whole training run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training import recipe

from edgeunip.classes import Classes
from edgeunip.errors import EdgeunipError, RunError, UsageError
from edgeunip.train import conv, fit
from edgeunip.train import run as runs
from edgeunip.train.cost import cost
from edgeunip.train.datasets import DataSet
from edgeunip.train.norm import BatchNorm2d
from edgeunip.train.optim import parameter_groups
from edgeunip.train.public.open import open_encoder
from edgeunip.train.recipe import Recipe
from edgeunip.train.segmentor import SegmentationTask
from edgeunip.train.settings import override

THREE = Classes.from_json({"classes": [{"name": name, "rgb": [0, 0, 0]} for name in "abc"]})


def model(name: str = "edge-xs", **values: Any) -> conv.ConvSegmentor:
    torch.manual_seed(0)
    rates = {"channels": 1, "drop_path": 0.0, "dropout": 0.0, **values}
    return conv.build(conv.CONV_SIZES[name], 3, **rates)


@pytest.mark.parametrize("name", list(conv.CONV_SIZES))
@pytest.mark.parametrize(("height", "width"), [(64, 96), (48, 80), (16, 112), (16, 16)])
def test_logits_are_a_quarter_of_the_picture(name: str, height: int, width: int) -> None:
    """At odd multiples of 16 too, where the map at 1/32 does not come out even."""
    network = model(name).eval()
    images = torch.randn(2, 1, height, width)
    with torch.no_grad():
        logits = network(images)
        ((trained, weight),), fused = network.taught(images)
    assert logits.shape == (2, 3, height // 4, width // 4)
    assert logits.isfinite().all()
    assert fused.shape == (2, network.map_dim, height // 16, width // 16)
    assert weight == 1.0
    torch.testing.assert_close(trained, logits)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"), [("edge-s", (1.3e6, 1.6e6), (1.0, 1.6)), ("edge-xs", (0.35e6, 0.5e6), (0.3, 0.5))]
)
def test_cost(name: str, parameters: tuple[float, float], gmacs: tuple[float, float]) -> None:
    at = Recipe(size=name, height=480, width=640)  # type: ignore[arg-type]
    found = cost(at, THREE)
    assert parameters[0] < found.parameters < parameters[1]
    assert gmacs[0] < found.macs / 1e9 < gmacs[1]
    assert found.attention_macs == 0
    tiny = cost(Recipe(size="tiny", last_heads=16, height=480, width=640, crop_height=480, crop_width=640), THREE)
    assert found.macs < 0.1 * (tiny.macs + tiny.attention_macs)


def test_no_map_at_a_quarter_is_wider_than_64() -> None:
    network = model("edge-s").eval()
    widths: list[int] = []

    def note(_: Any, __: Any, output: torch.Tensor) -> None:
        if output.shape[-2:] == (24, 32):
            widths.append(output.shape[1])

    for layer in network.head.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(note)
    network(torch.zeros(1, 1, 96, 128))
    assert widths
    assert max(widths) <= 64


def test_every_parameter_learns_and_every_norm_spans_the_ranks() -> None:
    network = model(drop_path=0.1, dropout=0.1)
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert len(norms) > 30
    assert all(type(part) is BatchNorm2d for part in norms)
    task = SegmentationTask(network, torch.ones(3), 255)
    task(torch.randn(2, 1, 64, 96), torch.randint(0, 3, (2, 64, 96))).backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_learning_rates_decay_by_stage() -> None:
    network = model()
    groups = parameter_groups(network, network.backbone.depth, weight_decay=0.05, layer_decay=0.5)
    by_name = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert by_name["backbone.features.conv_stem.weight"] == 0.5**6
    assert by_name["backbone.features.bn1.0.weight"] == 0.5**6
    assert by_name["backbone.features.blocks.0.0.conv.weight"] == 0.5**5
    assert by_name["backbone.features.blocks.4.0.conv.weight"] == 0.5
    assert by_name["head.classify.weight"] == 1.0


@pytest.mark.parametrize(
    ("key", "value"), [("init", "unip-small"), ("head", "uper"), ("head", "linear"), ("last_heads", 3)]
)
def test_what_belongs_to_a_vit_is_refused(key: str, value: object) -> None:
    wanted = f"^The recipe's {key} cannot be {value!r}. The size edge-s is convolutional: leave {key} out.$"
    with pytest.raises(UsageError, match=wanted):
        override(Recipe(), {"size": "edge-s", key: value})


def test_a_run_trains_and_is_read_back(data: DataSet, tmp_path: Path) -> None:
    """From scratch, through the loop that trains ViTs; its backbone is no encoder to start from or to probe."""
    asked = recipe(size="edge-xs", steps=4, batch=2, checkpoint_every=2, evaluate_every=4)
    run = fit.train(asked, data, tmp_path / "run")
    assert (run.recipe.last_heads, run.recipe.layers) == (0, "")
    assert isinstance(run.model(), conv.ConvSegmentor)
    assert fit.ensure(asked, data, run.path).path == run.path
    (score,) = runs.score(run, data, "test")
    assert 0 <= score.miou <= 1
    with pytest.raises(RunError, match=r"^The run holds no ViT: .*run \(its size is edge-xs\)$"):
        open_encoder(str(run.path), say=print)


def test_an_encoder_cannot_start_it(data: DataSet) -> None:
    with pytest.raises(EdgeunipError, match="leave init out"):
        fit.train(recipe(size="edge-s", init="unip-small"), data)
