"""What a model costs: parameters, and multiply-accumulates a picture, counted on tensors without memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from edgeunip.classes import Classes
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import build_model

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Cost:
    """Of one model.

    Attributes:
        parameters: of what runs on a camera; UPerNet's auxiliary head is left out.
        trainable: of all that training changes.
        macs: multiply-accumulates of convolutions and linear layers for one picture.
        attention_macs: those of queries times keys and weights times values, which ``macs`` does not hold.
    """

    parameters: int
    trainable: int
    macs: int
    attention_macs: int


def cost(recipe: Recipe, classes: Classes) -> Cost:
    """Return what the model of a resolved recipe costs at its input size."""
    with torch.device("meta"):
        model = build_model(recipe, classes).eval()
        picture = torch.empty(1, model.backbone.channels, recipe.height, recipe.width)
    with counted(model) as found, torch.no_grad():
        model(picture)
    parts = list(model.named_parameters())
    return Cost(
        sum(value.numel() for name, value in parts if not name.startswith("auxiliary.")),
        sum(value.numel() for _, value in parts if value.requires_grad),
        **found,
    )


@contextmanager
def counted(model: nn.Module) -> Iterator[dict[str, int]]:
    """Count the ``macs`` and ``attention_macs`` of what runs in the block, into the dictionary that is yielded."""
    found = {"macs": 0, "attention_macs": 0}

    def layer_ran(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # A transposed convolution makes a whole kernel of each pixel it reads, the others read one for each they make.
        pixels = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        found["macs"] += pixels.numel() // _channels(layer, pixels) * layer.weight.numel()

    def attention_ran(layer: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        batch, tokens = inputs[0].shape[:2]
        found["attention_macs"] += 2 * batch * tokens**2 * layer.num_heads * layer.head_dim

    handles = [layer.register_forward_hook(layer_ran) for layer in model.modules() if isinstance(layer, LAYERS)]
    handles += [one.register_forward_hook(attention_ran) for one in model.modules() if isinstance(one, Attention)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _channels(layer: nn.Module, values: Tensor) -> int:
    """Return the size of the channel axis: the last of a linear layer's values, the second of a map's."""
    return int(values.shape[-1] if isinstance(layer, nn.Linear) else values.shape[1])
