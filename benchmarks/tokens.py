"""What makes a ViT-tiny with the light head cheaper on a processor, and what it costs in accuracy without retraining.

    taskset -c 0,1 python benchmarks/tokens.py [--int8] [--only plain,merge-4] [--rounds 9]      speed
    taskset -c 0,1 python benchmarks/tokens.py --run RUN [--images 40]                           accuracy on val

Speed: OpenVINO at 480x640, random weights, two threads, candidates in turns; wall and processor time, since the latter
bears a machine that is shared. Tokens merged in squares (the recipe's ``merge``) and fewer blocks (pruning.py)
are edgeunip's own; the rest was tried and lost, and stands only here.
"""

from __future__ import annotations

import argparse
import copy
import io
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from pruning import with_blocks
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from edgeunip.compress import graph
from edgeunip.train import run as runs
from edgeunip.train import segmentor
from edgeunip.train.encoder import blocks, embed, set_heads
from edgeunip.train.evaluate import evaluate
from edgeunip.train.loader import Pictures
from edgeunip.train.tokens import as_map, merge
from edgeunip.train.vit import PATCH, SIZES, Backbone

HEIGHT, WIDTH = 480, 640
PROPERTIES = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}

Change = Callable[[Any], Any]


def main() -> None:
    """Measure speed, or with a run accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--int8", action="store_true", help="quantise by NNCF (two pictures of noise: speed only)")
    parser.add_argument("--only", default="", help="candidates, with commas; plain is always measured")
    parser.add_argument("--rounds", type=int, default=9, help="each runs every candidate once (default 9)")
    parser.add_argument("--run", type=Path, help="a finished run of size tiny and head light")
    parser.add_argument("--images", type=int, default=40, help="of val, and of train for the importance (default 40)")
    options = parser.parse_args()
    known = candidates()
    chosen = {"plain": known["plain"], **{name: known[name] for name in options.only.split(",") if name}}
    if options.run:
        accuracy(options.run, chosen if options.only else known, images=options.images)
    else:
        speed(chosen if options.only else known, int8=options.int8, rounds=options.rounds)


def candidates() -> dict[str, Change]:
    """Return what each candidate makes of a model of twelve blocks, a copy."""
    two_of_three = {index: (0, 1) for index in range(11)}
    named: dict[str, Change] = {"plain": lambda model: model}
    named |= {f"merge-{at}": _merging(at) for at in (2, 4, 6, 8)}
    named |= {f"pooled-keys-{at}": _attending(PooledAttention, at) for at in (0, 4, 6)}
    named |= {"windows": _attending(WindowAttention, 0)}
    named |= {f"matched-6-x{times}": _becoming(MatchedBackbone, times=times) for times in (1, 2)}
    named |= {"without-cls": _becoming(PatchBackbone)}
    named |= {"last-heads-3": lambda model: set_heads(blocks(model.backbone.vit)[-1], 3) or model}
    named |= {"blocks-8": lambda model: with_blocks(model, (0, 1, 3, 4, 6, 7, 9, 11))}
    named |= {"blocks-6": lambda model: with_blocks(model, (0, 2, 4, 6, 8, 11))}
    named |= {"heads-2": lambda model: with_heads(model, two_of_three)}
    named |= {f"hidden-{width}": _narrowing(width) for width in (576, 384)}
    return {name: lambda model, change=change: change(copy.deepcopy(model)) for name, change in named.items()}


def _merging(at: int) -> Change:
    def change(model: Any) -> Any:
        model.backbone.merge = at
        return model

    return change


def _attending(kind: type[Attention], start: int) -> Change:
    def change(model: Any) -> Any:
        model.backbone.__class__ = GridBackbone
        for block in blocks(model.backbone.vit)[start:]:
            block.attn.__class__ = kind
        return model

    return change


def _becoming(kind: type[Backbone], **values: Any) -> Change:
    def change(model: Any) -> Any:
        model.backbone.__class__ = kind
        vars(model.backbone).update(values)
        return model

    return change


def _narrowing(width: int) -> Change:
    def change(model: Any) -> Any:
        for block in blocks(model.backbone.vit):
            narrow(block.mlp, width)
        return model

    return change


# What was tried and lost


class GridBackbone(Backbone):
    """Tells its blocks' attention how the patches lie."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the last block's map."""
        for block in blocks(self.vit):
            block.attn.grid = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        return super().forward(images)


class PooledAttention(Attention):
    """Queries of all patches, keys and values of patches averaged 2x2."""

    grid: tuple[int, int]

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map normed tokens [B, 1 + N, dim] to the block's change."""
        coarse, width = merge(tokens, self.grid).coarse, self.attn_dim
        query = F.linear(tokens, self.qkv.weight[:width], self.qkv.bias[:width])
        key, value = F.linear(coarse, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, dim=-1)
        return self.proj(attend(self, query, key, value))


