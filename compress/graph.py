"""The graph that is exported: picture in, logits out, normalisation and position table inside."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import openvino
import torch
from torch import Tensor, nn

from edgeunip.train.position import resize_pos_embed
from edgeunip.train.run import Run
from edgeunip.train.segmentor import Segmentor
from edgeunip.train.vit import PATCH


class ExportGraph(nn.Module):
    """A trained model as a device runs it.

    Args:
        model: the trained model; it is copied.
        size: (height, width) of the input, pixels.
        mean, std: the normalisation that becomes part of the graph, gray levels.
    """

    def __init__(self, model: Segmentor, size: tuple[int, int], *, mean: float, std: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self.mean, self.std = mean, std
        _bake_position(self.model, (size[0] // PATCH, size[1] // PATCH))
        _plain_attention(self.model)

    def forward(self, picture: Tensor) -> Tensor:
        """Map an AGC picture, uint8 [1, 1, H, W], to logits, float32 [1, classes, H/4, W/4]."""
        logits: Tensor = self.model((picture.float() - self.mean) / self.std)
        return logits


def to_openvino(run: Run, model: Segmentor) -> openvino.Model:
    """Convert a run's model to an OpenVINO graph of static shape."""
    recipe = run.recipe
    graph = ExportGraph(model, run.size, mean=recipe.mean, std=recipe.std)
    example = torch.zeros(1, 1, *run.size, dtype=torch.uint8)
    with warnings.catch_warnings():
        # OpenVINO converts by torch's tracer, which torch has deprecated and which remarks on every number that a
        # fixed input size makes constant: here they shall be constant.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        converted = openvino.convert_model(graph, example_input=example, input=[1, 1, *run.size])
    converted.inputs[0].get_tensor().set_names({"picture"})
    converted.outputs[0].get_tensor().set_names({"logits"})
    return converted


@torch.no_grad()
def _bake_position(model: Segmentor, grid: tuple[int, int]) -> None:
    """Resample the position table once, so that the graph holds a constant and no resize."""
    backbone = model.backbone
    table = resize_pos_embed(backbone.position, backbone.grid, grid)
    backbone.vit.pos_embed = nn.Parameter(table.clone(), requires_grad=False)
    backbone.vit.patch_embed.grid_size = grid


def _plain_attention(model: Segmentor) -> None:
    """Write attention as matmul, softmax, matmul: the pattern that quantisers and other runtimes know."""
    blocks: Any = model.backbone.vit.blocks
    for block in blocks:
        block.attn.fused_attn = False
