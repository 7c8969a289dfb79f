"""Models from elsewhere, ONNX or OpenVINO files: an adapter in TOML says how to feed and read them.

The adapter stands beside the model, ``MODEL.toml``::

    size = [480, 640]            # height, width of the input, pixels
    channels = 3                 # 1 (default), or 3: the gray picture three times
    layout = "NCHW"              # or NHWC
    dtype = "float32"            # of the input: float32, float16 or uint8
    mean = [123.7, 116.3, 103.5] # in gray levels 0..255, one number or one a channel; default 0
    std = [58.4, 57.1, 57.4]     # default 1
    agc = "percentile"           # how counts become the picture, as in a recipe
    input = "pixel_values"       # may be left out where there is one input
    output = "logits"            # name or number; default 0
    kind = "logits"              # [1, C, h, w]; class-map [1, h, w] or [1, 1, h, w]; none: for speed only
    classes = ["ground", "cow"]  # our class for each of the model's, in the model's order; a name may be repeated
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import openvino
from openvino import opset13 as ops

from edgeunip import thermal
from edgeunip.errors import UsageError, near

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIXES = (".onnx", ".xml")
_TYPES = {"float32": "f32", "float16": "f16", "uint8": "u8"}
_LAYOUTS = ("NCHW", "NHWC")
_KINDS = ("logits", "class-map", "none")
_LARGEST = 8192


@dataclass(frozen=True)
class Adapter:
    """How a model from elsewhere is fed and read; the module's docstring gives the entries of the file."""

    size: tuple[int, int]
    channels: int
    layout: str
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    agc: thermal.Agc
    input: str
    output: str | int
    kind: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
class External:
    """A model file and its adapter.

    Attributes:
        path: of the model file.
        adapter: how to feed and read it.
        source: of the adapter, for messages.
        model: as it was read, its shapes fixed.
    """

    path: Path
    adapter: Adapter
    source: Path
    model: openvino.Model

    @property
    def bytes(self) -> int:
        """Size on disk: the model file, and what lies beside it under its name (weights)."""
        beside = (self.path.with_suffix(".bin"), self.path.with_name(f"{self.path.name}.data"))
        return sum(file.stat().st_size for file in (self.path, *beside) if file.is_file())

    def graph(self, classes: Sequence[str] | None) -> openvino.Model:
        """Return the model as one of ours: picture in, uint8 [1, 1, H, W]; logits out, float32 [1, classes, h, w].

        Args:
            classes: of the data set, in its order; None leaves the model's own outputs, for speed only.

        Raises:
            UsageError: the adapter does not fit the model or the classes.
        """
        model = self.model.clone()
        old = _input(model, self.adapter, self.source).get_node()
        picture = ops.parameter([1, 1, *self.adapter.size], np.uint8, name="picture")
        fed = _fed(picture, self.adapter)
        for target in old.output(0).get_target_inputs():
            target.replace_source_output(fed.output(0))
        results = [ops.result(result.input_value(0)) for result in model.get_results()]
        if classes is not None and self.adapter.kind != "none":
            index = _output(self.model, self.adapter, self.source)
            results = [ops.result(self._logits(model.get_results()[index].input_value(0), classes))]
        return openvino.Model(results, [picture], self.path.stem)

    def _logits(self, value: Any, classes: Sequence[str]) -> Any:
        adapter = self.adapter
        if set(adapter.classes) != set(classes):
            why = f"the data set has {', '.join(classes)}"
            raise UsageError("The adapter's classes are others", where=f"{self.source}: {adapter.classes}", why=why)
        table = [list(classes).index(name) for name in adapter.classes]
        shape = [int(side) for side in value.get_shape()]
        if adapter.kind == "logits":
            if len(shape) != 4 or shape[:2] != [1, len(table)]:
                why = f"the output is {shape}"
                raise UsageError(f"Logits must be [1, {len(table)}, h, w]", where=self.source, why=why)
            return _gathered(ops.convert(value, "f32"), table)
        if shape[0] != 1 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[1] != 1):
            why = f"the output is {shape}"
            raise UsageError("A class map must be [1, h, w] or [1, 1, h, w]", where=self.source, why=why)
        return _one_hot(ops.reshape(value, [1, *shape[-2:]], special_zero=False), table, len(classes))


