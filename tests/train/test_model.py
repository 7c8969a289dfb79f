"""The model: sizes, shapes, gradients, cost, loss, and batch norm over ranks."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training import MICRO, free_port

from edgeunip.errors import UsageError
from edgeunip.train import segmentor
from edgeunip.train.fit import class_weights
from edgeunip.train.norm import BatchNorm2d
from edgeunip.train.optim import layer_id, parameter_groups, poly_lr
from edgeunip.train.segmentor import SegmentationTask, cross_entropy
from edgeunip.train.vit import SIZES, Backbone, ViTSize

UNIP = {"tiny": 5_524_416, "small": 21_665_664, "base": 85_798_656}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", list(SIZES))
def test_parameter_counts(name: str) -> None:
    """UNIP's figures count three channels, 197 positions and a final norm; LayerScale is fine-tuning's own."""
    size = SIZES[name]
    with torch.device("meta"):
        model = Backbone(size, (14, 14))
    dim, depth = size.dim, size.depth
    block = 12 * dim**2 + 13 * dim  # qkv, proj, two layers of the MLP, two norms
    reference = 3 * 256 * dim + dim + dim + 197 * dim + depth * block + 2 * dim
    if name in UNIP:
        assert reference == UNIP[name]
    gray, no_final_norm, layer_scale = -2 * 256 * dim, -2 * dim, 2 * depth * dim
    assert parameters(model) == reference + gray + no_final_norm + layer_scale


def micro(head: str, grid: tuple[int, int] = (4, 5), classes: int = 3, size: ViTSize = MICRO) -> Any:
    torch.manual_seed(0)
    return segmentor.build(Backbone(size, grid), head, classes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(64, 80), (240, 320), (48, 16), (16, 16), (112, 144)])
@pytest.mark.parametrize("head", ["light", "uper"])
def test_logits_are_a_quarter_of_the_picture(head: str, height: int, width: int) -> None:
    """At odd multiples of 16, too, and at other sizes than the position table's."""
    if head == "uper" and min(height, width) < 32:
        pytest.skip("UPerNet halves the map of the last layer")
    model = micro(head).eval()
    logits = model(torch.randn(2, 1, height, width))
    assert logits.shape == (2, 3, height // 4, width // 4)
    assert logits.isfinite().all()


@pytest.mark.parametrize("head", ["light", "uper"])
def test_every_parameter_learns(head: str) -> None:
    """Every single one: the position table and the CLS token are trained as in the reference."""
    task = SegmentationTask(micro(head), torch.ones(3), 255)
    labels = torch.randint(0, 3, (2, 64, 80))
    task(torch.randn(2, 1, 64, 80), labels).backward()
    without = [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(p.grad.isfinite().all() for p in task.parameters() if p.grad is not None)


def test_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(UsageError, match=r"^5 heads do not divide the width 32$"):
        Backbone(ViTSize(32, 2, 2, 5), (2, 2))


def test_one_seed_one_model() -> None:
    first, second = micro("uper").state_dict(), micro("uper").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# Cost


def macs(model: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers, attention's matrix products left out."""
    total = 0

    def count(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.ConvTranspose2d):  # of its input's pixels each makes all outputs of a window
            total += output.numel() // (layer.stride[0] * layer.stride[1]) * layer.weight[:, 0].numel()
        elif isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()
        else:
            total += output.numel() * layer.in_features  # type: ignore[operator]

    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(count)
    model(*inputs)
    return total


def meta_model(size: str, head: str, grid: tuple[int, int], classes: int) -> Any:
    with torch.device("meta"):
        return segmentor.build(Backbone(SIZES[size], grid), head, classes).eval()  # type: ignore[arg-type]


def test_cost_of_the_reference() -> None:
    """UNIP-S with UPerNet at 512 x 512 and 21 classes: 146.2 GMACs (three channels would add 0.2)."""
    model = meta_model("small", "uper", (32, 32), 21)
    assert macs(model, torch.empty(1, 1, 512, 512, device="meta")) / 1e9 == pytest.approx(146.2, rel=0.005)


def test_the_light_head_is_light() -> None:
    model = meta_model("tiny", "light", (30, 40), 21)
    image = torch.empty(1, 1, 480, 640, device="meta")
    attention = 12 * 2 * (30 * 40 + 1) ** 2 * 192  # queries times keys, weights times values, in 12 blocks
    backbone = macs(model.backbone, image) + attention
    head = macs(model.head, torch.empty(1, 192, 30, 40, device="meta"), image)
    print(f"ViT-tiny {backbone / 1e9:.2f} GMACs, light head {head / 1e9:.2f}: {head / backbone:.1%}")
    assert head < 0.1 * backbone


def test_the_light_head_beside_upernet() -> None:
    """Negative control of the bound: UPerNet at the same width is several times the backbone."""
    model = meta_model("tiny", "uper", (30, 40), 21)
    image = torch.empty(1, 1, 480, 640, device="meta")
    assert macs(model, image) > 4 * macs(meta_model("tiny", "uper", (30, 40), 21).backbone, image)


# Loss


def test_cross_entropy_by_hand() -> None:
    """Mean over the weights of the valid pixels, in float64 arithmetic of numpy."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 4, 6, 8)), rng.choice([0, 1, 2, 3, 255], (2, 6, 8))
    weights = np.array([0.5, 1.0, 2.0, 0.0])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    batch, row, column = np.nonzero(labels != 255)
    truth = labels[batch, row, column]
    expected = -(weights[truth] * log_p[batch, truth, row, column]).sum() / weights[truth].sum()
    found = cross_entropy(torch.tensor(logits), torch.tensor(labels), torch.tensor(weights).float(), 255)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert float(found) == pytest.approx(
        float(F.cross_entropy(torch.tensor(logits).float(), torch.tensor(labels), torch.tensor(weights).float(),
                              ignore_index=255)), rel=1e-6)  # fmt: skip


def test_cross_entropy_of_ignored_pixels_alone() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 16, 16), 255), torch.ones(3), 255)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and not logits.grad.any()


def test_ignored_pixels_get_no_gradient() -> None:
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[:, :, 4:] = 255
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    cross_entropy(logits, labels, torch.ones(3), 255).backward()
    assert logits.grad is not None
    assert not logits.grad[..., 4:].any()
    assert logits.grad[..., :4].any()


def test_class_weights() -> None:
    np.testing.assert_allclose(class_weights([900, 90, 10], 0), [1, 1, 1])
    weights = class_weights([900, 90, 10], 0.5).numpy()
    share = np.array([0.9, 0.09, 0.01])
    np.testing.assert_allclose(weights / weights[0], (share[0] / share) ** 0.5, rtol=1e-6)
    assert (weights * share).sum() == pytest.approx(1)
    np.testing.assert_allclose(class_weights([500, 0, 500], 0.3), [1, 0, 1])
    assert class_weights([10**12, 1], 0.3).isfinite().all()


# Optimiser


def test_layer_decay() -> None:
    model = micro("light")
    groups = parameter_groups(model, 2, weight_decay=0.05, layer_decay=0.5)
    of = {name: group for group in groups for name in group["names"]}
    assert of.keys() == dict(model.named_parameters()).keys()
    assert of["backbone.vit.pos_embed"]["lr_scale"] == 0.5**3
    assert of["backbone.vit.blocks.0.attn.qkv.weight"]["lr_scale"] == 0.5**2
    assert of["backbone.vit.blocks.1.attn.qkv.weight"]["lr_scale"] == 0.5
    assert of["head.classify.weight"]["lr_scale"] == 1
    assert of["head.classify.weight"]["weight_decay"] == 0.05
    assert of["head.classify.bias"]["weight_decay"] == 0
    assert of["backbone.vit.blocks.0.ls1.gamma"]["weight_decay"] == 0
    assert layer_id("head.blocks_of_something", 12) == 13
    model.backbone.requires_grad_(False)
    frozen = parameter_groups(model, 2, weight_decay=0.05, layer_decay=0.5)
    assert all(name.startswith("head.") for group in frozen for name in group["names"])


def test_schedule() -> None:
    rates = [poly_lr(step, base=2.0, steps=100, warmup=10) for step in range(100)]
    assert rates[0] == pytest.approx(2e-6)
    assert rates[10] == pytest.approx(1.8)
    assert max(rates) == rates[10]
    assert rates[99] == pytest.approx(0.02)
    assert poly_lr(0, base=2.0, steps=10, warmup=0) == 2.0


# Batch norm over ranks

RANKS, CHANNELS = 2, 5


def batch(offset: float = 3.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(4, CHANNELS, 3, 4) * 2 + offset, torch.randn(4, CHANNELS, 3, 4)


def normalise(norm: nn.Module, images: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """One training step's worth of batch norm: output, gradients, running statistics."""
    images = images.clone().requires_grad_()
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, CHANNELS))  # type: ignore[operator, union-attr]
        norm.bias.copy_(torch.linspace(-1, 1, CHANNELS))  # type: ignore[operator, union-attr]
    output = norm(images)
    output.backward(gradient)
    assert images.grad is not None
    gradients = {f"grad/{name}": parameter.grad for name, parameter in norm.named_parameters()}
    found = {"output": output, "grad": images.grad, **gradients, **dict(norm.named_buffers())}
    return {name: value.detach().clone() for name, value in found.items() if value is not None}


def rank_main(rank: int, port: int, plain: bool, offset: float, answers: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    images, gradient = (part.chunk(RANKS)[rank] for part in batch(offset))
    found = normalise((nn.BatchNorm2d if plain else BatchNorm2d)(CHANNELS), images, gradient)
    answers.put((rank, {name: value.numpy() for name, value in found.items()}))
    torch.distributed.destroy_process_group()


def on_two_ranks(*, plain: bool, offset: float = 3.0) -> dict[str, np.ndarray]:
    """What one rank with the whole batch would find, put together from two ranks."""
    context = multiprocessing.get_context("fork")
    answers, port = context.Queue(), free_port()
    ranks = [context.Process(target=rank_main, args=(rank, port, plain, offset, answers)) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    found = dict(answers.get(timeout=60) for _ in ranks)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    assert all(np.array_equal(found[0][name], found[1][name]) for name in ("running_mean", "running_var")) or plain
    joined = {name: np.concatenate([found[0][name], found[1][name]]) for name in ("output", "grad")}
    summed = {name: found[0][name] + found[1][name] for name in found[0] if name.startswith("grad/")}
    return {**found[0], **joined, **summed}


def test_batch_norm_over_two_ranks() -> None:
    expected = normalise(nn.BatchNorm2d(CHANNELS), *batch())
    found = on_two_ranks(plain=False)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


def test_plain_batch_norm_over_two_ranks_differs() -> None:
    """Negative control."""
    expected = normalise(nn.BatchNorm2d(CHANNELS), *batch())
    found = on_two_ranks(plain=True)
    for name in ("output", "grad", "running_mean", "running_var", "grad/weight"):
        assert np.abs(found[name] - expected[name].numpy()).max() > 1e-3, name


def test_batch_norm_of_a_large_mean() -> None:
    """500 standard deviations from zero the variance is still right to 0.1 %; in single precision it is not."""
    images, _ = batch(offset=1000.0)
    found = on_two_ranks(plain=False, offset=1000.0)
    exact = images.double().var((0, 2, 3), unbiased=True)
    np.testing.assert_allclose(found["running_var"], 0.9 + 0.1 * exact, rtol=1e-3)
    naive = images.square().mean((0, 2, 3)) - images.mean((0, 2, 3)).square()
    assert ((naive - exact).abs() > 0.01 * exact).any()


def test_batch_norm_on_one_rank_is_torchs() -> None:
    ours, theirs = (normalise(kind(CHANNELS), *batch()) for kind in (BatchNorm2d, nn.BatchNorm2d))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("predict", [lambda m, x: m(x), lambda m, x: m.training_logits(x)[0][0]])
def test_eval_is_batch_independent(predict: Callable[[Any, Tensor], Tensor]) -> None:
    model = micro("light").eval()
    images = torch.randn(3, 1, 64, 80)
    with torch.inference_mode():
        whole = predict(model, images)
        single = torch.cat([predict(model, image[None]) for image in images])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)
    assert math.isfinite(float(whole.sum()))
