"""The pre-training loop: ``pretrain`` starts a run, ``resume`` goes on with one."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning_fabric
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeunip import durable
from edgeunip.errors import RunError, UsageError
from edgeunip.train.attention.scan import choose_layer
from edgeunip.train.checkpoint import State
from edgeunip.train.corpus.batches import MicroBatches, Pictures
from edgeunip.train.corpus.corpus import Corpus, open_corpus
from edgeunip.train.corpus.views import RandomResizedCrop, resize
from edgeunip.train.encoder import Encoder
from edgeunip.train.launch import launch, owned
from edgeunip.train.loader import CACHE_BYTES, Draw, loader
from edgeunip.train.loop import Loop, memory_told
from edgeunip.train.optim import adamw
from edgeunip.train.pretrain import run as runs
from edgeunip.train.pretrain.ahead import prepared
from edgeunip.train.pretrain.objective import Objective, autoencoder, distillation, judge
from edgeunip.train.pretrain.recipe import MaeRecipe, UnipRecipe
from edgeunip.train.pretrain.run import PretrainingRun
from edgeunip.train.pretrain.schedule import cosine_lr, ema_momentum, parameter_groups
from edgeunip.train.pretrain.unip import Distillation
from edgeunip.train.public.own import encoder_bytes
from edgeunip.train.run import WEIGHTS

Say = Callable[[str], None]
LAYER_IMAGES = 64  # that the layer is chosen on, as cl-vs-mim's notebook takes
JUDGED = 16  # held-out pictures at a time


def pretrain(recipe: UnipRecipe | MaeRecipe, data: str, out: Path | None = None, *, say: Say) -> PretrainingRun:
    """Pre-train on the unlabelled images of ``data`` (an index or a folder); leave the encoder in the folder ``out``.

    Raises:
        UsageError: the recipe fits neither teacher, data nor machine.
        DataError: there are no images, or one cannot be read.
        RunError: ``out`` holds a run already.
        TrainingError: the loss is not finite, or memory is exhausted.
    """
    fabric = launch(recipe)
    corpus, source = open_corpus(data), runs.open_source(recipe, say if fabric.global_rank == 0 else _silent)
    recipe, facts = resolve(recipe, corpus, source, ranks=fabric.world_size, say=fabric.print)
    out = fabric.broadcast(out or Path("runs") / f"{recipe.method}-{recipe.size}-{time.strftime('%Y%m%d-%H%M%S')}")
    objective = build(recipe, source)
    with owned(fabric, out):
        if fabric.global_rank == 0:
            runs.create(out, recipe, facts | {"data": corpus.facts()}, source.origin if source else None)
        fabric.barrier()
        return Pretrainer(fabric, runs.open_run(out), corpus, objective).fit()


def resume(path: Path, data: str | None = None, *, say: Say) -> PretrainingRun:
    """Go on with a run from its newest whole checkpoint, to the very weights it would have ended with.

    Args:
        path: the run's folder.
        data: the images, where they are no longer at the place the run was started with.
        say: is told what is opened.

    Raises:
        RunError: the folder is no pre-training run, or images or teacher are not those it was started with.
    """
    run = runs.open_run(path)
    fabric = launch(run.recipe)
    corpus = open_corpus(data or run.provenance["data"]["source"])
    if corpus.fingerprint() != run.provenance["data"]["list_sha256"]:
        raise RunError("The images have changed since the run was started", where=corpus.location)
    objective = build(run.recipe, run.source(say if fabric.global_rank == 0 else _silent))
    with owned(fabric, path):
        return Pretrainer(fabric, run, corpus, objective).fit()


def resolve(
    recipe: UnipRecipe | MaeRecipe, corpus: Corpus, source: Encoder | None, *, ranks: int, say: Say
) -> tuple[UnipRecipe | MaeRecipe, dict[str, Any]]:
    """Fill in what a recipe leaves to teacher, data and machine (0), and return facts for the provenance.

    Raises:
        UsageError: no step can be made with the values.
    """
    holdout = min(recipe.holdout, len(corpus) // 10)
    steps = recipe.steps or int(recipe.epochs * (len(corpus) - holdout) / recipe.batch)
    if steps < 1:
        why = f"{recipe.epochs:g} epochs of {len(corpus) - holdout} pictures"
        raise UsageError(f"A batch of {recipe.batch} leaves no step", why=why, remedy="Lower batch or raise epochs.")
    share = recipe.batch // ranks
    most = recipe.micro_batch or (256 if torch.cuda.is_available() else 16)  # a CPU gains nothing from more, but memory
    micro = next(size for size in range(min(most, share), 0, -1) if share % size == 0)
    recipe = replace(recipe, steps=steps, holdout=holdout, micro_batch=micro)
    if not isinstance(recipe, UnipRecipe):
        return recipe, {}
    if source is None:
        raise UsageError("UNIP needs a teacher", remedy="Name one with --teacher: a file, a run, or a timm model.")
    if recipe.layer:
        return recipe, {"layer": {"layer": recipe.layer, "chosen": "by hand"}}
    chosen = choose_layer(source, _prepared(recipe, corpus, source), target=recipe.target_nmi)
    told = f"; layer {chosen.runner_up} is next, {chosen.margin:.3f} farther from it" if chosen.runner_up else ""
    say(f"Distilling layer {chosen.layer}: NMI {chosen.nmi:.3f}, target {chosen.target}{told}")
    facts = {name: getattr(chosen, name) for name in ("layer", "nmi", "target", "runner_up", "margin", "agreement")}
    return replace(recipe, layer=chosen.layer), {"layer": {**facts, "chosen": "by NMI", "images": LAYER_IMAGES}}


def build(recipe: UnipRecipe | MaeRecipe, source: Encoder | None) -> Objective:
    """Make what a resolved recipe trains, untrained; the same weights each time."""
    torch.manual_seed(recipe.seed)
    if isinstance(recipe, MaeRecipe):
        return autoencoder(recipe, source)
    assert source is not None
    return distillation(recipe, source)


def _prepared(recipe: UnipRecipe, corpus: Corpus, source: Encoder) -> Iterator[Tensor]:
    """Yield pictures spread over the corpus as the teacher will see them, [B, channels, crop, crop]."""
    chosen = np.linspace(0, len(corpus) - 1, min(LAYER_IMAGES, len(corpus))).astype(int)
    channels: int = source.vit.patch_embed.proj.in_channels
    for part in np.array_split(chosen, -(-len(chosen) // JUDGED)):
        views = torch.from_numpy(np.stack([resize(corpus.read(int(index)), recipe.crop) for index in part]))
        yield ((views[:, None].float() - recipe.mean) / recipe.std).expand(-1, channels, -1, -1)


def _silent(_: str) -> None:
    """Say nothing: the first rank has said it."""


class Pretrainer:
    """One rank's view of a pre-training: objective, optimiser, pictures, log."""

    def __init__(
        self, fabric: lightning_fabric.Fabric, run: PretrainingRun, corpus: Corpus, objective: Objective
    ) -> None:
        self.fabric, self.run, self.objective, recipe = fabric, run, objective, run.recipe
        self.recipe = recipe
        trained = self.objective.trained
        groups = parameter_groups(trained, weight_decay=recipe.weight_decay)
        self.optimizer = adamw(groups, precision=recipe.precision, beta2=recipe.beta2)
        self.task, self.stepper = fabric.setup(self.objective, self.optimizer)
        self.average = copy.deepcopy(self.objective.encoder).requires_grad_(False) if recipe.ema else None
        kept = nn.ModuleList([trained, self.average]) if self.average is not None else trained
        state = State.fresh(kept, self.optimizer, fabric)
        self.loop = Loop(
            fabric,
            run.path,
            state,
            steps=recipe.steps,
            checkpoint_every=recipe.checkpoint_every,
            command=f"edgeunip pretrain {recipe.method} --resume {run.path}",
        )
        order = np.random.default_rng((recipe.seed, 0)).permutation(len(corpus))
        share = CACHE_BYTES // max(1, self._workers())
        self.held_out = Pictures(corpus, indices=order[: recipe.holdout])
        self.pictures = Pictures(corpus, indices=order[recipe.holdout :], cache=share)
        self.rate = recipe.base_lr * recipe.batch / 256

    def fit(self) -> PretrainingRun:
        """Run the remaining steps and write the encoder."""
        recipe = self.recipe
        with self.loop.started() as first, closing(self._batches(first)) as batches:
            if first == 0:
                self._judge(0)
            for step in range(first, recipe.steps):
                if step and step % recipe.evaluate_every == 0:
                    self._judge(step)
                self._step(step, batches)
                self.loop.after(step + 1)
            self.loop.require_finite(recipe.steps)
            self._judge(recipe.steps)
        if self.fabric.global_rank == 0:
            durable.write_bytes(self.run.path / WEIGHTS, self._encoder())
        self.fabric.barrier()
        return self.run

    def _batches(self, first: int) -> Generator[tuple[Tensor, ...]]:
        """Yield micro-batches, with the teacher's part of them where it is computed ahead."""
        images, plain = self._images(first), self.recipe.precision in ("auto", "32-true")
        if isinstance(self.objective, Distillation) and self.fabric.device.type == "cpu" and plain:
            return prepared(self.objective, images)  # other precisions hold for the thread that asks for them
        return ((one,) for one in images)

    def _images(self, first: int) -> Iterator[Tensor]:
        recipe, fabric = self.recipe, self.fabric
        batches = MicroBatches(
            self.pictures,
            RandomResizedCrop(recipe.crop, scale=(recipe.scale_min, recipe.scale_max)),
            Draw(recipe.seed, recipe.batch, len(self.pictures)),
            micro=recipe.micro_batch,
            first=first,
            last=recipe.steps,
            rank=fabric.global_rank,
            ranks=fabric.world_size,
        )
        walk = loader(batches, workers=self._workers(), pin=fabric.device.type == "cuda")
        for number, images in enumerate(walk, start=first * batches.a_step):
            normalised = self._normalised(images.to(fabric.device, non_blocking=True))
            yield self._reduced(normalised) if number % 2 else normalised

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.float() - self.recipe.mean) / self.recipe.std

    def _reduced(self, images: Tensor) -> Tensor:
        """Bring images to the second resolution, where the recipe has one."""
        size = self.recipe.second_crop if isinstance(self.recipe, UnipRecipe) else 0
        return F.interpolate(images, size=(size, size), mode="area") if size else images

    def _workers(self) -> int:
        on_gpu = self.fabric.device.type == "cuda"
        return (8 if on_gpu else 0) if self.recipe.workers < 0 else self.recipe.workers

    def _step(self, step: int, batches: Iterator[tuple[Tensor, ...]]) -> None:
        recipe = self.recipe
        epochs = recipe.steps * recipe.batch / len(self.pictures)
        warmup = min(recipe.warmup_epochs, epochs / 2)
        rate = cosine_lr(step * epochs / recipe.steps, base=self.rate, warmup=warmup, epochs=epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        micros = recipe.batch // (recipe.micro_batch * self.fabric.world_size)
        remedy = "Lower micro_batch, or take a smaller --size."
        total = torch.zeros((), dtype=torch.float64, device=self.fabric.device)
        for micro in range(micros):
            with memory_told(f"a micro-batch of {recipe.micro_batch} pictures", remedy):  # the teacher's part of it
                images, *rest = next(batches)
            if micro == 0:
                self.loop.seed(recipe.seed, step)  # after the loader, whose start draws from the same generator
            with (
                memory_told(f"a micro-batch of {tuple(images.shape)}", remedy),
                self.fabric.no_backward_sync(self.task, enabled=micro < micros - 1),
            ):
                loss = self.task(images, *rest) / micros
                self.fabric.backward(loss)
            total += loss.detach()
        self.loop.count(total)
        if recipe.clip:
            self.fabric.clip_gradients(self.task, self.stepper, max_norm=recipe.clip, error_if_nonfinite=False)
        self.stepper.step()
        self.stepper.zero_grad()
        self._follow(step)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        """Move the averaged encoder towards the new one."""
        if self.average is not None:
            weight = 1 - ema_momentum(step, self.recipe.steps, self.recipe.ema)
            pairs = zip(self.average.parameters(), self.objective.encoder.parameters(), strict=True)
            for average, parameter in pairs:
                average.lerp_(parameter, weight)

    def _judge(self, done: int) -> None:
        """Score the held-out pictures on rank 0."""
        if self.fabric.global_rank or not len(self.held_out):
            return
        started = time.monotonic()
        self.objective.eval()
        sums: dict[str, float] = {}
        for start in range(0, len(self.held_out), JUDGED):
            chosen = range(start, min(start + JUDGED, len(self.held_out)))
            views = np.stack([resize(self.held_out[index][0], self.recipe.crop) for index in chosen])
            images = self._normalised(torch.from_numpy(views[:, None]).to(self.fabric.device))
            with self.fabric.autocast():
                found = judge(self.objective, images)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(chosen)
        self.objective.train()
        values = {name: total / len(self.held_out) for name, total in sums.items()}
        told = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.loop.log.score(done, values, f"held out: {told}", took_s=time.monotonic() - started)

    def _encoder(self) -> bytes:
        """Return the encoder that was trained, its average where one was kept."""
        facts = {"method": self.recipe.method, "size": self.recipe.size}
        return encoder_bytes(self.average or self.objective.encoder, licence=self.run.licence, facts=facts)
