"""Checkpoints: model and optimiser in safetensors, found again through an index that knows their hashes.

Nothing else needs saving: schedule, batches and every random draw are functions of (seed, step).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from edgeunip import durable
from edgeunip.errors import RunError
from edgeunip.train.segmentor import Segmentor

KEEP = 2
_INDEX = "index.json"


@dataclass(frozen=True)
class State:
    """What training changes.

    Attributes:
        model: parameters and batch-norm statistics.
        optimizer: AdamW whose groups carry the parameters' names.
    """

    model: Segmentor
    optimizer: torch.optim.Optimizer


def save(folder: Path, state: State, step: int) -> None:
    """Write the checkpoint after ``step`` steps; the newest two are kept.

    Raises:
        StorageError: it cannot be written; the older checkpoints are untouched.
    """
    name = f"step-{step:08d}.safetensors"
    data = safetensors.torch.save(dict(_tensors(state)), {"step": str(step)})
    durable.write_bytes(folder / name, data)
    entry = {"step": step, "file": name, "sha256": hashlib.sha256(data).hexdigest()}
    entries = [entry, *(e for e in _index(folder) if e["file"] != name)]
    durable.write_json(folder / _INDEX, entries[:KEEP])
    for stale in folder.glob("step-*.safetensors"):
        if stale.name not in {e["file"] for e in entries[:KEEP]}:
            stale.unlink()


def restore(folder: Path, state: State) -> tuple[int, list[str]]:
    """Load the newest checkpoint that is whole.

    Returns:
        The number of steps done (0 without a checkpoint), and a line about each damaged one that was passed over.

    Raises:
        RunError: there are checkpoints and none is whole, or they belong to another model.
    """
    damaged: list[str] = []
    for entry in _index(folder):
        path = folder / str(entry["file"])
        data = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(data).hexdigest() == entry["sha256"]:
            _load(state, safetensors.torch.load(data), path)
            return int(entry["step"]), damaged
        damaged.append(f"The checkpoint {path} is damaged or missing; falling back to the one before.")
    if damaged:
        raise RunError("No checkpoint of this run is whole", where=folder, remedy="Start a new run.")
    return 0, damaged


def _index(folder: Path) -> list[dict[str, Any]]:
    path = folder / _INDEX
    if not path.is_file():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunError("The index of the checkpoints is damaged", where=path, why=error) from error
    return entries


def _tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.model.state_dict().items():
        yield f"model/{name}", value.contiguous()
    for name, parameter in _named(state.optimizer):
        for key, value in state.optimizer.state.get(parameter, {}).items():
            yield f"optimizer/{name}/{key}", value.contiguous()


def _named(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


def _load(state: State, tensors: dict[str, Tensor], path: Path) -> None:
    weights = {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
    load_weights(state.model, weights, path)
    for name, parameter in _named(state.optimizer):
        prefix = f"optimizer/{name}/"
        moments = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if not moments:
            raise RunError("The checkpoint holds no optimiser state", where=f"{path}: {name}")
        state.optimizer.state[parameter] = {
            key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
        }


def load_weights(model: Segmentor, weights: dict[str, Tensor], path: Path) -> None:
    """Copy weights into a model.

    Raises:
        RunError: a name or a shape differs; the message lists the first.
    """
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if differing := sorted(set(wanted.items()) ^ set(found.items()), key=str):
        names = ", ".join(dict.fromkeys(name for name, _ in differing[:6]))
        raise RunError(f"The weights do not fit the model in {len(differing)} places", where=path, why=names)
    model.load_state_dict(weights)
