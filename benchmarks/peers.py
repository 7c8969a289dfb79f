"""SegFormer-B0 and YOLO11n-seg as ONNX files for the comparison of speed: their own code, random weights.

    python3 -m venv peers && peers/bin/pip install torch onnx transformers
    peers/bin/pip install ultralytics        # or: ultralytics --no-deps, and what it then asks for
    peers/bin/python benchmarks/peers.py OUT [--height 480] [--width 640] [--classes 5]

An environment of its own: neither package is a dependency of edgeunip, and ultralytics (AGPL) is only run here, not
used. Writes OUT/segformer-b0.onnx and OUT/yolo11n-seg.onnx, and an adapter beside each; a model whose package is
missing is told and left out. YOLO11n-seg is its network alone: no suppression of boxes, no assembly of masks.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

ADAPTER = """# Random weights: for speed only.
size = [{height}, {width}]
channels = 3
mean = {mean}
std = {std}
kind = "none"
"""


class Logits(nn.Module):
    """SegFormer that gives logits alone, [1, classes, H/4, W/4]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Map an image [1, 3, H, W] to logits."""
        logits: Tensor = self.model(pixel_values=image).logits
        return logits


def main() -> int:
    """Write both; exit code 1 where one could not be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the models")
    parser.add_argument("--height", type=int, default=480, help="of the input, pixels (default 480)")
    parser.add_argument("--width", type=int, default=640, help="of the input, pixels (default 640)")
    parser.add_argument("--classes", type=int, default=5, help="default 5")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    made = [
        write(
            options,
            "segformer-b0",
            "transformers",
            segformer,
            mean=[123.675, 116.28, 103.53],
            std=[58.4, 57.12, 57.375],
        ),
        write(options, "yolo11n-seg", "ultralytics", yolo, mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0]),
    ]
    return 0 if all(made) else 1


def write(
    options: argparse.Namespace,
    name: str,
    package: str,
    build: Callable[[int], nn.Module],
    *,
    mean: list[float],
    std: list[float],
) -> bool:
    """Write one model of static shape and its adapter; tell which package is missing."""
    try:
        model = build(options.classes).eval()
    except ModuleNotFoundError as error:
        print(f"{name} is left out: {error.name} is missing. Run: pip install {package} (in this environment)")
        return False
    path = options.out / f"{name}.onnx"
    example = torch.zeros(1, 3, options.height, options.width)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer remarks on every number that the fixed size makes constant
        torch.onnx.export(model, (example,), str(path), dynamo=False, opset_version=17, input_names=["image"])
    text = ADAPTER.format(height=options.height, width=options.width, mean=mean, std=std)
    path.with_suffix(".toml").write_text(text)
    version = importlib.metadata.version(package)
    millions = sum(value.numel() for value in model.parameters()) / 1e6
    print(f"{path}: {millions:.2f} M parameters, {package} {version}, torch {torch.__version__}")
    return True


def segformer(classes: int) -> nn.Module:
    """Return SegFormer-B0: transformers' default configuration is this size."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return Logits(SegformerForSemanticSegmentation(SegformerConfig(num_labels=classes)))


def yolo(classes: int) -> nn.Module:
    """Return YOLO11n-seg from its own yaml, its batch norms folded, as its export does."""
    if importlib.util.find_spec("torchvision") is None:
        stand_in_for_torchvision()
    from ultralytics.nn.tasks import SegmentationModel

    model: nn.Module = SegmentationModel("yolo11n-seg.yaml", ch=3, nc=classes, verbose=False).eval().fuse(verbose=False)
    for layer in model.modules():
        if type(layer).__name__ == "Segment":
            layer.export, layer.format = True, "onnx"
    return model


def stand_in_for_torchvision() -> None:
    """Let ultralytics import: the network itself uses nothing of torchvision, which has no build for some torch."""
    version = importlib.metadata.version
    importlib.metadata.version = lambda name: "0.28.0" if name == "torchvision" else version(name)
    for name in ("torchvision", "torchvision.ops", "torchvision.transforms", "torchvision.models"):
        module = types.ModuleType(name)
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
        sys.modules[name] = module


if __name__ == "__main__":
    sys.exit(main())
