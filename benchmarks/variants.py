"""NMI-HAD with something the paper does not have, tried before it is offered: pretrain unip, its loss or start changed.

    python benchmarks/variants.py layers|heads|feature|tail --teacher T --data DATA --layer N --size tiny --out RUN [..]

``layers``: all layers up to the chosen one, ``heads``: the heads of the chosen one, each weighted by how near its NMI
is to the target; ``feature``: the student's output shall also tell, through a linear map, the tokens that the teacher's
layer is given; ``tail``: the student's last block, which the loss reaches in queries and keys only, starts as the
identity. What follows the variant's name are the options of ``edgeunip pretrain unip``. The held-out loss stays the
paper's. What came of them stands in docs/results.md.
"""

from __future__ import annotations

import sys

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from edgeunip import cli
from edgeunip.train.attention.measures import measure
from edgeunip.train.encoder import Encoder, blocks, embed, query_key
from edgeunip.train.pretrain import fit, objective
from edgeunip.train.pretrain.kl import attention_kl
from edgeunip.train.pretrain.recipe import UnipRecipe
from edgeunip.train.pretrain.student import run_blocks
from edgeunip.train.pretrain.unip import Distillation, Teacher
from edgeunip.train.vit import PATCH

TARGET = 0.09
WIDTH = 0.02  # of NMI, over which a weight falls by e
Pair = tuple[Tensor, Tensor]


def main() -> None:
    """Pre-train with the variant that the first word names."""
    variant = VARIANTS.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if variant is None:
        raise SystemExit(__doc__)
    plain = objective.distillation

    def distillation(recipe: UnipRecipe, teacher: Encoder) -> Distillation:
        task = plain(recipe, teacher)
        return variant(task.teacher, task.student, drop_path=task.drop_path)

    setattr(fit, plain.__name__, distillation)
    sys.argv = [sys.argv[0], "pretrain", "unip", *sys.argv[2:]]
    cli.main()


class Weighted(Distillation):
    """Several attentions of the teacher, weighted by their NMI on the first micro-batch."""

    weights: Tensor | None = None

    def targets(self, images: Tensor) -> list[Pair]:
        """Return scaled queries and keys of each of the teacher's attentions."""
        raise NotImplementedError

    def guesses(self, query: Tensor, key: Tensor) -> list[Pair]:
        """Return what of the student's attention is compared with each."""
        raise NotImplementedError

    def prepare(self, images: Tensor) -> tuple[Tensor, ...]:
        """Leave all to the step."""
        return ()

    def forward(self, images: Tensor, *prepared: Tensor) -> Tensor:
        """Return the weighted loss of normalised images [B, 1, H, W]."""
        targets = self.targets(images)
        if self.weights is None:
            self.weights = _weights(targets, images)
        guesses = self.guesses(*self.student_query_key(images))
        terms = zip(self.weights, targets, guesses, strict=True)
        return torch.stack([weight * attention_kl(target, guess) for weight, target, guess in terms]).sum()


class Layers(Weighted):
    """Every layer of the teacher up to the chosen one into the student's last."""

    @torch.no_grad()
    def targets(self, images: Tensor) -> list[Pair]:
        """Return the attention of each layer."""
        tokens, found = embed(self.teacher.vit, images), []
        *before, last = blocks(self.teacher.vit)
        for block in before:
            found.append(query_key(block, tokens))
            tokens = run_blocks([block], tokens)
        return [*found, query_key(last, tokens)]

    def guesses(self, query: Tensor, key: Tensor) -> list[Pair]:
        """Return the student's attention for each of the layers."""
        return [(query, key)] * len(blocks(self.teacher.vit))


class Heads(Weighted):
    """The heads of the chosen layer."""

    def targets(self, images: Tensor) -> list[Pair]:
        """Return the attention of each head."""
        return self.guesses(*self.teacher(images))

    def guesses(self, query: Tensor, key: Tensor) -> list[Pair]:
        """Return the attention of each head, [B, 1, tokens, width]."""
        return list(zip(torch.split(query, 1, dim=1), torch.split(key, 1, dim=1), strict=True))


class Feature(Distillation):
    """Attention, and the normalised tokens that the teacher's layer is given; the student's whole last block learns."""

    def __init__(self, teacher: Teacher, student: VisionTransformer, *, drop_path: float) -> None:
        super().__init__(teacher, student, drop_path=drop_path)
        last = blocks(student)[-1]
        for part in (last.attn.proj, last.norm2, last.mlp):
            part.requires_grad_(True)
        self.project = nn.Linear(student.embed_dim, teacher.vit.embed_dim)

    @property
    def trained(self) -> nn.Module:
        """What a checkpoint holds."""
        return nn.ModuleDict({"student": self.student, "project": self.project})

    def prepare(self, images: Tensor) -> tuple[Tensor, ...]:
        """Leave all to the step."""
        return ()

    def forward(self, images: Tensor, *prepared: Tensor) -> Tensor:
        """Return the loss of normalised images [B, 1, H, W]."""
        with torch.no_grad():
            *before, chosen = blocks(self.teacher.vit)
            target = run_blocks(before, embed(self.teacher.vit, images))
        *before, last = blocks(self.student)
        rate = self.drop_path if self.training else 0.0
        tokens = run_blocks(before, embed(self.student, images), drop_path=rate)
        told = self.project(run_blocks([last], tokens, drop_path=rate))
        error = F.smooth_l1_loss(told, F.layer_norm(target, target.shape[-1:]), beta=2.0)
        return attention_kl(query_key(chosen, target), query_key(last, tokens)) + error


class Tail(Distillation):
    """The last block's two residual branches end in zero weights: downstream starts from the block before."""

    def __init__(self, teacher: Teacher, student: VisionTransformer, *, drop_path: float) -> None:
        super().__init__(teacher, student, drop_path=drop_path)
        last = blocks(student)[-1]
        for layer in (last.attn.proj, last.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def _weights(targets: list[Pair], images: Tensor) -> Tensor:
    """Return weights that sum to 1 and fall with the distance of each attention's NMI from the target."""
    grid = (images.shape[-2] // PATCH, images.shape[-1] // PATCH)
    found = torch.stack([measure(query, key, grid, patch=PATCH).nmi.mean() for query, key in targets])
    weights = torch.softmax(-(found - TARGET).abs() / WIDTH, dim=0)
    print("NMI", [round(float(one), 3) for one in found], "weights", [round(float(one), 3) for one in weights])
    return weights


VARIANTS = {"layers": Layers, "heads": Heads, "feature": Feature, "tail": Tail}

if __name__ == "__main__":
    main()
