"""One step of NMI-HAD against a plain eager implementation of the paper: time, peak memory, and where the time goes.

    taskset -c 0,1 python benchmarks/distillation.py [--teacher base --layer 9 --student small --batch 8] [--threads 2]

Both run in processes of their own and step in turns, one stopped while the other steps; weights are random, since they
change no time. ``--profile`` prints the operations of our step. On a GPU (``--device cuda``) both compute in bf16
autocast.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
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
    """Step both in turns and print the ratios, or be one of the two."""
    options = _options()
    if options.run == "profile":
        _profile(Steps(options))
        return
    if options.run:
        _serve(Steps(options))
        return
    with _Worker("eager") as eager, _Worker("ours") as ours:
        for worker in (eager, ours):
            worker.step()  # warms up
        pairs = [(eager.step(), ours.step()) for _ in range(options.steps)]
        found = {"eager": eager.facts(), "ours": ours.facts()}
    for (name, facts), seconds in zip(found.items(), zip(*pairs, strict=True), strict=True):
        print(f"{name}: {statistics.median(seconds):.3f} s a step ({min(seconds):.3f} to {max(seconds):.3f}), ", end="")
        print(f"peak {facts['peak_mib']:.0f} MiB, loss {facts['loss']:.6f}")
    low, ratio, high = statistics.quantiles([one / other for one, other in pairs], n=4)
    memory = found["eager"]["peak_mib"] / found["ours"]["peak_mib"]
    print(f"eager / ours: time {ratio:.2f} (quartiles {low:.2f} to {high:.2f}), peak memory {memory:.2f}")
    if options.profile:
        subprocess.run([sys.executable, *sys.argv, "--run", "profile"], check=True)


class _Worker:
    """One of the two in a process of its own, which is stopped while the other has its turn.

    A shared machine changes its pace from minute to minute. Steps in turns meet the same pace; a ratio of two long runs
    does not. What a step leaves going behind it (the teacher, a micro-batch ahead) stands still, too, and is paid for.
    """

    def __init__(self, name: str) -> None:
        self.name, command = name, [sys.executable, *sys.argv, "--run", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> _Worker:
        self._answer()  # ready
        self.process.send_signal(signal.SIGSTOP)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def step(self) -> float:
        """Return the seconds of one step."""
        return self._ask("step")["seconds"]

    def facts(self) -> dict[str, float]:
        """Return loss and peak memory."""
        return self._ask("facts")

    def _ask(self, question: str) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.send_signal(signal.SIGCONT)
        print(question, file=self.process.stdin, flush=True)
        answer = self._answer()
        self.process.send_signal(signal.SIGSTOP)
        return answer

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The process of {self.name!r} has ended; it says above why.")
        answer: dict[str, float] = json.loads(line)
        return answer


def _serve(steps: Steps) -> None:
    """Answer the questions of a :class:`_Worker`, the first of which is whether all is made."""
    print("{}", flush=True)
    for question in sys.stdin:
        answer = {"seconds": steps.timed()} if question.strip() == "step" else steps.facts()
        print(json.dumps(answer), flush=True)


class Steps:
    """Steps (forward, backward, AdamW) of one implementation."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.set_num_threads(options.threads)
        torch.manual_seed(0)
        self.device = torch.device(options.device)
        teacher_size, size = SIZES[options.teacher], SIZES[options.student]
        teacher = new_vit(replace(teacher_size, last_heads=teacher_size.heads), GRID, channels=3)
        student = new_vit(replace(size, last_heads=teacher_size.heads), GRID, channels=3)
        gray = torch.randn(options.batch, 1, 224, 224)
        eager = options.run == "eager"
        self.task = (plain if eager else ours)(teacher, student, options).to(self.device)
        images = (gray.repeat(1, 3, 1, 1) if eager else gray).to(self.device)
        parameters = [parameter for parameter in self.task.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), fused=not eager)
        self.parts = images.split(options.batch if eager else options.micro_batch or options.batch)
        self.loss = float(self.task.eval()(images).detach())  # without drop path: the same number from both
        self.task.train()
        self.batches: Iterator[tuple[Tensor, ...]] = ((part,) for part in itertools.cycle(self.parts))
        if isinstance(self.task, Distillation) and self.device.type == "cpu":
            self.batches = prepared(self.task, itertools.cycle(self.parts))

    def step(self) -> None:
        """Learn from one batch."""
        for _ in self.parts:
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = self.task(*next(self.batches)) / len(self.parts)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed(self) -> float:
        """Return the seconds of one step."""
        started = time.perf_counter()
        self.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def facts(self) -> dict[str, float]:
        """Return the loss before the first step and the peak of memory so far, in MiB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**20
        return {"loss": self.loss, "peak_mib": peak}


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


def _profile(steps: Steps) -> None:
    steps.step()
    with torch.profiler.profile() as profile:
        steps.step()
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
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each (default 20)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    parser.add_argument("--profile", action="store_true", help="print where our step's time goes")
    parser.add_argument("--run", choices=("eager", "ours", "profile"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
