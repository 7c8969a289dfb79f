"""Whole segmentors, untrained, through the exporter, the quantiser, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, checker
from qdq_graphs import attention, constants, kinds, pictures

from edgeunip.classes import Classes
from edgeunip.compress import graph
from edgeunip.compress.qdq import observe, rules
from edgeunip.compress.qdq.layers import end_layers, find_layers
from edgeunip.compress.qdq.quantise import Options, Quantised, apply, calibrate, quantise
from edgeunip.compress.qdq.ranges import METHODS
from edgeunip.compress.qdq.sensitivity import noise, sensitivity
from edgeunip.compress.qdq.smooth import smoothable
from edgeunip.errors import DataError, ExportError, UsageError
from edgeunip.train import segmentor
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run
from edgeunip.train.vit import Backbone, ViTSize

SIZE = (64, 64)
# What int8 may cost these untrained models against float (logits, dB; share of pixels of the same class), and how near
# two engines that round as written come to each other.
FLOAT_DB, AGREEMENT, ENGINES_DB = 25.0, 0.95, 40.0


class Conv(torch.nn.Module):
    """A convolutional student in small: stem, depthwise and pointwise layers, a transposed convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3, 4, 1), torch.nn.ReLU())
        self.depthwise = torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, 2, 1, groups=16), torch.nn.ReLU())
        self.pointwise = torch.nn.Sequential(torch.nn.Conv2d(16, 32, 1), torch.nn.Hardswish())
        self.up = torch.nn.ConvTranspose2d(32, 16, 2, 2, groups=2)
        self.classify = torch.nn.Conv2d(16, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        stem = self.backbone(images)
        logits: torch.Tensor = self.classify(stem + self.up(self.pointwise(self.depthwise(stem))))
        return logits


def export(kind: str) -> ModelProto:
    torch.manual_seed(0)
    backbone = Backbone(ViTSize(dim=32, depth=2, heads=2, last_heads=4), (4, 4))
    model = Conv() if kind == "conv" else segmentor.build(backbone, kind, 3)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    recipe = Recipe(height=SIZE[0], width=SIZE[1], mean=128.0, std=50.0)
    classes = Classes(("a", "b", "c"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    return graph.to_onnx(Run(Path("run"), recipe, classes, None, {}), model.eval())  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["light", "uper", "conv"])
def model(request: pytest.FixtureRequest) -> ModelProto:
    return export(request.param)


@pytest.fixture(scope="module")
def light() -> ModelProto:
    return export("light")


@pytest.fixture(scope="module")
def quantised(model: ModelProto) -> Quantised:
    return quantise(model, scenes(), Options(range="max"))


def scenes(count: int = 6, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Pictures with structure: a gradient, two boxes, noise."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        picture = np.linspace(20, 120, SIZE[1])[None] + rng.normal(0, 8, SIZE)
        for _ in range(2):
            top, left = rng.integers(0, 40, 2)
            picture[top : top + 20, left : left + 20] += 90
        made.append(picture.clip(0, 255).astype(np.uint8))
    return made


def openvino_logits(model: ModelProto, shown: list[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """Run a graph in OpenVINO, Q/DQ as written.

    Its int8 kernels are left out: on processors without VNNI their 16-bit sums saturate, and a graph that both engines
    agree on at 60 dB comes out at 3 to 20 dB (AMD EPYC with AVX2, OpenVINO 2026.4).
    """
    options = {"INFERENCE_NUM_THREADS": 1, "LP_TRANSFORMS_MODE": False}
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", options)
    return [next(iter(compiled([picture[None, None]]).values())) for picture in shown]


def decibel(wanted: list[NDArray[np.float32]], found: list[NDArray[np.float32]]) -> float:
    power = sum(np.square(value).sum() for value in wanted)
    return float(10 * np.log10(power / sum(np.square(a - b).sum() for a, b in zip(wanted, found, strict=True))))


def agreement(wanted: list[NDArray[np.float32]], found: list[NDArray[np.float32]]) -> float:
    return float(np.mean([a.argmax(1) == b.argmax(1) for a, b in zip(wanted, found, strict=True)]))


def test_it_follows_the_rules_and_is_int8_where_it_says(model: ModelProto, quantised: Quantised) -> None:
    assert rules.violations(quantised.model) == []
    checker.check_model(quantised.model, full_check=True)
    layers = find_layers(model)
    ends = end_layers(model, layers)
    assert {name for name, found in quantised.report.items() if found.precision == "float32"} == ends
    assert all((found.scale is not None) == (found.precision == "int8") for found in quantised.report.values())
    quantised_data = {layer.data for layer in layers if layer.name not in ends}
    weights = len(layers) - len(ends)
    assert kinds(quantised.model).count("QuantizeLinear") == len(quantised_data) + weights


def test_transposed_convolutions_have_one_scale(quantised: Quantised) -> None:
    values = constants(quantised.model)
    found = [layer for layer in quantised.model.graph.node if layer.op_type == "ConvTranspose"]
    for layer in found:
        assert values[layer.input[1].replace("dequantised", "scale")].shape == ()


def test_onnx_runtime_agrees_with_float(model: ModelProto, quantised: Quantised) -> None:
    shown = scenes(seed=9)
    wanted = list(observe.logits(model, shown))
    for fused in (False, True):
        found = list(observe.logits(quantised.model, shown, fused=fused))
        assert decibel(wanted, found) > FLOAT_DB
        assert agreement(wanted, found) > AGREEMENT


def test_openvino_agrees_with_float_and_with_onnx_runtime(model: ModelProto, quantised: Quantised) -> None:
    shown = scenes(seed=9)
    wanted = list(observe.logits(model, shown))
    found = openvino_logits(quantised.model, shown)
    assert found[0].shape == wanted[0].shape == (1, 3, 16, 16)
    assert decibel(wanted, found) > FLOAT_DB
    assert agreement(wanted, found) > AGREEMENT
    assert decibel(list(observe.logits(quantised.model, shown)), found) > ENGINES_DB


def test_same_input_same_bytes(model: ModelProto, quantised: Quantised) -> None:
    again = quantise(model, scenes(), Options(range="max"))
    assert again.model.SerializeToString() == quantised.model.SerializeToString()
    assert again.report == quantised.report


@pytest.mark.parametrize("method, alpha", [*((method, None) for method in METHODS), ("percentile", 0.5)])
def test_every_range_method_stays_near_float(light: ModelProto, method: str, alpha: float | None) -> None:
    made = quantise(light, scenes(), Options(range=method, smooth=alpha))  # type: ignore[arg-type]
    assert noise(made.model, scenes(seed=9), list(observe.logits(light, scenes(seed=9)))) > 20


def test_smoothing_keeps_the_float_segmentor(light: ModelProto) -> None:
    assert len(smoothable(light, find_layers(light))) == 4, "two norms in each of two blocks"
    smoothed = calibrate(light, scenes(2), alpha=0.5).model
    wanted = next(observe.logits(light, scenes(1)))
    found = next(observe.logits(smoothed, scenes(1)))
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
    assert smoothed.SerializeToString() != light.SerializeToString()


def test_layers_kept_in_float(light: ModelProto) -> None:
    kept = frozenset({"backbone.blocks.0.attn.qkv"})
    made = quantise(light, scenes(2), Options(keep_float=kept))
    assert made.report["backbone.blocks.0.attn.qkv"].to_json() == {
        "kind": "MatMul", "precision": "float32", "scale": None
    }  # fmt: skip
    assert made.report["backbone.blocks.1.attn.qkv"].precision == "int8"
    everything = frozenset(made.report)
    with pytest.raises(ExportError, match="No layer is left to quantise"):
        quantise(light, scenes(2), Options(keep_float=everything))


class TestSensitivity:
    def test_each_layer_alone(self) -> None:
        model = attention()
        calibrated = calibrate(model, pictures())
        alone = sensitivity(calibrated, pictures(), Options())
        assert list(alone) == ["attn.q", "attn.k", "attn.v", "attn.proj", "mlp.0", "mlp.2"]
        everything = noise(apply(calibrated, Options()).model, pictures(), list(observe.logits(model, pictures())))
        assert everything < min(alone.values()) < np.inf, "one layer costs less than all"

    def test_a_layer_made_bad_stands_out(self) -> None:
        model = attention()
        calibrated = calibrate(model, pictures())
        bad = calibrated.histograms["a"]
        bad.add(np.array([bad.peak * 1000], np.float32))
        options = Options(range="max")
        alone = sensitivity(calibrated, pictures(), options)
        others = sensitivity(calibrated, pictures(), options, others=True)
        assert min(alone, key=lambda name: alone[name]) == "mlp.2"
        assert max(others, key=lambda name: others[name]) == "mlp.2"


class TestCalibration:
    def test_memory_does_not_grow_with_the_pictures(self, light: ModelProto) -> None:
        tensors = [layer.data for layer in find_layers(light)]
        peaks = []
        for count in (2, 20):
            tracemalloc.start()
            found = observe.histograms(light, scenes(count), tensors)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert all(histogram.counts.nbytes == 8 * 4096 for histogram in found.values())
        assert peaks[1] < 1.3 * peaks[0]

    def test_pictures_that_do_not_fit(self, light: ModelProto) -> None:
        with pytest.raises(DataError, match=r"A picture does not fit.*uint8 \[32, 64\].*uint8 \[64, 64\]"):
            calibrate(light, [np.zeros((32, 64), np.uint8)])
        with pytest.raises(DataError, match="float64"):
            calibrate(light, [np.zeros(SIZE)])  # type: ignore[list-item]
        with pytest.raises(DataError, match="no pictures"):
            calibrate(light, [])

    def test_values_that_are_not_finite_name_the_tensor(self) -> None:
        model = attention()
        for tensor in model.graph.initializer:
            if tensor.name == "bias":
                tensor.raw_data = np.full(16, np.inf, np.float32).tobytes()
        with pytest.raises(ExportError, match="values that are not finite: n"):
            calibrate(model, pictures())


@pytest.mark.parametrize(
    "values, message",
    [
        ({"range": "percentil"}, r"Unknown range method: percentil\. Did you mean percentile\?"),
        ({"percentile": 0.0}, "above 0 and at most 100: 0.0"),
        ({"smooth": 1.5}, "alpha must be from 0 to 1: 1.5"),
    ],
)
def test_options_that_make_no_sense(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**values)  # type: ignore[arg-type]


def test_onnx_runtime_optimises_nothing_away() -> None:
    """Unfused, Q/DQ round in ONNX Runtime: the negative control of every comparison above."""
    made = quantise(attention(), pictures(), Options(range="max")).model
    session = observe.open_session(made)
    assert isinstance(session, onnxruntime.InferenceSession)
    wanted, found = next(observe.logits(attention(), pictures(1))), next(observe.logits(made, pictures(1)))
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
