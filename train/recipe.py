"""The recipe of a training run: typed values, read from TOML and from ``--set key=value``, stored resolved."""

from __future__ import annotations

import math
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from edgeunip.errors import UsageError, near
from edgeunip.thermal import Agc, Mode

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SizeName = Literal["tiny", "small", "base", "large"]
HeadName = Literal["light", "uper"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run learns. Defaults train from scratch; gray levels are 0..255."""

    # model
    size: SizeName = "tiny"
    head: HeadName = "light"
    last_heads: int = 0  # heads of the last block; 0 = as UNIP distilled this size
    drop_path: float = 0.1  # rate at the last block, rising from 0 at the first
    dropout: float = 0.1  # of whole channels before the classifier
    # picture
    height: int = 0  # of the model's input, pixels, a multiple of 16; 0 = as the data
    width: int = 0
    agc: Mode = "percentile"
    mean: float = 96.9255  # normalisation of the picture (UNIP, SODA's statistics)
    std: float = 47.8976
    # augmentation
    crop_height: int = 0  # of a training crop, pixels, a multiple of 16; 0 = the model's input
    crop_width: int = 0
    scale_min: float = 0.5  # the picture is enlarged by a random factor of the model's input size
    scale_max: float = 2.0
    focus: float = 0.5  # share of the crops that are laid around a pixel of a class drawn at random; 0 = reference
    brightness: float = 32.0  # largest shift, gray levels
    contrast: float = 0.5  # largest relative change
    # optimisation
    steps: int = 4000
    batch: int = 8  # pictures a step over all devices
    lr: float = 1e-3
    warmup: int = 200  # steps
    layer_decay: float = 1.0  # learning-rate factor a block, from the top; 0.85 for pre-trained weights
    weight_decay: float = 0.05
    clip: float = 1.0  # largest gradient norm; 0 = off, as the reference
    balance: float = 0.3  # class weight = frequency^-balance; 0 = reference
    # run
    seed: int = 0
    checkpoint_every: int = 200  # steps
    evaluate_every: int = 1000  # steps; the end is always evaluated
    devices: int = 0  # 0 = every GPU, or one CPU process
    workers: int = -1  # loader processes a device; -1 = 4 on a GPU, none on a CPU
    threads: int = 0  # CPU threads a process; 0 = torch's choice
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            if get_args(kind) and getattr(self, name) not in get_args(kind):
                _refuse(name, getattr(self, name), f"Choose one of {', '.join(map(str, get_args(kind)))}.")
            if kind is float and not math.isfinite(getattr(self, name)):
                _refuse(name, getattr(self, name), "Give a finite number.")
        for name in ("height", "width", "crop_height", "crop_width"):
            if getattr(self, name) % 16 or getattr(self, name) < 0:
                _refuse(name, getattr(self, name), "Give a multiple of 16 pixels, or 0 for the default.")
        for name in ("steps", "batch", "checkpoint_every", "evaluate_every", "lr", "std", "scale_min"):
            if getattr(self, name) <= 0:
                _refuse(name, getattr(self, name), "Give a positive number.")
        for name in ("last_heads", "brightness", "warmup", "weight_decay", "clip", "balance", "devices", "threads"):
            if getattr(self, name) < 0:
                _refuse(name, getattr(self, name), "It must not be negative.")
        for name in ("drop_path", "dropout", "focus", "contrast"):
            if not 0 <= getattr(self, name) <= 1:
                _refuse(name, getattr(self, name), "Give a share between 0 and 1.")
        if not 0 <= self.seed < 1 << 32:
            _refuse("seed", self.seed, "Give a whole number from 0 to 4294967295.")
        if self.workers < -1:
            _refuse("workers", self.workers, "Give a number of processes, or -1 for the default.")
        if self.scale_max < self.scale_min:
            _refuse("scale_max", self.scale_max, "It must not be below scale_min.")
        if not 0 < self.layer_decay <= 1:
            _refuse("layer_decay", self.layer_decay, "Give a factor above 0 and up to 1.")

    def agc_parameters(self) -> Agc:
        """Return the AGC the run's pictures are made with."""
        return Agc(mode=self.agc)

    def to_toml(self) -> str:
        """Return all values as TOML."""
        return tomli_w.dumps(asdict(self))


def read(path: Path) -> Recipe:
    """Read a TOML file of recipe values; what it does not name keeps its default.

    Raises:
        UsageError: the file is missing or no TOML, or a key or value is wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("Cannot read the recipe", where=path, why=error.strerror) from error
    except ValueError as error:
        raise UsageError("The recipe is no TOML", where=path, why=error) from error
    return override(Recipe(), values)


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """Split ``key=value`` settings.

    Raises:
        UsageError: one has no ``=``.
    """
    values = {}
    for setting in settings:
        key, separator, value = setting.partition("=")
        if not separator:
            raise UsageError("A setting must read key=value", where=setting)
        values[key.strip()] = value.strip()
    return values


def override(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with some values replaced; text is read by the field's type.

    Raises:
        UsageError: an unknown key (its near matches are named) or a value of the wrong type or range.
    """
    known = typing.get_type_hints(Recipe)
    for key in values:
        if key not in known:
            raise UsageError("Unknown recipe key", where=key, remedy=near(key, known))
    return replace(recipe, **{key: _convert(key, value, known[key]) for key, value in values.items()})


def _convert(key: str, value: Any, kind: Any) -> Any:
    if get_args(kind):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _refuse(key, value, f"Give a value of type {kind.__name__}.")
    try:
        number = float(value) if kind is float else int(value)
    except (ValueError, OverflowError):
        _refuse(key, value, f"Give a value of type {kind.__name__}.")
    if kind is int and isinstance(value, float) and value != number:
        _refuse(key, value, "Give a whole number.")
    return number


def _refuse(key: str, value: object, remedy: str) -> typing.NoReturn:
    raise UsageError(f"The recipe's {key} cannot be {value!r}", remedy=remedy)
