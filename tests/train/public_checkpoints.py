"""Small checkpoints in the formats others publish, each made from a model of timm's whose tokens are known."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from edgeunip.train.encoder import blocks, embed
from edgeunip.train.position import sincos_pos_embed

WIDTH, DEPTH, HEADS, SIDE = 64, 2, 4, 4
State = dict[str, Tensor]


def source(kind: type[VisionTransformer] = VisionTransformer, *, seed: int = 0, **options: Any) -> VisionTransformer:
    """A ViT of which no tensor is zero or one, so that a forgotten one shows."""
    torch.manual_seed(seed)
    vit = kind(img_size=16 * SIDE, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0, **options)
    for parameter in vit.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return vit.eval()


def sincos_source(**options: Any) -> VisionTransformer:
    vit = source(**options)
    assert vit.pos_embed is not None
    vit.pos_embed.data = sincos_pos_embed(WIDTH, (SIDE, SIDE))
    return vit


def images(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 16 * SIDE, 16 * SIDE, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def tokens(vit: VisionTransformer) -> Tensor:
    """The last block's output by timm's own forward pass."""
    taken: list[Tensor] = []
    handle = blocks(vit)[-1].register_forward_hook(lambda module, given, result: taken.append(result))
    vit.forward_features(images(vit.patch_embed.proj.in_channels))
    handle.remove()
    return taken[0]


@torch.no_grad()
def our_tokens(vit: VisionTransformer) -> Tensor:
    found: Tensor = vit.blocks(embed(vit, images(vit.patch_embed.proj.in_channels)))
    return found


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


DECODER = ("decoder_blocks.0.norm1.weight", "decoder_embed.weight", "decoder_pos_embed", "mask_token")


def noise(*names: str) -> State:
    return {name: torch.randn(3, 4) for name in names}


def unip() -> tuple[VisionTransformer, Any]:
    vit = sincos_source()
    options = Namespace(model="unip_vit_small_patch16", last_heads=HEADS, lr=2.4e-3, output_dir="out")
    return vit, {"model": vit.state_dict(), "optimizer": {"state": {0: {"step": 3}}, "param_groups": []},
                 "epoch": 99, "scaler": {"scale": 65536.0}, "args": options}  # fmt: skip


def mae() -> tuple[VisionTransformer, Any]:
    vit = sincos_source()
    return vit, {"model": vit.state_dict()}


def mae_full() -> tuple[VisionTransformer, Any]:
    vit = sincos_source()
    return vit, {"model": {**vit.state_dict(), **noise(*DECODER)}}


def cross_mae() -> tuple[VisionTransformer, Any]:
    vit = sincos_source()
    extra = noise("mask_token", "decoder_blocks.0.cross_attn.q.weight", "wfm.linear.weight")
    return vit, {"model": {**vit.state_dict(), **extra}, "args": Namespace(blr=1e-4)}


def mae_finetuned() -> tuple[VisionTransformer, Any]:
    vit = source(final_norm=False)
    return vit, {"model": {**vit.state_dict(), **noise("fc_norm.weight", "fc_norm.bias", "head.weight")}}


def dino() -> tuple[VisionTransformer, Any]:
    vit = source()
    return vit, dict(vit.state_dict())


def dino_full() -> tuple[VisionTransformer, Any]:
    vit, student = source(), source(seed=1)
    heads = noise("head.mlp.0.weight", "head.last_layer.weight_v")
    students = under("module.", under("backbone.", student.state_dict()) | heads)
    teachers = under("backbone.", vit.state_dict()) | heads
    return vit, {"student": students, "teacher": teachers, "epoch": 300, "args": Namespace(arch="vit_small")}


def ibot() -> tuple[VisionTransformer, Any]:
    vit = source()
    return vit, {"state_dict": {**vit.state_dict(), **noise("masked_embed")}}


def ibot_full() -> tuple[VisionTransformer, Any]:
    vit, student = source(), source(seed=1)
    return vit, {"student": under("module.backbone.", {**student.state_dict(), **noise("masked_embed")}),
                 "teacher": under("module.backbone.", {**vit.state_dict(), **noise("masked_embed")})}  # fmt: skip


def moco() -> tuple[VisionTransformer, Any]:
    vit, momentum = source(), source(seed=1)
    state = under("module.base_encoder.", {**vit.state_dict(), **noise("head.0.weight")})
    state |= under("module.momentum_encoder.", dict(momentum.state_dict())) | noise("module.predictor.0.weight")
    return vit, {"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": {}}


def deit() -> tuple[VisionTransformer, Any]:
    vit = source()
    return vit, {"model": {**vit.state_dict(), **noise("head.weight", "head.bias")}}


def deit_training() -> tuple[VisionTransformer, Any]:
    vit, average = source(), source(seed=1)
    return vit, {"model": {**vit.state_dict(), **noise("head.weight")}, "model_ema": dict(average.state_dict())}


def deit_distilled() -> tuple[VisionTransformer, Any]:
    vit = source(VisionTransformerDistilled)
    return vit, {"model": {**vit.state_dict(), **noise("head.weight", "head_dist.weight")}}


def deit3() -> tuple[VisionTransformer, Any]:
    vit = source(no_embed_class=True, init_values=0.5)
    state = {name.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): value
             for name, value in vit.state_dict().items()}  # fmt: skip
    return vit, {"model": {**state, **noise("head.weight", "head.bias")}}


def dinov2() -> tuple[VisionTransformer, Any]:
    """DINOv2's registers stand between CLS and patches and have no position; CLS has one, which timm adds to it."""
    vit = source(no_embed_class=True, init_values=0.5, reg_tokens=4)
    state = dict(vit.state_dict())
    first = torch.randn(1, 1, WIDTH)
    state["cls_token"] = state["cls_token"] - first
    state["pos_embed"] = torch.cat([first, state["pos_embed"]], dim=1)
    state["register_tokens"] = state.pop("reg_token")
    return vit, {**state, **noise("mask_token")}


