"""What a pre-training would train and cost, without training anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeunip.train.corpus.corpus import open_corpus
from edgeunip.train.pretrain import run as runs
from edgeunip.train.pretrain.fit import Say, build, resolve
from edgeunip.train.pretrain.recipe import MaeRecipe, UnipRecipe


def describe(recipe: UnipRecipe | MaeRecipe, data: str, *, say: Say) -> dict[str, Any]:
    """Return parameters (in all, trainable, by part), MACs an image, steps and effective batch of a pre-training.

    MACs count matrix products and convolutions, attention included, of one image forward and forward + backward, with
    no branch dropped; the mean of both where there are two resolutions.

    Raises:
        EdgeunipError: the pre-training could not be started either.
    """
    corpus = open_corpus(data)
    source = runs.open_source(recipe, say)
    recipe, facts = resolve(recipe, corpus, source, ranks=1, say=say)
    objective = build(recipe, source).eval()
    trained, encoder = objective.trained, objective.encoder
    return {
        "method": recipe.method,
        "recipe": asdict(recipe),
        **facts,
        "parameters": {
            "encoder": count(encoder),
            "trained_model": count(trained),
            "trainable": sum(p.numel() for p in trained.parameters() if p.requires_grad),
            "by_part": by_part(trained),
            "trainable_by_part": by_part(trained, trainable=True),
        },
        "gmacs_an_image": gmacs(objective, _sides(recipe)),
        "images": len(corpus),
        "held_out": recipe.holdout,
        "steps": recipe.steps,
        "effective_batch": recipe.batch,
        "micro_batch": recipe.micro_batch,
        "epochs": recipe.steps * recipe.batch / (len(corpus) - recipe.holdout),
        "peak_lr": recipe.base_lr * recipe.batch / 256,
    }


def count(model: nn.Module) -> int:
    """Return the number of a model's parameters, fixed ones included."""
    return sum(parameter.numel() for parameter in model.parameters())


def by_part(model: nn.Module, *, trainable: bool = False) -> dict[str, int]:
    """Return the parameters of each part: embeddings, each block, norm, decoder, .."""
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = re.sub(r"(blocks\.\d+|^[^.]+(?=\.)).*", r"\1", name)
        parts[part] = parts.get(part, 0) + (parameter.numel() if parameter.requires_grad or not trainable else 0)
    return parts


def gmacs(objective: nn.Module, sides: Sequence[int]) -> dict[str, float]:
    """Return giga-MACs of one image, forward and forward + backward, counted on tensors that hold no numbers.

    Args:
        objective: the model and its loss.
        sides: of the images, pixels; the mean over them is returned.
    """
    shadow, once, both = objective.to("meta"), 0.0, 0.0
    for side in sides:
        images = torch.zeros(1, 1, side, side, device="meta")
        with FlopCounterMode(display=False) as forward:
            loss = shadow(images)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
        once += forward.get_total_flops() / 2e9 / len(sides)
        both += (forward.get_total_flops() + backward.get_total_flops()) / 2e9 / len(sides)
    return {"forward": once, "forward_and_backward": both}


def _sides(recipe: UnipRecipe | MaeRecipe) -> tuple[int, ...]:
    second = recipe.second_crop if isinstance(recipe, UnipRecipe) else 0
    return (recipe.crop, second) if second else (recipe.crop,)
