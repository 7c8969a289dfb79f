"""``distill``: the training loop with a teacher's outputs in its batches and in its loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning_fabric
import torch
from torch import Tensor

from edgeunip.compress.distill import cache, lesson, pictures, start
from edgeunip.compress.distill import teacher as teachers
from edgeunip.compress.distill.cache import Kind, Outputs
from edgeunip.compress.distill.lesson import Lesson
from edgeunip.compress.distill.pictures import MixedDraw, Shelf, TaughtBatches, Unlabelled
from edgeunip.compress.distill.task import TaughtTask
from edgeunip.compress.distill.teacher import Teacher
from edgeunip.errors import RunError, UsageError
from edgeunip.train import checkpoint, fit, init, settings
from edgeunip.train import run as runs
from edgeunip.train.augment import Augmentation
from edgeunip.train.corpus.corpus import Corpus
from edgeunip.train.datasets import DataSet
from edgeunip.train.launch import launch, one_rank_first, owned
from edgeunip.train.linear import LinearSegmentor
from edgeunip.train.loader import CACHE_BYTES, Pictures
from edgeunip.train.pretrain.unip import Teacher as AttentionTeacher
from edgeunip.train.public.own import open_run as open_encoder
from edgeunip.train.recipe import Recipe
from edgeunip.train.resolve import resolve
from edgeunip.train.run import Run
from edgeunip.train.vit import SIZES

CACHE = "cache"  # beside the run


def distill(plan: Lesson, recipe: Recipe, data: DataSet | None = None, out: Path | None = None) -> Run:
    """Train a student under a teacher and leave the run in the folder ``out`` (by default a new one in ``runs/``).

    Args:
        plan: what it learns from.
        recipe: the student's, as training takes it; its size is named.
        data: labelled images; None for those of the teacher.
        out: the run's folder.

    Raises:
        UsageError: lesson, recipe, teacher and data do not fit.
        RunError: the teacher is no finished run, or ``out`` holds a run already.
        DataError: the data set or the unlabelled images have a defect.
        TrainingError: the loss is not finite, or memory is exhausted.
    """
    taught_by = teachers.open_run(plan.teacher)
    recipe = teachers.with_size(recipe, taught_by)
    require_fitting(plan, recipe, taught_by)
    fabric = launch(recipe)
    data = (data or taught_by.data()).seen_as(recipe.modality)
    teacher = Teacher(taught_by, fabric.device)
    data.require_classes(taught_by.classes.names, who="teacher")
    with one_rank_first(fabric):
        encoder = init.open_start(recipe, fabric.print)
        facts = fit.checked(data)
        extra = pictures.open_unlabelled(plan.unlabelled, data) if plan.unlabelled else None
    recipe = _with_heads(resolve(recipe, data, encoder), plan, taught_by)
    out = fabric.broadcast(out or fit.new_folder(recipe, data))
    with owned(fabric, out):
        if fabric.global_rank == 0:
            chosen = start.choose_blocks(plan, recipe, teacher)
            about = {**teacher.facts(), "blocks": list(chosen)}
            seen = {**facts, "unlabelled": _facts(extra)}
            beside, origin = {lesson.FILE: plan.to_toml()}, encoder.origin if encoder else None
            runs.create(out, recipe, data, seen, init=origin, teacher=about, beside=beside)
        fabric.barrier()
        return Classroom(fabric, runs.open_run(out), data, plan, teacher, extra).teach()


def resume(path: Path, data: DataSet | None = None) -> Run:
    """Go on with the lesson in ``path`` from its newest whole checkpoint, to the very weights it would have ended with.

    Raises:
        RunError: the folder is no taught run, or the data or the teacher are not those it was started with.
    """
    run = runs.open_run(path)
    if not run.is_taught:
        raise RunError("The run has no teacher", where=path, remedy=f"Go on with: edgeunip train --resume {path}")
    plan = settings.read(path / lesson.FILE, Lesson())
    fabric = launch(run.recipe)
    teacher = Teacher(teachers.open_run(plan.teacher), fabric.device)
    if teacher.sha256 != run.provenance["teacher"]["sha256"]:
        raise RunError("The teacher has changed since the run was started", where=plan.teacher)
    data = (data or run.data()).seen_as(run.recipe.modality)
    fit.require_unchanged(run, data)
    extra = pictures.open_unlabelled(plan.unlabelled, data) if plan.unlabelled else None
    if _facts(extra) != run.provenance["data"]["unlabelled"]:
        raise RunError("The unlabelled images have changed since the run was started", where=plan.unlabelled)
    with owned(fabric, path):
        return Classroom(fabric, run, data, plan, teacher, extra).teach()


def require_fitting(plan: Lesson, recipe: Recipe, taught_by: Run) -> None:
    """Refuse what cannot be taught, before anything is opened.

    Raises:
        UsageError: what and why.
    """
    if recipe.head == "linear":
        raise UsageError("A linear probe cannot be taught", remedy="Leave the head out.")
    if recipe.modality != taught_by.recipe.modality:
        why = f"the teacher saw {taught_by.recipe.modality}, the student is to see {recipe.modality}"
        raise UsageError("Teacher and student see different modalities", why=why)
    if plan.unlabelled and recipe.batch < 2:
        raise UsageError("With unlabelled images a batch has 2 pictures or more", remedy="Raise batch.")
    if not plan.attention:
        return
    for one, size in (("student", recipe.size), ("teacher", taught_by.recipe.size)):
        if size not in SIZES:
            what = f"The {one} has no attention: its size is {size}"
            raise UsageError(what, remedy="Leave attention out, or set attention=0.")
    if recipe.merge or taught_by.recipe.merge:
        what = "Merged tokens have no attention that could be compared"
        raise UsageError(what, remedy="Set attention=0, or merge=0 in teacher and student.")
    if (recipe.mean, recipe.std) != (taught_by.recipe.mean, taught_by.recipe.std):
        raise UsageError("With attention, mean and std are the teacher's", remedy="Leave both out.")


def _with_heads(recipe: Recipe, plan: Lesson, taught_by: Run) -> Recipe:
    """Split the last block's attention as the teacher's is, where it is compared or taken over."""
    mine, theirs = SIZES.get(recipe.size), SIZES.get(taught_by.recipe.size)
    if not (mine and theirs) or not (plan.attention or (mine.dim == theirs.dim and not recipe.init)):
        return recipe
    heads = taught_by.recipe.last_heads or theirs.last_heads
    if mine.dim % heads:
        raise UsageError(f"The teacher's {heads} last_heads do not divide the width {mine.dim} of the student")
    return replace(recipe, last_heads=heads)


def _facts(extra: tuple[Corpus, tuple[int, ...]] | None) -> dict[str, Any] | None:
    """Return what the provenance keeps of unlabelled images."""
    if extra is None:
        return None
    corpus, chosen = extra
    return {"source": corpus.location, "images": len(chosen), "list_sha256": corpus.fingerprint()}


class Classroom:
    """One rank's view of a lesson: teacher, pictures, outputs on disk, and the trainer that brings them together."""

    def __init__(
        self,
        fabric: lightning_fabric.Fabric,
        run: Run,
        data: DataSet,
        plan: Lesson,
        teacher: Teacher,
        extra: tuple[Corpus, tuple[int, ...]] | None,
    ) -> None:
        self.fabric, self.run, self.data, self.plan, self.teacher, self.extra = fabric, run, data, plan, teacher, extra
        self.kinds: tuple[Kind, ...] = ("logits", "features") if plan.features else ("logits",)
        self.folder = Path(plan.cache) if plan.cache else run.path.resolve().parent / CACHE

    def teach(self) -> Run:
        """Ask the teacher what it has not been asked yet, then train the student."""
        agc, ignore = self.teacher.run.recipe.agc_parameters(), self.run.classes.ignore
        seen = [Pictures(self.data, self.data.split("train"), agc, cache=0)]
        outputs = [self._outputs(seen[0], pictures.hashes(self.data, "train"))]
        if self.extra:
            corpus, chosen = self.extra
            others = Unlabelled(corpus, chosen, agc, ignore, cache=0)
            outputs.append(self._outputs(others, map(corpus.hash, chosen)))
        self.fabric.barrier()
        fresh = not checkpoint.exists(self.run.path / checkpoint.FOLDER)
        return Pupil(self, outputs, self._start() if fresh else None).fit()

    def _outputs(self, seen: cache.Shown, hashes: Iterable[str]) -> Outputs:
        outputs = Outputs(self.folder / cache.key(self.teacher, hashes), len(seen))
        share = {"rank": self.fabric.global_rank, "ranks": self.fabric.world_size}
        outputs.fill(self.teacher, seen, self.kinds, say=self.fabric.print, **share)
        return outputs

    def _start(self) -> fit.Start | None:
        """Return what fills the student: the teacher's blocks, an encoder, or nothing."""
        chosen = tuple(self.run.provenance["teacher"]["blocks"])
        if chosen:
            return lambda model: start.load_blocks(model, self.teacher, chosen)
        return fit.loading(init.open_start(self.run.recipe, self.fabric.print))


