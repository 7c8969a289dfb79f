"""What a recipe trains: the model with its loss, and how it is judged on pictures it never saw."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from edgeunip.errors import UsageError
from edgeunip.train.attention.measures import measure
from edgeunip.train.encoder import Encoder, blocks, fold_to_gray
from edgeunip.train.position import resize_pos_embed
from edgeunip.train.pretrain.kl import attention_kl
from edgeunip.train.pretrain.mae import MaskedAutoencoder
from edgeunip.train.pretrain.recipe import MaeRecipe, UnipRecipe
from edgeunip.train.pretrain.student import new_vit
from edgeunip.train.pretrain.unip import Distillation, Teacher
from edgeunip.train.vit import PATCH, SIZES, ViTSize

Objective = Distillation | MaskedAutoencoder


def distillation(recipe: UnipRecipe, teacher: Encoder) -> Distillation:
    """Make the untrained student and its task; ``recipe.layer`` is resolved.

    Raises:
        UsageError: the teacher's heads do not divide the student's width, or its tokens differ.
    """
    kept = Teacher(teacher, recipe.layer)
    if recipe.compile:
        kept.compile()
    size = SIZES[recipe.size]
    if size.dim % kept.heads:
        what = f"The teacher's {kept.heads} heads do not divide the width {size.dim} of the {recipe.size} student"
        raise UsageError(what, where=teacher.origin.name)
    student = new_vit(replace(size, last_heads=kept.heads), grid(recipe.crop))
    return Distillation(kept, student, drop_path=recipe.drop_path)


def autoencoder(recipe: MaeRecipe, start: Encoder | None) -> MaskedAutoencoder:
    """Make the masked auto-encoder, from the start's weights where one is given.

    Raises:
        UsageError: the start is of another size.
    """
    size = SIZES[recipe.size]
    if start is None:
        encoder = new_vit(replace(size, last_heads=size.heads), grid(recipe.crop))
    else:
        encoder = _continued(start, recipe)
    decoder = ViTSize(recipe.decoder_dim, recipe.decoder_depth, recipe.decoder_heads, recipe.decoder_heads)
    return MaskedAutoencoder(encoder, decoder, grid(recipe.crop), mask=recipe.mask, normalise=recipe.normalise)


def _continued(start: Encoder, recipe: MaeRecipe) -> VisionTransformer:
    """Take an encoder over, its positions resampled to the crop's patches and fixed."""
    size, vit = SIZES[recipe.size], copy.deepcopy(start.vit).requires_grad_(True)
    if (vit.embed_dim, len(blocks(vit))) != (size.dim, size.depth) or vit.num_prefix_tokens != 1 or vit.no_embed_class:
        why = f"{len(blocks(vit))} blocks of width {vit.embed_dim}, {vit.num_prefix_tokens} tokens before the patches"
        raise UsageError(f"The encoder is no {recipe.size} ViT with a CLS token", where=start.origin.name, why=why)
    fold_to_gray(vit)
    assert vit.pos_embed is not None
    rows, columns = vit.patch_embed.grid_size
    table = resize_pos_embed(vit.pos_embed.detach(), (rows, columns), grid(recipe.crop))
    vit.pos_embed = nn.Parameter(table.clone(), requires_grad=False)
    vit.patch_embed.grid_size = grid(recipe.crop)
    return vit


def grid(crop: int) -> tuple[int, int]:
    """Return (rows, columns) of a crop's patches."""
    return crop // PATCH, crop // PATCH


@torch.no_grad()
def judge(objective: Objective, images: Tensor) -> dict[str, Tensor]:
    """Score an objective on normalised images [B, 1, H, W] it was not trained on; means over the images.

    A distillation gives its ``loss`` and the NMI of the teacher's layer and of the student's last block, whose gap is
    to close; an auto-encoder its ``loss`` under the same masks each time.
    """
    if isinstance(objective, MaskedAutoencoder):
        patches = images.shape[-2] * images.shape[-1] // PATCH**2
        noise = torch.rand(len(images), patches, generator=torch.Generator().manual_seed(0))
        return {"loss": objective.loss(images, noise.argsort(dim=1).to(images.device))}
    teacher, student = objective.teacher(images), objective.student_query_key(images)
    shape = (images.shape[-2] // PATCH, images.shape[-1] // PATCH)
    found = {"loss": attention_kl(teacher, student)}
    for name, (query, key) in (("nmi_teacher", teacher), ("nmi_student", student)):
        found[name] = measure(query.float(), key.float(), shape, patch=PATCH).nmi.mean()
    return found
