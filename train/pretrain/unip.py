"""NMI-HAD: a student learns the query-key attention of one layer of a large teacher (UNIP, ICLR 2025)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from edgeunip.errors import UsageError
from edgeunip.train.encoder import Encoder, blocks, embed, fold_to_gray, patch_size, query_key
from edgeunip.train.pretrain.kl import attention_kl
from edgeunip.train.pretrain.student import run_blocks
from edgeunip.train.vit import PATCH


class Teacher(nn.Module):
    """A teacher up to the queries and keys of one layer: what lies behind is neither kept nor computed.

    Args:
        encoder: the whole teacher; it is copied.
        layer: whose attention is distilled, counted from 1.

    Raises:
        UsageError: it has no such layer, another patch size than 16, or no CLS token alone before its patches.
    """

    def __init__(self, encoder: Encoder, layer: int) -> None:
        super().__init__()
        name, depth = encoder.origin.name, len(blocks(encoder.vit))
        if not 1 <= layer <= depth:
            raise UsageError(f"The teacher has no layer {layer}", where=name, remedy=f"It has layers 1 to {depth}.")
        if patch_size(encoder.vit) != PATCH:
            raise UsageError(f"The teacher's patches are {patch_size(encoder.vit)} pixels, not {PATCH}", where=name)
        if encoder.vit.num_prefix_tokens != 1:
            why = f"{encoder.vit.num_prefix_tokens} tokens before the patches"
            raise UsageError("The student has one CLS token; the teacher must too", where=name, why=why)
        vit = copy.deepcopy(encoder.vit).requires_grad_(False)
        fold_to_gray(vit)
        vit.blocks = vit.blocks[:layer]
        vit.norm = nn.Identity()
        last = blocks(vit)[-1]
        self.heads = int(last.attn.num_heads)
        _keep_query_key(last)
        self.vit = vit

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalised images [B, 1, H, W] to scaled queries and keys [B, heads, 1 + N, head width]."""
        *before, last = blocks(self.vit)
        return query_key(last, run_blocks(before, embed(self.vit, images)))


def _keep_query_key(block: Any) -> None:
    """Free what comes after a block's queries and keys."""
    width = 2 * block.attn.num_heads * block.attn.head_dim
    block.attn.qkv.weight = nn.Parameter(block.attn.qkv.weight[:width].clone(), requires_grad=False)
    if block.attn.qkv.bias is not None:
        block.attn.qkv.bias = nn.Parameter(block.attn.qkv.bias[:width].clone(), requires_grad=False)
    block.attn.proj, block.norm2, block.mlp = nn.Identity(), nn.Identity(), nn.Identity()


class Distillation(nn.Module):
    """Student and teacher on the same view; the loss between their attention.

    Args:
        teacher: its queries and keys.
        student: the ViT that is trained; its last block has the teacher's heads.
        drop_path: rate of every block of the student.
    """

    def __init__(self, teacher: Teacher, student: VisionTransformer, *, drop_path: float = 0.1) -> None:
        super().__init__()
        self.teacher, self.student, self.drop_path = teacher, student, drop_path
        last = blocks(student)[-1]
        if last.attn.num_heads != teacher.heads:
            raise UsageError(f"The student's last block has {last.attn.num_heads} heads, the teacher {teacher.heads}")
        # The loss reads queries and keys only: nothing behind them can learn, and nothing shall decay.
        for part in (last.attn.proj, last.norm2, last.mlp, student.norm):
            part.requires_grad_(False)

    @property
    def trained(self) -> nn.Module:
        """What a checkpoint holds."""
        return self.student

    @property
    def encoder(self) -> VisionTransformer:
        """What pre-training is for."""
        return self.student

    def prepare(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what no gradient flows into: the teacher's scaled queries and keys."""
        found: tuple[Tensor, Tensor] = self.teacher(images)
        return found

    @property
    def prepared_share(self) -> float:
        """Share of a step's operations that are in :meth:`prepare`: a matrix is used once there, else three times."""
        once, learnt = (
            sum(value.numel() for value in part.parameters() if value.ndim == 2 and value.requires_grad is learns)
            for part, learns in ((self.teacher, False), (self.student, True))
        )
        return once / (once + 3 * learnt)

    def forward(self, images: Tensor, *prepared: Tensor) -> Tensor:
        """Return the loss of normalised images [B, 1, H, W], with what :meth:`prepare` made of them or without."""
        query, key = prepared or self.prepare(images)
        return attention_kl((query, key), self.student_query_key(images))

    def student_query_key(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map normalised images [B, 1, H, W] to the last block's scaled queries and keys."""
        *before, last = blocks(self.student)
        rate = self.drop_path if self.training else 0.0
        return query_key(last, run_blocks(before, embed(self.student, images), drop_path=rate))

    def train(self, mode: bool = True) -> Distillation:
        """Switch the student; the teacher stays as it is."""
        super().train(mode)
        self.teacher.eval()
        return self