def is_external(path: Path) -> bool:
    """Tell a model file from the folder of a run or a bundle."""
    return path.suffix.lower() in SUFFIXES


def load(path: Path, adapter: Path | None = None) -> External:
    """Read a model file with the adapter beside it, or else with ``adapter``.

    Raises:
        UsageError: a file is missing or damaged, or the adapter is wrong or does not fit.
    """
    if not path.is_file():
        raise UsageError("No such model file", where=path)
    source = path.with_suffix(".toml")
    if not source.is_file():
        if adapter is None:
            raise UsageError("The model has no adapter", where=path, remedy=f"Write {source.name} or give --adapter.")
        source = adapter
    read = read_adapter(source)
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError("OpenVINO cannot read the model", where=path, why=lines[-1]) from error
    return External(path, read, source, _fixed(model, read, source))


def read_adapter(path: Path) -> Adapter:
    """Read an adapter's TOML file.

    Raises:
        UsageError: it cannot be read, or an entry is missing, unknown or wrong.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError("Cannot read the adapter", where=path, why=error.strerror) from error
    except ValueError as error:
        raise UsageError("The adapter is no TOML", where=path, why=error) from error
    known = Adapter.__dataclass_fields__
    for key in values:
        if key not in known:
            raise UsageError("Unknown adapter entry", where=f"{path}: {key}", remedy=near(key, known))
    entry = _Entries(path, values)
    channels = entry("channels", 1, lambda value: type(value) is int and value in (1, 3), "Give 1 or 3.")
    dtype = entry("dtype", "float32", _one_of(_TYPES), f"Choose one of {', '.join(_TYPES)}.")
    kind = entry("kind", None, _one_of(_KINDS), f"Choose one of {', '.join(_KINDS)}.")
    modes = get_args(thermal.Mode)
    built = Adapter(
        size=tuple(entry("size", None, _is_size, "Give [height, width] in pixels.")),
        channels=channels,
        layout=entry("layout", "NCHW", _one_of(_LAYOUTS), f"Choose one of {', '.join(_LAYOUTS)}."),
        dtype=dtype,
        mean=_each(entry("mean", 0.0, _numbers(channels), _per(channels, "number")), channels),
        std=_each(entry("std", 1.0, _numbers(channels, positive=True), _per(channels, "positive number")), channels),
        agc=thermal.Agc(mode=entry("agc", "percentile", _one_of(modes), f"Choose one of {', '.join(modes)}.")),
        input=entry("input", "", lambda value: isinstance(value, str), "Give the input's name."),
        output=entry("output", 0, _is_output, "Give the output's name, or its number from 0."),
        kind=kind,
        classes=() if kind == "none" else tuple(entry("classes", None, _is_names, "Give a list of class names.")),
    )
    if dtype == "uint8" and (set(built.mean) != {0.0} or set(built.std) != {1.0}):
        raise UsageError("An input of uint8 takes no mean and std", where=path)
    return built


class _Entries:
    """The entries of an adapter, each checked as it is read."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values

    def __call__(self, key: str, default: Any, fits: Callable[[Any], bool], remedy: str) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise UsageError("The adapter lacks an entry", where=f"{self.path}: {key}", remedy=remedy)
        if isinstance(value, bool) or not fits(value):
            raise UsageError(f"The adapter's {key} cannot be {value!r}", where=self.path, remedy=remedy)
        return value


def _one_of(known: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in known


def _is_size(value: Any) -> bool:
    whole = isinstance(value, list) and all(type(side) is int and 0 < side <= _LARGEST for side in value)
    return whole and len(value) == 2


def _is_output(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and value >= 0)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) and name for name in value)


def _numbers(channels: int, *, positive: bool = False) -> Callable[[Any], bool]:
    def fit(value: Any) -> bool:
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) not in (1, channels) or not all(type(number) in (int, float) for number in numbers):
            return False
        return all(math.isfinite(number) and (number > 0 or not positive) for number in numbers)

    return fit


