"""One step of NMI-HAD against a plain eager implementation of the paper: time, peak memory, and where the time goes.

    taskset -c 0,1 python benchmarks/distillation.py [--teacher base --layer 9 --student small --batch 8] [--threads 2]

Both run in processes of their own, in turns, on the same machine; weights are random, since they change no time.
``--profile`` prints the operations of our step. On a GPU (``--device cuda``) both compute in bf16 autocast.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from edgeunip.train.encoder import Encoder, Origin, blocks, fold_to_gray
from edgeunip.train.launch import keep_memory
from edgeunip.train.pretrain.ahead import prepared
from edgeunip.train.pretrain.student import new_vit
from edgeunip.train.pretrain.unip import Distillation, Teacher
from edgeunip.train.vit import SIZES

GRID = (14, 14)


def main() -> None:
    """Run both in turns and print the ratios, or be one of the two."""
    options = _options()
    if options.run:
        print(json.dumps(measure(options)))
        return
    rounds: dict[str, list[dict[str, float]]] = {"eager": [], "ours": []}
    for _ in range(options.rounds):
        for name, found in rounds.items():
            command = [sys.executable, *sys.argv, "--run", name]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for name, found in rounds.items():
        seconds = [entry["seconds"] for entry in found]
        print(f"{name}: {statistics.median(seconds):.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f}), ", end="")
        print(f"peak {max(entry['peak_mib'] for entry in found):.0f} MiB, loss {found[0]['loss']:.6f}")
    ratios = [e["seconds"] / o["seconds"] for e, o in zip(rounds["eager"], rounds["ours"], strict=True)]
    memory = max(e["peak_mib"] for e in rounds["eager"]) / max(o["peak_mib"] for o in rounds["ours"])
    print(
        f"eager / ours: time {statistics.median(ratios):.2f} (rounds {', '.join(f'{r:.2f}' for r in ratios)}), ", end=""
    )
    print(f"peak memory {memory:.2f}")
    if options.profile:
        subprocess.run([sys.executable, *sys.argv, "--run", "profile"], check=True)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Time steps (forward, backward, AdamW) of one implementation; the first is warm-up and gives the loss."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    teacher_size, size = SIZES[options.teacher], SIZES[options.student]
    teacher = new_vit(replace(teacher_size, last_heads=teacher_size.heads), GRID, channels=3)
    student = new_vit(replace(size, last_heads=teacher_size.heads), GRID, channels=3)
    gray = torch.randn(options.batch, 1, 224, 224)
    task = plain(teacher, student, options) if options.run == "eager" else ours(teacher, student, options)
    images = (gray.repeat(1, 3, 1, 1) if options.run == "eager" else gray).to(device)
    task.to(device)
    parameters = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), fused=options.run != "eager")

    micro = options.batch if options.run == "eager" else options.micro_batch or options.batch
    parts = images.split(micro)
    loss = float(task.eval()(images).detach())  # without drop path: the same number from both
    task.train()
    batches: Iterator[tuple[Tensor, ...]] = ((part,) for part in itertools.cycle(parts))
    if isinstance(task, Distillation) and device.type == "cpu":
        batches = prepared(task, itertools.cycle(parts))

    def step() -> None:
        for _ in parts:
            with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
                loss = task(*next(batches)) / len(parts)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    if options.run == "profile":
        _profile(step)
    seconds = [_timed(step, device) for _ in range(options.steps)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"seconds": statistics.median(seconds), "peak_mib": peak, "loss": loss}


def ours(teacher: VisionTransformer, student: VisionTransformer, options: argparse.Namespace) -> nn.Module:
    """Return the project's own distillation."""
    if options.device == "cpu":
        keep_memory()
    fold_to_gray(student)
    kept = Teacher(Encoder(teacher, Origin("random", "untrained")), options.layer)
    return Distillation(kept, student, drop_path=options.drop_path)


def plain(teacher: VisionTransformer, student: VisionTransformer, options: argparse.Namespace) -> nn.Module:
    """Return a distillation that follows the paper: whole blocks, three channels, every logits tensor in memory."""
    teacher.blocks = teacher.blocks[: options.layer]
    for vit, rate in ((teacher.requires_grad_(False), 0.0), (student, options.drop_path)):
        for block in blocks(vit):
            block.attn = LogitsAttention(block.attn)
            block.drop_path1, block.drop_path2 = DropPath(rate), DropPath(rate)
    return Plain(teacher.eval(), student)


class LogitsAttention(nn.Module):
    """Attention written out, which remembers its logits."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads, self.scale = (
            attention.qkv,
            attention.proj,
            attention.num_heads,
            attention.scale,
        )

    def forward(self, tokens: Tensor, **_: Any) -> Tensor:
        """Map [B, N, dim] to [B, N, dim]."""
        batch, count, dim = tokens.shape
        query, key, value = self.qkv(tokens).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        self.logits = query @ key.transpose(-2, -1) * self.scale
        mixed = self.logits.softmax(dim=-1) @ value
        result: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))
        return result


class Plain(nn.Module):
    """Teacher and student run whole; the divergence is formed from logits."""

    def __init__(self, teacher: VisionTransformer, student: VisionTransformer) -> None:
        super().__init__()
        self.teacher, self.student = teacher, student

    def forward(self, images: Tensor) -> Tensor:
        """Return the loss of images [B, 3, H, W]."""
        with torch.no_grad():
            self.teacher.forward_features(images)
        self.student.forward_features(images)
        target, guess = (blocks(vit)[-1].attn.logits.float() for vit in (self.teacher, self.student))
        share = target.softmax(dim=-1)
        return (share * (target.log_softmax(dim=-1) - guess.log_softmax(dim=-1))).sum(dim=-1).mean()


def _timed(step: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _profile(step: Callable[[], None]) -> None:
    with torch.profiler.profile() as profile:
        step()
    table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=36)
    print(table, file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="base", choices=SIZES, help="size of the teacher (default base)")
    parser.add_argument("--layer", type=int, default=9, help="layer that is distilled, from 1 (default 9)")
    parser.add_argument("--student", default="small", choices=SIZES, help="size of the student (default small)")
    parser.add_argument("--batch", type=int, default=8, help="images of 224x224 a step (default 8)")
    parser.add_argument("--micro-batch", type=int, default=0, help="images of it at once in ours (default: all)")
    parser.add_argument("--drop-path", type=float, default=0.1, help="rate of the student's blocks (default 0.1)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default 2)")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a round (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    parser.add_argument("--profile", action="store_true", help="print where our step's time goes")
    parser.add_argument("--run", choices=("eager", "ours", "profile"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
