"""One pass over real files: against timm's own attention, in every size and depth of image, and as the user runs it."""

from __future__ import annotations

import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from dataset_trees import encode, put
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from edgeunip.cli import main
from edgeunip.errors import DataError, UsageError
from edgeunip.train.attention import analysis, maps, measures, pictures, report
from edgeunip.train.attention.analysis import Analysis
from edgeunip.train.attention.choice import Borders
from edgeunip.train.attention.pictures import Preparation
from edgeunip.train.attention.scan import choose_layer
from edgeunip.train.encoder import Encoder, Origin, blocks

THERMAL = Preparation(1, 16, (32, 48))


def make_encoder(channels: int = 1, registers: int = 0, scale: float = 40.0) -> Encoder:
    """Three blocks of two heads at 32 x 48 pixels, their queries and keys large enough for patterns that differ."""
    torch.manual_seed(0)
    vit = VisionTransformer(
        (32, 48), 16, channels, 0, "", embed_dim=24, depth=3, num_heads=2, reg_tokens=registers, fc_norm=False
    )
    with torch.no_grad():
        for block in blocks(vit):
            block.attn.qkv.weight[:48] *= scale
    return Encoder(vit, Origin("small", "untrained", licence="none <needed>"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of 8 and 16 bits, gray and colour, two sizes; one is no image and one is cut short."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(10):
        shape = (48, 64) if index < 6 else (40, 72)
        gray = cv2.GaussianBlur(rng.integers(0, 256, shape).astype(np.uint8), (0, 0), 4)
        image: NDArray[Any] = {1: gray.astype(np.uint16) * 20 + 7000, 2: np.dstack([gray, gray // 2, 255 - gray])}.get(
            index, gray
        )
        put(root / f"set{index % 2}" / f"{index}.png", encode(image))
    put(root / "set0" / "text.png", b"no image")
    put(root / "set1" / "short.png", encode(np.zeros((64, 64), np.uint8))[:-9])
    put(root / "readme.txt", b"no image either")
    return root


def images(count: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))


def timm_attention(vit: VisionTransformer, batch: Tensor) -> list[Tensor]:
    """The attention as timm's own forward computes it, by layer [B, H, T, T]."""
    found: list[Tensor] = []
    handles = []
    for block in blocks(vit):
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_hook(lambda _, given, out: found.append(given[0])))
    with torch.no_grad():
        vit.forward_features(batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(("channels", "registers"), [(1, 0), (3, 4)])
def test_the_measures_are_those_of_timms_own_attention(channels: int, registers: int) -> None:
    encoder, batch = make_encoder(channels, registers), images(3, channels, 32, 48)
    prefix = 1 + registers
    truth = [measures.nmi(one, prefix=prefix).mean(0) for one in timm_attention(encoder.vit, batch)]
    found = analysis.scan(encoder, [batch])
    assert found is not None
    for layer, expected in zip(found.layers, truth, strict=True):
        torch.testing.assert_close(layer.measures.nmi.mean(0), expected, atol=2e-6, rtol=1e-5)
    assert max(float(one.mean()) for one in truth) > 0.05  # patterns worth the comparison
    values = [float(one.mean()) for one in truth]
    choice = choose_layer(encoder, [batch[:2], batch[2:]], target=values[1])
    assert (choice.layer, choice.margin) == (
        2,
        pytest.approx(min(abs(values[1] - values[i]) for i in (0, 2)), abs=1e-5),
    )


def test_gray_three_channels_and_folded_are_one() -> None:
    """Three equal channels through three are what one channel is through the folded embedding."""
    from edgeunip.train.encoder import fold_to_gray

    three, picture = make_encoder(3), np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.uint8)
    batch = pictures.as_tensor([picture], Preparation(3, 16, (32, 48)))
    assert batch.shape == (1, 3, 32, 48)
    before = analysis.scan(three, [batch])
    fold_to_gray(three.vit)
    after = analysis.scan(three, [pictures.as_tensor([picture], THERMAL)])
    assert before and after
    for one, other in zip(before.layers, after.layers, strict=True):
        torch.testing.assert_close(one.measures.nmi, other.measures.nmi, atol=1e-5, rtol=1e-4)


def analysed(folder: Path, encoder: Encoder, size: str | None = None, **values: Any) -> Analysis:
    paths = pictures.find(folder)
    return analysis.analyse(encoder, paths, analysis.preparation(encoder, size), **values)


def test_a_folder(folder: Path) -> None:
    said: list[str] = []
    found = analysed(folder, make_encoder(), say=said.append)
    assert [path.name for path in found.paths] == [f"{i}.png" for i in (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)]
    assert len(said) == len(found.refused) == 2
    assert "text.png" in said[0] and "The image is truncated" in said[1]
    assert [layer.layer for layer in found.layers] == [1, 2, 3]
    for layer in found.layers:
        assert layer.nmi == pytest.approx(np.mean(layer.nmi_heads)) and len(layer.nmi_heads) == 2
        assert 0 < layer.nmi < 1 and 0 < layer.distance_px < 58 and 0 < layer.entropy <= found.even.entropy
        assert len(layer.fourier) == 1 and layer.fourier[0] == 0.0  # a grid two patches high has no other frequency
    assert found.even.entropy == pytest.approx(np.log(6))
    assert "2 more could not be used." in analysis.tell(found)


def test_json(folder: Path) -> None:
    encoder = make_encoder()
    found = analysed(folder, encoder, target=0.2, borders=Borders(0.3, 0.01)).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) is not None
    assert {"layer", "nmi", "distance_px", "pattern"} <= found["layers"][0].keys()
    nearest = min(found["layers"], key=lambda layer: abs(layer["nmi"] - 0.2))
    assert found["chosen"] == nearest["layer"]
    assert found["images"] == 10 and len(found["refused"]) == 2
    assert found["origin"]["licence"] == "none <needed>"
    assert found["borders"] == {"local_above": 0.3, "global_below": 0.01}
    again = analysed(folder, encoder, target=0.2, borders=Borders(0.3, 0.01)).to_json()
    assert again == found


@pytest.mark.parametrize(("size", "grids"), [("native", {(3, 4), (2, 4)}), ("48x64", {(3, 4)}), (None, {(2, 3)})])
def test_sizes(folder: Path, size: str | None, grids: set[tuple[int, int]]) -> None:
    """Pictures of any size: their own in whole patches, one that is named, or the model's."""
    encoder = make_encoder()
    how = analysis.preparation(encoder, size)
    batches = list(pictures.batches(pictures.find(folder), how, lambda path, error: None))
    assert {(batch.shape[-2] // 16, batch.shape[-1] // 16) for batch in batches} == grids
    assert sum(map(len, batches)) == 10
    found = analysed(folder, encoder, size)
    assert found.even.entropy == pytest.approx(np.mean([np.log(r * c) for r, c in grids for _ in range(5)]), abs=0.1)
    assert len(found.layers[0].fourier) == len(found.frequencies) == 1


def test_batches_hold_few_patches() -> None:
    """At a large size one image is a batch: what a block makes of a batch stays bounded too."""
    root = [Path(f"{index}.png") for index in range(4)]
    big = np.zeros((640, 1024), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "read", lambda path, rgb: big)
        found = list(pictures.batches(root, Preparation(1, 16, None), lambda path, error: None))
    assert [tuple(batch.shape) for batch in found] == [(1, 1, 640, 1024)] * 4


def test_reading(folder: Path) -> None:
    deep, colour = pictures.read(folder / "set1" / "1.png"), folder / "set0" / "2.png"
    assert (deep.dtype, deep.shape) == (np.uint8, (48, 64))
    assert deep.min() == 0 and deep.max() == 255  # 16 bits went through the AGC
    image = np.asarray(cv2.imread(str(colour), cv2.IMREAD_COLOR))
    luma = image.astype(float) @ [0.114, 0.587, 0.299]
    assert np.abs(pictures.read(colour) - luma).max() <= 0.51
    np.testing.assert_array_equal(pictures.read(colour, rgb=True), image[..., ::-1])
    plain = pictures.read(folder / "set0" / "0.png", rgb=True)
    assert plain.shape == (48, 64)  # and goes into three channels as three equal ones
    rgb = Preparation(3, 16, None, rgb=True)
    assert pictures.as_tensor([plain], rgb).shape == (1, 3, 48, 64)


def test_cover_keeps_the_aspect_and_the_centre() -> None:
    picture = np.zeros((100, 200), np.uint8)
    picture[:, 90:110] = 255
    found = pictures.cover(picture, 50, 50)
    assert found.shape == (50, 50)
    assert (found[:, 20:30] == 255).all() and (found[:, :19] == 0).all() and (found[:, 31:] == 0).all()
    assert pictures.cover(picture, 160, 32).shape == (160, 32)
    assert pictures.cover(picture, 100, 200) is not None and (pictures.cover(picture, 100, 200) == picture).all()


def test_normalisation() -> None:
    gray = np.full((16, 16), 128, np.uint8)
    thermal = pictures.as_tensor([gray], Preparation(1, 16, None))
    assert float(thermal[0, 0, 0, 0]) == pytest.approx((128 / 255 - 0.3801) / 0.1871)
    imagenet = pictures.as_tensor([gray], Preparation(3, 16, None, "imagenet"))
    expected = [(128 / 255 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    np.testing.assert_allclose(imagenet[0, :, 0, 0], expected, rtol=1e-5)
    one = pictures.as_tensor([gray], Preparation(1, 16, None, "imagenet"))
    assert float(one[0, 0, 0, 0]) == pytest.approx((128 / 255 - 0.449) / 0.226, rel=1e-4)


def test_a_data_sets_labels_are_no_images(data_folder: Path) -> None:
    found = pictures.find(data_folder)
    assert len(found) == 16 and all(path.parent.name == "images" for path in found)


def test_spread_is_even_and_in_order() -> None:
    paths = [Path(f"{index:03d}") for index in range(100)]
    found = pictures.spread(paths, 4)
    assert [path.name for path in found] == ["000", "033", "066", "099"]
    assert pictures.spread(paths, 500) == paths
    assert pictures.spread(paths, 1) == paths[:1]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such folder of images"):
        pictures.find(tmp_path / "none")
    with pytest.raises(DataError, match="No image in the folder"):
        pictures.find(tmp_path)
    with pytest.raises(UsageError, match="At least one image"):
        pictures.spread([Path("a")], 0)
    for wrong in ("640", "axb", "12x", "1x2x3", "-16x16", "²x16"):
        with pytest.raises(UsageError, match="Not an image size"):
            pictures.parse_size(wrong)
    assert pictures.parse_size("480X640") == (480, 640)
    with pytest.raises(UsageError, match="The size must be whole patches of 16 pixels: 30x32"):
        Preparation(1, 16, (30, 32))
    with pytest.raises(UsageError, match=r"Unknown normalisation: thermel\. Did you mean thermal\?"):
        Preparation(1, 16, None, "thermel")
    with pytest.raises(UsageError, match="cannot be given colours"):
        Preparation(1, 16, None, rgb=True)
    put(tmp_path / "tiny.png", encode(np.zeros((8, 99), np.uint8)))
    with pytest.raises(DataError, match=r"None of the 1 images can be used: .*less than a patch of 16"):
        analysed(tmp_path, make_encoder())
    with pytest.raises(DataError, match="no image to choose a layer by: small"):
        choose_layer(make_encoder(), [])


def test_weights_that_are_not_finite(folder: Path) -> None:
    encoder = make_encoder()
    with torch.no_grad():
        blocks(encoder.vit)[1].attn.qkv.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="The attention is not finite: layer 2"):
        analysed(folder, encoder)


def test_maps_are_timms_attention() -> None:
    encoder = make_encoder()
    picture = np.random.default_rng(0).integers(0, 256, (32, 48)).astype(np.uint8)
    truth = timm_attention(encoder.vit, pictures.as_tensor([picture], THERMAL))
    found = maps.attention_maps(encoder, picture, THERMAL, [(0, 0), (1, 2)], [1, 3])
    assert sorted(found) == [1, 3]
    for layer, one in found.items():
        assert (one.queries.shape, one.everyone.shape) == ((2, 2, 2, 3), (2, 3))
        patches = truth[layer - 1][0, :, 1:, 1:]
        patches = patches / patches.sum(-1, keepdim=True)
        np.testing.assert_allclose(one.queries[0], patches[:, 0].reshape(2, 2, 3), atol=1e-6)
        np.testing.assert_allclose(one.queries[1], patches[:, 5].reshape(2, 2, 3), atol=1e-6)
        np.testing.assert_allclose(one.everyone, patches.mean((0, 1)).reshape(2, 3), atol=1e-6)


def test_places_asked_about() -> None:
    picture = np.full((32, 64), 100, np.uint8)
    picture[16:, 32:48], picture[:16, 48:] = 200, 10
    assert maps.places(picture, 16) == {"brightest patch": (1, 2), "darkest patch": (0, 3), "middle": (1, 2)}


class Page(HTMLParser):
    """What a browser would ask the network for, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report(folder: Path, tmp_path: Path) -> None:
    encoder = make_encoder()
    found = analysed(folder, encoder)
    report.write(tmp_path / "page.html", found, encoder)
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.sources and all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(source.startswith("data:") for source in re.findall(r"url\(([^)]*)", text))
    assert "none &lt;needed&gt;" in text and "<needed>" not in text
    assert page.tags.count("svg") == 7
    assert "nan" not in re.sub(r"data:[^\")]*", "", text).lower()
    assert page.tags.count("tr") == 4  # a head and three layers
    assert text.count(f">Layer {found.choice.layer}: ") == report.PICTURES
    layers = len(report.shown_layers(found))
    assert page.tags.count("img") == report.PICTURES * (4 * layers + 2)  # queries and all, then each head
    assert "text.png" in text and "short.png" in text


@pytest.mark.parametrize("layers", [1, 2, 12, 24])
def test_report_of_any_depth(layers: int, folder: Path) -> None:
    vit = VisionTransformer((32, 48), 16, 1, 0, "", embed_dim=8, depth=layers, num_heads=1)
    encoder = Encoder(vit, Origin("deep", "untrained"))
    found = analysis.analyse(encoder, pictures.find(folder)[:1], analysis.preparation(encoder))
    assert found.choice.agreement is None
    shown = report.shown_layers(found)
    assert shown == sorted(set(shown)) and shown[-1] == layers
    assert Page(report.page(found, [])).open == []


def test_page_of_a_model_that_is_not_hybrid_says_so(folder: Path) -> None:
    found = analysed(folder, make_encoder(scale=0.01))
    assert {layer.pattern for layer in found.layers} == {"global"}
    assert "It is global, not hybrid" in analysis.tell(found)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Call the command line as the console script does; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["edgeunip", "analyze", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run(
        monkeypatch, "random:vit_tiny_patch16_224", "--images", folder, "--limit", 3, "--size", "32x48", "--json", "-",
        "--out", tmp_path / "a.html", "--target", 0.2, "--normalise", "imagenet", "--rgb",
    )  # fmt: skip
    told = capfd.readouterr()
    assert code == 0, told.err
    found = json.loads(told.out)
    assert [layer["layer"] for layer in found["layers"]] == list(range(1, 13))
    assert found["preparation"] == {
        "channels": 3, "patch": 16, "size": [32, 48], "normalise": "imagenet", "rgb": True
    }  # fmt: skip
    assert found["choice"]["target"] == 0.2 and found["origin"]["name"] == "random:vit_tiny_patch16_224"
    assert "<title>Attention of random:vit_tiny_patch16_224</title>" in (tmp_path / "a.html").read_text()
    assert "layer     NMI" in told.err


def test_command_refuses_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "random:vit_tiny_patch16_224", "--images", folder, "--local-above", 0.01) == 2
    told = capfd.readouterr()
    assert told.err.splitlines() == [
        "edgeunip: The borders of the patterns must satisfy 0 <= global <= local <= 1: "
        "global below 0.06, local above 0.01"
    ]


def test_real_16_bit_images() -> None:
    place = os.environ.get("EDGEUNIP_DATA")
    if not place:
        pytest.skip("EDGEUNIP_DATA names no folder of real data")
    folder = Path(place) / "raw16-thermal" / "lepton" / "lepton_b_png16"
    encoder = make_encoder()
    found = analysis.analyse(
        encoder, pictures.spread(pictures.find(folder), 4), analysis.preparation(encoder, "native")
    )
    assert len(found.paths) == 4 and not found.refused
    assert found.even.entropy == pytest.approx(np.log(7 * 10))