class WindowAttention(Attention):
    """Attention within the four quarters of the picture; CLS takes their mean. The grid must be even."""

    grid: tuple[int, int]

    def forward(self, tokens: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map normed tokens [B, 1 + N, dim] to the block's change."""
        rows, columns = (side // 2 for side in self.grid)
        parts = (len(tokens), 2, rows, 2, columns, -1)
        quarters = tokens[:, 1:].reshape(parts).transpose(2, 3).reshape(4 * len(tokens), rows * columns, -1)
        found = attend(self, *self.qkv(quarters).chunk(3, dim=-1))
        found = found.reshape(len(tokens), 2, 2, rows, columns, -1).transpose(2, 3).flatten(1, 4)
        return self.proj(torch.cat([found.mean(1, keepdim=True), found], dim=1))


def attend(attention: Any, *parts: Tensor) -> Tensor:
    """Attend with queries, keys and values [B, N, heads * width]."""
    shape = (attention.num_heads, attention.head_dim)
    query, key, value = (part.unflatten(-1, shape).transpose(1, 2) for part in parts)
    weights = (query * attention.scale @ key.transpose(-2, -1)).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class PatchBackbone(Backbone):
    """No CLS token: 1200 tokens rather than 1201."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the last block's map."""
        tokens = self.vit.blocks(embed(self.vit, images)[:, 1:])
        grid = images.shape[-2] // PATCH, images.shape[-1] // PATCH
        return tokens.transpose(1, 2).reshape(len(images), -1, *grid)


class MatchedBackbone(Backbone):
    """Behind block 6, ``times`` over, every other token joins its most similar one (ToMe, with half as the fixed r)."""

    times: int

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the last block's map."""
        layers = blocks(self.vit)
        fine = nn.Sequential(*layers[:6])(embed(self.vit, images))
        coarse, place = matched(fine, self.times)
        added = (nn.Sequential(*layers[6:])(coarse) - coarse)[:, 1:]
        spread = added.gather(1, place[..., None].expand(-1, -1, fine.shape[-1]))
        tokens = fine + torch.cat([fine[:, :1], spread], dim=1)
        return as_map(tokens, (images.shape[-2] // PATCH, images.shape[-1] // PATCH))


def matched(tokens: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Return the merged tokens [B, 1 + N / 2^times, dim] and the place of each patch among them, int64 [B, N]."""
    patches, dim = tokens[:, 1:], tokens.shape[-1]
    place = torch.arange(patches.shape[1]).expand(len(tokens), -1)
    size = torch.ones_like(patches[..., :1])
    for _ in range(times):
        normed = F.normalize(patches, dim=-1)
        target = (normed[:, ::2] @ normed[:, 1::2].transpose(1, 2)).argmax(-1)
        total = (patches * size)[:, 1::2].scatter_add(
            1, target[..., None].expand(-1, -1, dim), (patches * size)[:, ::2]
        )
        size = size[:, 1::2].scatter_add(1, target[..., None], size[:, ::2])
        stay = torch.arange(target.shape[1]).expand_as(target)
        place = torch.stack([target, stay], dim=2).flatten(1).gather(1, place)
        patches = total / size
    return torch.cat([tokens[:, :1], patches], dim=1), place


def with_heads(model: Any, kept: dict[int, Sequence[int]]) -> Any:
    """Take heads out of some blocks, so that their layers are smaller."""
    for index, heads in kept.items():
        attention = blocks(model.backbone.vit)[index].attn
        width = attention.head_dim
        columns = torch.cat([torch.arange(head * width, (head + 1) * width) for head in heads])
        rows = torch.cat([columns + part * attention.attn_dim for part in range(3)])
        attention.qkv, attention.proj = _layer(attention.qkv, rows=rows), _layer(attention.proj, columns=columns)
        attention.num_heads, attention.attn_dim = len(heads), len(columns)
    return model


def narrow(mlp: Any, width: int) -> None:
    """Keep the hidden units of an MLP whose weights are largest."""
    weight = mlp.fc1.weight.norm(dim=1) * mlp.fc2.weight.norm(dim=0)
    kept = weight.topk(width).indices.sort().values
    mlp.fc1, mlp.fc2 = _layer(mlp.fc1, rows=kept), _layer(mlp.fc2, columns=kept)


def _layer(layer: nn.Linear, *, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Linear:
    weight, bias = layer.weight.detach(), layer.bias.detach()
    weight, bias = (weight, bias) if rows is None else (weight[rows], bias[rows])
    weight = weight if columns is None else weight[:, columns]
    cut = nn.Linear(weight.shape[1], weight.shape[0])
    cut.load_state_dict({"weight": weight, "bias": bias})
    return cut


# Measuring


def speed(chosen: dict[str, Change], *, int8: bool, rounds: int) -> None:
    """Time the candidates in turns and print a table."""
    if int8:
        import nncf
    torch.manual_seed(0)
    base = segmentor.build(Backbone(SIZES["tiny"], (HEIGHT // PATCH, WIDTH // PATCH)), "light", 5).eval()
    noise = np.random.default_rng(0).integers(0, 256, (2, 1, 1, HEIGHT, WIDTH), np.uint8)
    requests = {}
    for name, change in chosen.items():
        exported = converted(change(base))
        if int8:
            exported = nncf.quantize(
                exported, nncf.Dataset(list(noise)), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(noise)
            )
        requests[name] = openvino.Core().compile_model(exported, "CPU", PROPERTIES).create_infer_request()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in requests}
    for turn in range(rounds + 1):
        for name, request in requests.items():
            wall, processor = time.perf_counter(), time.process_time()
            request.infer([noise[0]])
            times[name] += [(time.perf_counter() - wall, time.process_time() - processor)] if turn else []
    told(times)


def converted(model: Any) -> openvino.Model:
    """Convert a model as a run is exported, but for the checks, which some of what lost does not pass."""
    wrapped, buffer = graph.ExportGraph(model, (HEIGHT, WIDTH), mean=96.9255, std=47.8976), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer remarks on every number that the fixed size makes constant
        example = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.uint8)
        torch.onnx.export(wrapped, (example,), buffer, dynamo=False, opset_version=graph.OPSET)
    return openvino.Core().read_model(buffer.getvalue(), b"")


def told(times: dict[str, list[tuple[float, float]]]) -> None:
    """Print the least wall time, the least and median processor time, and plain's median over each one's."""
    print(f"{'':16} wall min  cpu min  cpu median  plain / this")
    reference = statistics.median(cpu for _, cpu in times["plain"])
    for name, rounds in times.items():
        wall, processor = (1000 * min(values) for values in zip(*rounds, strict=True))
        median = statistics.median(cpu for _, cpu in rounds)
        print(f"{name:16} {wall:8.1f} {processor:8.1f} {1000 * median:11.1f} {reference / median:13.2f}")


def accuracy(path: Path, chosen: dict[str, Change], *, images: int) -> None:
    """Print val mIoU of a trained run's candidates without retraining."""
    run = runs.open_run(path)
    model, data = run.model(), run.data()
    samples = data.split("val")
    pictures = Pictures(data, samples[:: max(1, len(samples) // images)], run.recipe.agc_parameters())

    def score(changed: Any) -> float:
        return 100 * evaluate(runs.TorchModel(changed, run.recipe), pictures, size=run.size).miou

    whole = score(model)
    for name, change in chosen.items():
        found = score(change(model).eval())
        print(f"{name:16} {found:6.2f} {found - whole:+6.2f}", flush=True)


if __name__ == "__main__":
    main()