def _per(channels: int, what: str) -> str:
    return f"Give one {what}{', or one a channel' if channels > 1 else ''}."


def _each(value: Any, channels: int) -> tuple[float, ...]:
    numbers = [float(number) for number in (value if isinstance(value, list) else [value])]
    return tuple(numbers * channels if len(numbers) == 1 else numbers)


def _input(model: openvino.Model, adapter: Adapter, source: Path) -> Any:
    names = [name for port in model.inputs for name in port.names]
    if len(model.inputs) != 1:
        raise UsageError(f"The model has {len(model.inputs)} inputs, and one picture to take", where=source, why=names)
    if adapter.input and adapter.input not in names:
        raise UsageError("The model has no such input", where=f"{source}: {adapter.input}", remedy=near("", names))
    return model.inputs[0]


def _output(model: openvino.Model, adapter: Adapter, source: Path) -> int:
    names = [sorted(port.names) for port in model.outputs]
    for index, known in enumerate(names):
        if adapter.output == index or adapter.output in known:
            return index
    known = [name for several in names for name in several]
    remedy = f"It has {len(names)}: {', '.join(known)}."
    raise UsageError("The model has no such output", where=f"{source}: {adapter.output}", remedy=remedy)


def _fixed(model: openvino.Model, adapter: Adapter, source: Path) -> openvino.Model:
    """Fix the model's input to the adapter's shape and check its type."""
    port = _input(model, adapter, source)
    if adapter.kind != "none":
        _output(model, adapter, source)
    height, width = adapter.size
    shape = [1, adapter.channels, height, width] if adapter.layout == "NCHW" else [1, height, width, adapter.channels]
    have, found = port.get_partial_shape(), port.get_element_type().get_type_name()
    if not have.compatible(openvino.PartialShape(shape)):
        raise UsageError(f"The model's input is {have}, the adapter's {shape}", where=source)
    if found != _TYPES[adapter.dtype]:
        known = next((name for name, short in _TYPES.items() if short == found), found)
        raise UsageError(f"The model's input is of {known}, the adapter says {adapter.dtype}", where=source)
    try:
        model.reshape(shape)
    except RuntimeError as error:
        raise UsageError(f"The model cannot take {shape}", where=source) from error
    if any(result.get_output_partial_shape(0).is_dynamic for result in model.get_results()):
        raise UsageError("The model's output has no fixed shape", where=source, remedy="Export it with static shapes.")
    return model


def _fed(picture: Any, adapter: Adapter) -> Any:
    """Turn the gray picture into what the model takes; a mean of three channels makes three channels of one."""
    if adapter.dtype == "uint8":
        value = ops.concat([picture] * adapter.channels, 1) if adapter.channels > 1 else picture
    else:
        mean, std = (np.array(numbers, np.float32)[None, :, None, None] for numbers in (adapter.mean, adapter.std))
        value = ops.multiply(ops.subtract(ops.convert(picture, "f32"), mean), (1 / std).astype(np.float32))
        value = value if adapter.dtype == "float32" else ops.convert(value, _TYPES[adapter.dtype])
    return value if adapter.layout == "NCHW" else ops.transpose(value, [0, 2, 3, 1])


def _gathered(logits: Any, table: list[int]) -> Any:
    """Give each of our classes the largest logit of those that stand for it."""
    if table == list(range(len(table))):
        return logits
    ours = []
    for index in range(max(table) + 1):
        theirs = np.array([at for at, name in enumerate(table) if name == index], np.int64)
        ours.append(ops.reduce_max(ops.gather(logits, theirs, np.int64(1)), np.array([1]), keep_dims=True))
    return ops.concat(ours, 1) if len(ours) > 1 else ours[0]


def _one_hot(ids: Any, table: list[int], classes: int) -> Any:
    """Turn class indices [1, h, w] into logits of 0 and 1; an index that is no class is taken as the nearest."""
    rows = np.eye(classes, dtype=np.float32)[table]
    known = ops.clamp(ops.convert(ids, "f32"), 0.0, float(len(table) - 1))
    return ops.transpose(ops.gather(rows, ops.convert(known, "i64"), np.int64(0)), [0, 3, 1, 2])
