"""Our model against the numbers of the papers' own code."""

from __future__ import annotations

import golden
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeunip.classes import Classes
from edgeunip.train import slide
from edgeunip.train.evaluate import Confusion
from edgeunip.train.heads import AuxiliaryHead, LastLayerPyramid, UPerHead
from edgeunip.train.optim import parameter_groups, poly_lr
from edgeunip.train.position import resize_pos_embed, sincos_pos_embed
from edgeunip.train.segmentor import UPerSegmentor, build, cross_entropy
from edgeunip.train.vit import SIZES, Backbone, ViTSize


def close(ours: Tensor, theirs: np.ndarray, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(np.asarray(theirs)), atol=atol, rtol=rtol)


class LLFPN(nn.Module):
    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = Backbone(ViTSize(48, 4, 4, 4), grid, channels=3)
        self.pyramid = LastLayerPyramid(48)


@pytest.fixture(scope="module")
def llfpn() -> dict[str, np.ndarray]:
    return golden.load("llfpn")


def llfpn_model(data: dict[str, np.ndarray], grid: tuple[int, int]) -> LLFPN:
    model = LLFPN(grid).eval()
    weights = golden.weights(data)
    if grid != (4, 4):
        weights["backbone.vit.pos_embed"] = torch.from_numpy(data["wide/weights/pos_embed"])
    model.load_state_dict(weights)
    return model