class Pupil(fit.Trainer):
    """A trainer whose batches carry the teacher's outputs, and whose task is the lesson's.

    Args:
        room: teacher and pictures.
        outputs: of the labelled pictures, then of the unlabelled ones, if any.
        fill: what the student starts from.
    """

    command = "edgeunip distill"

    def __init__(self, room: Classroom, outputs: list[Outputs], fill: fit.Start | None) -> None:
        self.room, self.outputs = room, outputs
        super().__init__(room.fabric, room.run, room.data, fill)

    def _make_task(self, weights: Tensor) -> TaughtTask:
        plan, teacher = self.room.plan, self.room.teacher
        channels, attention = None, None
        if plan.features:
            mean, std = (torch.from_numpy(value) for value in self.outputs[0].statistics())
            channels = mean, std
        if plan.attention:
            encoder = open_encoder(teacher.run.path, str(teacher.run.path))
            attention = AttentionTeacher(encoder, len(encoder.heads))
        assert not isinstance(self.model, LinearSegmentor)  # refused before
        return TaughtTask(self.model, weights, self.run.classes.ignore, plan, channels=channels, attention=attention)

    def _make_batches(self, augment: Augmentation, share: dict[str, int]) -> TaughtBatches:
        recipe, extra = self.recipe, self.room.extra
        shelves = [Shelf(self.train_pictures, self.outputs[0])]
        draw = MixedDraw(recipe.seed, recipe.batch, len(self.train_pictures))
        if extra:
            corpus, chosen = extra
            kept = CACHE_BYTES // max(1, self._workers())
            others = Unlabelled(corpus, chosen, recipe.agc_parameters(), self.run.classes.ignore, cache=kept)
            shelves.append(Shelf(others, self.outputs[1]))
            draw = replace(draw, unlabelled=len(chosen), share=self.room.plan.unlabelled_of(recipe.batch))
        return TaughtBatches(tuple(shelves), self.room.kinds, augment=augment, draw=draw, **share)
