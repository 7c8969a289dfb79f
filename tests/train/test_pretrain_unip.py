"""NMI-HAD against the numbers of the authors' code, and against itself written out."""

from __future__ import annotations

from typing import Any

import golden
import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from edgeunip.errors import UsageError
from edgeunip.train.encoder import Encoder, Origin, blocks, embed, fold_to_gray, query_key, set_heads
from edgeunip.train.pretrain import kl
from edgeunip.train.pretrain.kl import attention_kl
from edgeunip.train.pretrain.schedule import parameter_groups
from edgeunip.train.pretrain.student import new_vit, run_blocks
from edgeunip.train.pretrain.unip import Distillation, Teacher
from edgeunip.train.vit import SIZES, ViTSize

ORIGIN = Origin("golden", "made up")
LAYER = 2  # config: intermediate 2


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return golden.load("unip_kd")


def vit(data: dict[str, Any], who: str, dim: int, heads: int, last_heads: int) -> VisionTransformer:
    model = new_vit(ViTSize(dim, 3, heads, last_heads), (4, 4), channels=3)
    prefix = f"weights/{who}/"
    weights = {key[len(prefix) :]: torch.from_numpy(value) for key, value in data.items() if key.startswith(prefix)}
    model.load_state_dict(weights)
    return model


def teacher_vit(data: dict[str, Any]) -> VisionTransformer:
    return vit(data, "teacher", 64, 8, 8)


def student_vit(data: dict[str, Any]) -> VisionTransformer:
    return vit(data, "student", 48, 4, 8)


def logits(pair: tuple[Tensor, Tensor]) -> Tensor:
    return (pair[0] @ pair[1].mT).float()


def eager(teacher: tuple[Tensor, Tensor], student: tuple[Tensor, Tensor]) -> Tensor:
    """The loss as the paper writes it."""
    target, guess = logits(teacher), logits(student)
    return F.kl_div(guess.log_softmax(-1), target.softmax(-1), reduction="none").sum(-1).mean()


def near(ours: Tensor, theirs: Any, atol: float, rtol: float = 0.0) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(np.asarray(theirs)), atol=atol, rtol=rtol)