@pytest.mark.parametrize("case", ["", "wide/"])
def test_u8_llfpn(llfpn: dict[str, np.ndarray], case: str) -> None:
    images = torch.from_numpy(llfpn[f"{case}images"])
    model = llfpn_model(llfpn, (images.shape[2] // 16, images.shape[3] // 16))
    for level, features in enumerate(model.pyramid(model.backbone(images))):
        close(features, llfpn[f"{case}out_{level}"], atol=1e-4)


def test_llfpn_one_gray_channel_equals_three(llfpn: dict[str, np.ndarray]) -> None:
    """The reference on three equal channels is ours on one, the patch embedding's channels summed (U11)."""
    model = llfpn_model(llfpn, (4, 4))
    folded = Backbone(ViTSize(48, 4, 4, 4), (4, 4), channels=1).eval()
    weights = model.backbone.state_dict()
    weights["vit.patch_embed.proj.weight"] = weights["vit.patch_embed.proj.weight"].sum(1, keepdim=True)
    folded.load_state_dict(weights)
    features = folded(torch.from_numpy(llfpn["gray/images"]))
    for level, ours in enumerate(model.pyramid(features)):
        close(ours, llfpn[f"gray/out_{level}"], atol=1e-4)


def test_last_heads_change_the_attention(llfpn: dict[str, np.ndarray]) -> None:
    """Negative control: the same weights re-split into other heads are another model (U7)."""
    model = llfpn_model(llfpn, (4, 4))
    resplit = Backbone(ViTSize(48, 4, 4, 8), (4, 4), channels=3).eval()
    resplit.load_state_dict(model.backbone.state_dict())
    images = torch.from_numpy(llfpn["images"])
    assert (resplit(images) - model.backbone(images)).abs().max() > 1e-2


@pytest.fixture(scope="module")
def upernet() -> dict[str, np.ndarray]:
    return golden.load("upernet")


@pytest.fixture(scope="module")
def segmentor(upernet: dict[str, np.ndarray]) -> UPerSegmentor:
    model = UPerSegmentor(
        Backbone(ViTSize(32, 2, 4, 4), (4, 4), channels=3),
        LastLayerPyramid(32),
        UPerHead(32, 24, 5),
        AuxiliaryHead(32, 16, 5),
    )
    model.load_state_dict(golden.weights(upernet))
    return model.eval()


def test_u8_upernet_features_and_logits(upernet: dict[str, np.ndarray], segmentor: UPerSegmentor) -> None:
    images = torch.from_numpy(upernet["images"])
    for level, features in enumerate(segmentor.pyramid(segmentor.backbone(images))):
        close(features, upernet[f"features_{level}"], atol=1e-4)
    (decoded, one), (auxiliary, weight) = segmentor.training_logits(images)
    assert (one, weight) == (1.0, 0.4)
    close(decoded, upernet["decode_logits"], atol=2e-4)
    close(auxiliary, upernet["aux_logits"], atol=2e-4)
    close(segmentor(images), upernet["decode_logits"], atol=2e-4)


@pytest.mark.parametrize(("name", "scale"), [("decode", 1.0), ("aux", 0.4)])
def test_losses(upernet: dict[str, np.ndarray], name: str, scale: float) -> None:
    """The reference averages over all pixels; ours over the valid ones, so the ratio is their share."""
    labels = torch.from_numpy(upernet["labels"]).long()
    valid = (labels != 255).float().mean().item()
    assert 0.5 < valid < 1
    loss = cross_entropy(torch.from_numpy(upernet[f"{name}_logits"]), labels, torch.ones(5), 255)
    close(loss * valid * scale, upernet[f"{name}_loss"], atol=0, rtol=2e-5)


def test_u10_upernet_slide(upernet: dict[str, np.ndarray], segmentor: UPerSegmentor) -> None:
    images = torch.from_numpy(upernet["slide/images"])

    def predict(window: Tensor) -> Tensor:
        return nn.functional.interpolate(segmentor(window), size=window.shape[-2:], mode="bilinear")

    logits = slide.average(predict, images, (64, 64), (43, 43))
    close(logits, upernet["slide/logits"], atol=2e-4)
    shape = tuple(int(n) for n in upernet["slide/original_shape"])
    original = nn.functional.interpolate(logits, size=shape, mode="bilinear")
    close(original, upernet["slide/logits_original"], atol=2e-4)
    top = original.topk(2, dim=1).values
    decided = (top[:, 0] - top[:, 1] > 4e-4).numpy()
    assert decided.mean() > 0.99
    assert (original.argmax(1).numpy() == upernet["slide/class_map"])[decided].all()


CASES = [key.removesuffix("/windows") for key in golden.load("slide_inference") if key.endswith("/windows")]


@pytest.mark.parametrize("case", CASES)
def test_u10_slide_windows(case: str) -> None:
    data = golden.load("slide_inference")
    size, crop, stride = case.split("_")
    width, height = (int(n) for n in size.split("x"))
    side, step = int(crop.removeprefix("crop")), int(stride.removeprefix("stride"))
    found = slide.windows((height, width), (side, side), (step, step))
    assert found == [tuple(int(n) for n in row) for row in data[f"{case}/windows"]]

    numbers = iter(range(1, len(found) + 1))

    def answer(window: Tensor) -> Tensor:
        return torch.full((1, 1, *window.shape[-2:]), float(next(numbers)))

    mean = slide.average(answer, torch.zeros(1, 1, height, width), (side, side), (step, step))
    close(mean[0, 0, ::4, ::4], data[f"{case}/average"], atol=1e-6)


def test_sincos() -> None:
    data = golden.load("pos_embed")
    close(sincos_pos_embed(48, (14, 14), dtype=torch.float64)[0], data["sincos_48"], atol=1e-12)
    for dim in (48, 384):
        close(sincos_pos_embed(dim, (14, 14))[0], data[f"sincos_{dim}_float32"], atol=1e-7)


@pytest.mark.parametrize(
    ("table", "key", "grid", "overshoot"),
    [
        ("random_14x14", "resized_random_32x32", (32, 32), 0.0),
        ("random_14x14", "resized_random_10x10", (10, 10), 0.0),
        ("sincos", "resized_sincos_48_32x32", (32, 32), 0.0),
        ("random_14x14", "vit_random_32x32", (32, 32), 0.1),
        ("random_14x14", "vit_random_30x40", (30, 40), 0.1),
    ],
)
def test_position_resize(table: str, key: str, grid: tuple[int, int], overshoot: float) -> None:
    data = golden.load("pos_embed")
    start = sincos_pos_embed(48, (14, 14)) if table == "sincos" else torch.from_numpy(data[table])
    close(resize_pos_embed(start, (14, 14), grid, overshoot=overshoot), data[key], atol=1e-5)


def test_u9_layer_decay_table() -> None:
    """Every parameter of the ViT-S segmentor; ours lacks the backbone's final norm, which nothing reads."""
    data = golden.load("layer_decay")
    model = build(Backbone(SIZES["small"], (32, 32), channels=3), "uper", 21)
    found = {
        name: (group["lr_scale"], group["weight_decay"], tuple(parameter.shape))
        for group in parameter_groups(model, 12, weight_decay=0.05, layer_decay=0.85)
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    wanted = {
        golden.ours(str(name)): (scale, decay, tuple(int(n) for n in str(shape).split("x")))
        for name, scale, decay, shape in zip(
            data["names"], data["lr_scale"], data["weight_decay"], data["shapes"], strict=True
        )
        if not str(name).startswith("backbone.norm.")
    }
    assert found.keys() == wanted.keys()
    for name, (scale, decay, shape) in wanted.items():
        assert found[name][0] == pytest.approx(scale, rel=1e-12), name
        assert found[name][1:] == (decay, shape), name


@pytest.mark.parametrize("name", ["soda", "mfnet", "scut"])
def test_poly_schedule(name: str) -> None:
    data = golden.load("poly_schedule")
    total, warmup = (int(n) for n in data[f"{name}/total_and_warmup"])
    rates = [poly_lr(int(i), base=1e-4, steps=total, warmup=warmup) for i in data[f"{name}/iteration"]]
    np.testing.assert_allclose(rates, data[f"{name}/lr"], rtol=1e-12)


MIOU = sorted({key.split("/")[0] for key in golden.load("miou")})


@pytest.mark.parametrize("case", MIOU)
def test_u10_miou(case: str) -> None:
    data = {key.removeprefix(f"{case}/"): value for key, value in golden.load("miou").items() if key.startswith(case)}
    count = int(data["classes"])
    names = tuple(f"class {index}" for index in range(count))
    confusion = Confusion(Classes(names, ((0, 0, 0),) * count, 255))
    for prediction, truth in zip(data["prediction"], data["truth"], strict=True):
        confusion.add(torch.from_numpy(prediction), torch.from_numpy(truth))
    score = confusion.score()
    np.testing.assert_array_equal(score.confusion, data["confusion"])
    found = [np.nan if value is None else value for value in score.iou.values()]
    np.testing.assert_allclose(found, data["iou"], atol=1e-12)
    assert score.miou == pytest.approx(float(data["miou"]), abs=1e-12)
    assert score.accuracy == pytest.approx(float(data["accuracy"]), abs=1e-12)
    assert score.images == 3