def registers() -> tuple[VisionTransformer, Any]:
    vit = source(no_embed_class=True, reg_tokens=4, class_token=False, global_pool="avg", fc_norm=False)
    return vit, dict(vit.state_dict())


FORMATS: dict[str, tuple[Callable[[], tuple[VisionTransformer, Any]], str, tuple[str, ...]]] = {
    "unip": (unip, "UNIP", ()),
    "mae": (mae, "MAE", ()),
    "mae_full": (mae_full, "MAE", DECODER),
    "cross_mae": (cross_mae, "CrossMAE", ("decoder_blocks.0.cross_attn.q.weight", "mask_token", "wfm.linear.weight")),
    "mae_finetuned": (mae_finetuned, "MAE, fine-tuned", ("fc_norm.bias", "fc_norm.weight", "head.weight")),
    "dino": (dino, "plain ViT (DINO, timm)", ()),
    "dino_full": (dino_full, "DINO", ("head.last_layer.weight_v", "head.mlp.0.weight")),
    "ibot": (ibot, "iBOT", ("masked_embed",)),
    "ibot_full": (ibot_full, "iBOT", ("module.backbone.masked_embed",)),
    "moco": (moco, "MoCo v3", ("module.base_encoder.head.0.weight", "module.predictor.0.weight")),
    "deit": (deit, "DeiT", ("head.bias", "head.weight")),
    "deit_training": (deit_training, "DeiT", ("head.weight",)),
    "deit_distilled": (deit_distilled, "DeiT distilled", ("head.weight", "head_dist.weight")),
    "deit3": (deit3, "DeiT III", ("head.bias", "head.weight")),
    "dinov2": (dinov2, "DINOv2", ("mask_token",)),
    "registers": (registers, "plain ViT (DINO, timm)", ()),
}  # fmt: skip
