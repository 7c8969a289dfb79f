"""What ``edgeunip distill`` does with its words: a lesson and a recipe, and then a new run or an old one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from edgeunip.compress.distill import fit, teacher
from edgeunip.compress.distill.lesson import collect, student_size
from edgeunip.train import settings
from edgeunip.train.datasets import open_data
from edgeunip.train.run import Run

DEFAULT_STUDENT = "edge-s"


def run(
    named: Mapping[str, str | None],
    file: Path | None,
    words: Iterable[str],
    *,
    data: str | None = None,
    splits: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
) -> Run:
    """Start a lesson, or go on with the one in ``resume``.

    Args:
        named: values of ``teacher``, ``size`` (the student's name), ``unlabelled``, ``cache``; None: not given.
        file: TOML of a lesson's and a recipe's values.
        words: ``key=value`` of either.
        data: labelled images; None for the teacher's own.
        splits: sub-folder of their lists.
        out: the run's folder.
        resume: a run to go on with.
    """
    opened = open_data(data, splits=splits) if data else None
    if resume:
        return fit.resume(resume, opened)
    plan, values = collect(file, named, words)
    values["size"] = student_size(values.get("size", DEFAULT_STUDENT))
    recipe = settings.override(teacher.student_recipe(teacher.open_run(plan.teacher)), values)
    return fit.distill(plan, recipe, opened, out)
