"""The recipe of a lesson: what a student learns from, and how much each part counts. It stands beside the run's own."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from edgeunip.errors import UsageError, near
from edgeunip.train import settings
from edgeunip.train.conv import CONV_SIZES
from edgeunip.train.init import located
from edgeunip.train.recipe import Recipe
from edgeunip.train.settings import refuse, require_kinds
from edgeunip.train.vit import SIZES

FILE = "lesson.toml"  # of a taught run


@dataclass(frozen=True)
class Lesson:
    """What a student learns from. The four weights are of the terms of one sum."""

    teacher: str = ""  # folder of the teacher's run
    unlabelled: str = ""  # an index or a folder of images without labels
    cache: str = ""  # folder of the teacher's outputs; empty = cache/ beside the run
    labels: float = 1.0  # weight of the cross-entropy on labelled pixels
    logits: float = 1.0  # weight of the divergence from the teacher's softened classes, times temperature^2
    features: float = 0.5  # weight of the squared error of the teacher's map at 1/16, each channel of variance 1
    attention: float = 0.0  # weight of the last block's attention, ViT students only; the teacher then runs each step
    temperature: float = 2.0
    unlabelled_share: float = 0.5  # of each batch, where there are unlabelled images
    blocks: Literal["auto", "teacher", "scratch"] = "auto"  # a ViT starts from; auto = the teacher's, if they fit

    def __post_init__(self) -> None:
        require_kinds(self)
        for name in ("labels", "logits", "features", "attention"):
            if getattr(self, name) < 0:
                refuse(name, getattr(self, name), "It must not be negative.")
        if self.temperature <= 0:
            refuse("temperature", self.temperature, "Give a positive number.")
        if not 0 < self.unlabelled_share < 1:
            refuse("unlabelled_share", self.unlabelled_share, "Give a share above 0 and below 1.")
        if not (self.labels or self.logits or self.features or self.attention):
            refuse("labels", self.labels, "Give at least one of labels, logits, features and attention a weight.")

    def unlabelled_of(self, batch: int) -> int:
        """Return how many pictures of a batch are unlabelled, where there are any: one at least, never all."""
        return min(max(1, round(batch * self.unlabelled_share)), batch - 1)

    def to_toml(self) -> str:
        """Return all values as TOML."""
        return tomli_w.dumps(asdict(self))


def student_size(name: str) -> str:
    """Return the size a student's name stands for: ``micro``, ``unip-micro``, ``edge-s``, ..

    Raises:
        UsageError: there is no such student.
    """
    known = {f"unip-{size}": size for size in SIZES} | {size: size for size in (*SIZES, *CONV_SIZES)}
    if name not in known:
        raise UsageError("Unknown student", where=name, remedy=near(name, (*SIZES, *CONV_SIZES)))
    return known[name]


def collect(file: Path | None, named: Mapping[str, str | None], words: Iterable[str]) -> tuple[Lesson, dict[str, Any]]:
    """Read a lesson, and values of the student's recipe, from a TOML file, options and ``key=value`` words.

    Args:
        file: TOML; its keys are a lesson's or a recipe's.
        named: values of options of their own; None: not given.
        words: ``key=value`` each.

    Raises:
        UsageError: the file cannot be read, a key is neither a lesson's nor a recipe's, or a lesson's value is wrong.
    """
    values = settings.read_values(file) if file else {}
    values |= {key: value for key, value in named.items() if value is not None} | settings.parse(words)
    mine = typing.get_type_hints(Lesson)
    for key in values:
        if key not in (known := {*mine, *typing.get_type_hints(Recipe)}):
            raise UsageError("Unknown key of a lesson or a recipe", where=key, remedy=near(key, known))
    lesson = settings.override(Lesson(), {key: value for key, value in values.items() if key in mine})
    return _located(lesson), {key: value for key, value in values.items() if key not in mine}


def _located(lesson: Lesson) -> Lesson:
    """Name files and folders so that they are found from any folder."""
    places: dict[str, Any] = {name: located(getattr(lesson, name)) for name in ("teacher", "unlabelled")}
    cache = str(Path(lesson.cache).expanduser().resolve()) if lesson.cache else ""
    return settings.override(lesson, places | {"cache": cache})