def pairs(images: int = 2, heads: int = 3, tokens: int = 17, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    widths = (16, 16, 8, 8)
    made = [torch.randn(images, heads, tokens, width, generator=generator) for width in widths]
    return [(value / 2).to(dtype).requires_grad_(index > 1) for index, value in enumerate(made)]


def test_u3_logits_loss_and_gradients_equal_the_reference(data: dict[str, Any]) -> None:
    teacher, student = teacher_vit(data), student_vit(data)
    task = Distillation(Teacher(Encoder(teacher, ORIGIN), LAYER), student).eval()
    images = torch.from_numpy(data["images"])
    with torch.no_grad():
        *before, last = blocks(teacher)[:LAYER]
        target = query_key(last, run_blocks(before, embed(teacher, images)))
    near(logits(target), data["teacher_logits"], atol=5e-5)
    guess = task.student_query_key(images)
    near(logits(guess), data["student_logits"], atol=5e-5)
    loss = attention_kl(target, guess)
    loss.backward()
    near(loss, data["loss"], atol=0, rtol=1e-5)
    require_gradients(student, data, "grads/")


def require_gradients(student: VisionTransformer, data: dict[str, Any], prefix: str) -> None:
    found = {name: value.grad for name, value in student.named_parameters() if value.grad is not None}
    assert set(found) == {key[len(prefix) :] for key in data if key.startswith(prefix)}
    assert {name for name, _ in student.named_parameters()} - set(found) == {*data["no_gradient"], *data["frozen"]}
    for name, gradient in found.items():
        near(gradient, data[f"{prefix}{name}"], atol=2e-6, rtol=1e-4)


def test_u3_in_float64_the_loss_is_the_references(data: dict[str, Any]) -> None:
    teacher, student = teacher_vit(data).double(), student_vit(data).double()
    images = torch.from_numpy(data["images"]).double()
    *before, last = blocks(teacher)[:LAYER]
    target = query_key(last, run_blocks(before, embed(teacher, images)))
    *before, last = blocks(student)
    guess = query_key(last, run_blocks(before, embed(student, images)))
    loss = attention_kl(target, guess)
    assert float(loss.detach()) == pytest.approx(float(data["loss_float64"]), rel=1e-6)


def test_u11_one_channel_equals_three_equal_ones(data: dict[str, Any]) -> None:
    student = student_vit(data)
    fold_to_gray(student)
    task = Distillation(Teacher(Encoder(teacher_vit(data), ORIGIN), LAYER), student).eval()
    images = torch.from_numpy(data["gray/images"])
    near(logits(task.teacher(images)), data["gray/teacher_logits"], atol=5e-5)
    near(logits(task.student_query_key(images)), data["gray/student_logits"], atol=5e-5)
    loss = task(images)
    loss.backward()
    near(loss, data["gray/loss"], atol=0, rtol=1e-5)
    gradient = student.patch_embed.proj.weight.grad
    assert gradient is not None
    for channel in range(3):
        near(gradient[:, 0], data["gray/grads/patch_embed.proj.weight"][:, channel], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("budget", [1, 17 * 17 * 4 * 2, 1 << 20])
def test_u3_the_fused_loss_equals_the_eager_one(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many maps are held at a time."""
    monkeypatch.setattr(kl, "CACHE_BYTES", budget)
    q_t, k_t, q, k = pairs()
    loss = attention_kl((q_t, k_t), (q, k))
    fused = torch.autograd.grad(3 * loss, (q, k))
    expected = eager((q_t, k_t), (q, k))
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    for ours, theirs in zip(fused, torch.autograd.grad(3 * expected, (q, k)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_u3_in_bfloat16_within_a_thousandth() -> None:
    q_t, k_t, q, k = pairs(dtype=torch.bfloat16)
    loss = attention_kl((q_t, k_t), (q, k))
    expected = eager((q_t, k_t), (q, k))
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    for ours, theirs in zip(torch.autograd.grad(loss, (q, k)), torch.autograd.grad(expected, (q, k)), strict=True):
        assert ours.dtype == torch.bfloat16
        largest = theirs.abs().max()
        # the rounding of a bfloat16 gradient itself is 2^-9 of it
        assert float((ours.float() - theirs.float()).abs().max() / largest) < 2**-7


def test_u3_in_fp16_the_gradients_are_scaled_before_they_are_divided() -> None:
    """A gradient over 19,000 rows is smaller than fp16 holds, and the scale that lifts it is larger."""
    half = pairs(images=8, heads=12, tokens=197, dtype=torch.float16)
    single = [value.detach().float().requires_grad_(value.requires_grad) for value in half]
    found, expected = (
        torch.autograd.grad(2.0**16 * attention_kl((q_t, k_t), (q, k)), (q, k)) for q_t, k_t, q, k in (half, single)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float16
        assert float((ours.float() - theirs).abs().max() / theirs.abs().max()) < 2**-8


def test_the_loss_of_equal_attention_is_zero_and_of_other_heads_is_not() -> None:
    q_t, k_t, *_ = pairs(heads=4)
    assert float(attention_kl((q_t, k_t), (q_t, k_t)).detach()) == pytest.approx(0.0, abs=1e-6)
    turned = (q_t.roll(1, dims=1), k_t.roll(1, dims=1))
    assert float(attention_kl((q_t, k_t), turned)) > 0.1  # head is compared with head


def test_the_loss_holds_no_map_of_the_whole_batch() -> None:
    """Memory grows with inputs and gradients, not with images x heads x tokens^2; the eager loss is the control."""
    q_t, k_t, q, k = pairs(images=8, heads=8, tokens=197)
    one = 8 * 8 * 197 * 197 * 4
    assert largest_allocation(lambda: attention_kl((q_t, k_t), (q, k)).backward()) < one / 8
    assert largest_allocation(lambda: eager((q_t, k_t), (q, k)).backward()) >= one


def largest_allocation(work: Any) -> int:
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    events = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    return max(event.nbytes() for event in events if event.name() == "[memory]")


def test_shapes_that_differ_are_refused() -> None:
    q_t, k_t, q, k = pairs()
    with pytest.raises(ValueError, match=r"\(2, 3, 17\) and \(1, 3, 17\)"):
        attention_kl((q_t, k_t), (q[:1], k[:1]))


def test_u4_the_early_exit_equals_the_whole_teacher_and_computes_no_more(data: dict[str, Any]) -> None:
    whole, images = teacher_vit(data).eval(), torch.from_numpy(data["gray/images"])
    fold_to_gray(whole)
    seen: list[Tensor] = []
    blocks(whole)[1].attn.qkv.register_forward_hook(lambda _, __, output: seen.append(output))
    whole.forward_features(images)
    query, key, _ = seen[0].reshape(2, 17, 3, 8, 8).permute(2, 0, 3, 1, 4)
    teacher = Teacher(Encoder(teacher_vit(data), ORIGIN), 2)
    torch.testing.assert_close(logits(teacher(images)), query @ key.mT * 8**-0.5, atol=1e-5, rtol=0)
    ran: list[str] = []
    for name, module in teacher.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    teacher(images)
    assert [name for name in ran if name.startswith("vit.blocks.1")] == ["vit.blocks.1.norm1"] + [
        f"vit.blocks.1.attn.{part}" for part in ("q_norm", "k_norm")
    ]
    assert blocks(teacher.vit)[1].attn.qkv.weight.shape == (2 * 64, 64)  # no values
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert len(blocks(teacher.vit)) == 2  # the third is not even kept


def test_u6_parameter_counts(data: dict[str, Any]) -> None:
    for name, expected in (("tiny", 5_524_416), ("small", 21_665_664), ("base", 85_798_656)):
        student = new_vit(SIZES[name], (14, 14), channels=3)
        assert sum(value.numel() for value in student.parameters()) == expected
        state = student.state_dict()
        assert list(state) == list(data[f"state_dict/{name}/names"])
        assert ["x".join(map(str, value.shape)) for value in state.values()] == list(data[f"state_dict/{name}/shapes"])


def test_a_dropped_branch_is_as_timm_drops_it() -> None:
    """Stochastic depth computes only what is kept, and gives what the masked computation gives."""
    student = new_vit(ViTSize(32, 3, 2, 2), (2, 2)).double()
    tokens = torch.randn(6, 5, 32, dtype=torch.float64)
    torch.manual_seed(3)
    ours = run_blocks(blocks(student), tokens, drop_path=0.4)
    torch.manual_seed(3)
    for block in blocks(student):
        for branch in (lambda x, b=block: b.attn(b.norm1(x)), lambda x, b=block: b.mlp(b.norm2(x))):
            kept = (torch.rand(6) >= 0.4).double().reshape(6, 1, 1)
            tokens = tokens + kept * branch(tokens) / 0.6
    torch.testing.assert_close(ours, tokens)
    assert torch.isfinite(run_blocks(blocks(student), tokens, drop_path=0.999)).all()


def test_one_channel_trains_as_three_do(data: dict[str, Any]) -> None:
    """AdamW on the summed patch embedding takes the steps it takes on three equal channels."""
    teacher, images = Teacher(Encoder(teacher_vit(data), ORIGIN), LAYER), torch.from_numpy(data["gray/images"])
    three, one = student_vit(data), student_vit(data)
    with torch.no_grad():  # equal channels stay equal
        weight = three.patch_embed.proj.weight
        weight.copy_(weight.mean(1, keepdim=True).expand_as(weight))
        one.patch_embed.proj.weight.copy_(weight)
    fold_to_gray(one)
    for student, view in ((three, images.expand(-1, 3, -1, -1)), (one, images)):
        task = Distillation(teacher, student).eval()
        groups = parameter_groups(student, weight_decay=0.05)
        optimizer = torch.optim.AdamW(
            [{**group, "lr": 1e-2 * group["lr_scale"]} for group in groups], betas=(0.9, 0.95)
        )
        for _ in range(5):
            optimizer.zero_grad()
            attention_kl(teacher(images), task.student_query_key(view)).backward()
            optimizer.step()
    summed = three.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(one.patch_embed.proj.weight, summed, atol=2e-4, rtol=0)
    start = student_vit(data).patch_embed.proj.weight.sum(1, keepdim=True)
    assert float((summed - start).detach().abs().mean()) > 0.01


def test_what_no_gradient_reaches_is_neither_trained_nor_decayed(data: dict[str, Any]) -> None:
    student = student_vit(data)
    Distillation(Teacher(Encoder(teacher_vit(data), ORIGIN), LAYER), student)
    groups = parameter_groups(student, weight_decay=0.05)
    named = {name for group in groups for name in group["names"]}
    assert {name for name, _ in student.named_parameters()} - named == {*data["no_gradient"], "pos_embed"}


def test_teachers_that_do_not_fit(data: dict[str, Any]) -> None:
    encoder = Encoder(teacher_vit(data), ORIGIN)
    for layer in (0, 4):
        with pytest.raises(UsageError, match=f"no layer {layer}: golden. It has layers 1 to 3"):
            Teacher(encoder, layer)
    other = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, num_classes=0)
    with pytest.raises(UsageError, match="patches are 8 pixels, not 16"):
        Teacher(Encoder(other, ORIGIN), 1)
    registers = VisionTransformer(img_size=32, embed_dim=32, depth=1, num_heads=2, num_classes=0, reg_tokens=2)
    with pytest.raises(UsageError, match="one CLS token"):
        Teacher(Encoder(registers, ORIGIN), 1)
    student = student_vit(data)
    set_heads(blocks(student)[-1], 4)
    with pytest.raises(UsageError, match="last block has 4 heads, the teacher 8"):
        Distillation(Teacher(encoder, 2), student)
