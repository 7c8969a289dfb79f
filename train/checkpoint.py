"""Checkpoints: what training changes, in one safetensors file whose name holds its step and its hash.

Nothing else needs saving: schedule, batches and every random draw are functions of (seed, step).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning_fabric
import safetensors.torch
import torch
from lightning_fabric.plugins import Precision
from torch import Tensor, nn

from edgeunip import durable
from edgeunip.errors import RunError, storage_error

FOLDER = "checkpoints"  # of a run
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{64})\.safetensors")


@dataclass(frozen=True)
class State:
    """What training changes.

    Attributes:
        model: parameters and batch-norm statistics.
        optimizer: AdamW whose groups carry the parameters' names.
        loss: sum of the losses since the last line of the log, and their number; float64 [2].
        precision: holds the scale of fp16's gradients, which grows and shrinks on the way; the others hold nothing.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Tensor
    precision: Precision

    @classmethod
    def fresh(cls, model: nn.Module, optimizer: torch.optim.Optimizer, fabric: lightning_fabric.Fabric) -> State:
        """Make the state of a run that has not begun."""
        loss = torch.zeros(2, dtype=torch.float64, device=fabric.device)
        return cls(model, optimizer, loss, fabric.strategy.precision)


def save(folder: Path, state: State, step: int) -> None:
    """Write the checkpoint after ``step`` steps; it and the one before are kept.

    Raises:
        StorageError: it cannot be written; the older checkpoints are untouched.
    """
    data = safetensors.torch.save(dict(_tensors(state)), {"step": str(step)})
    name = f"step-{step:08d}-{hashlib.sha256(data).hexdigest()}.safetensors"
    durable.write_bytes(folder / name, data)
    before = [path.name for path in _newest_first(folder) if _step(path) < step]
    for path in _newest_first(folder):
        if path.name not in (name, *before[:1]):
            _unlink(path)


def exists(folder: Path) -> bool:
    """Tell whether a run has a checkpoint, whole or not."""
    return bool(_newest_first(folder))


def restore(folder: Path, state: State) -> tuple[int, list[str]]:
    """Load the newest checkpoint that is whole.

    Returns:
        The number of steps done (0 without a checkpoint), and a line about each damaged one that was passed over.

    Raises:
        RunError: there are checkpoints and none is whole, or they belong to another model.
    """
    damaged: list[str] = []
    for path in _newest_first(folder):
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() in path.name:
            _load(state, safetensors.torch.load(data), path)
            return _step(path), damaged
        damaged.append(f"The checkpoint {path} is damaged; falling back to the one before.")
    if damaged:
        raise RunError("No checkpoint of this run is whole", where=folder, remedy="Start a new run.")
    return 0, damaged


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)), key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise storage_error(error, path) from error


def _tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.model.state_dict().items():
        yield f"model/{name}", value.contiguous()
    for name, parameter in _named(state.optimizer):
        for key, value in state.optimizer.state.get(parameter, {}).items():
            yield f"optimizer/{name}/{key}", value.contiguous()
    for key, value in state.precision.state_dict().items():
        yield f"scaler/{key}", torch.tensor(value)
    yield "loss", state.loss


def _named(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


def _load(state: State, tensors: dict[str, Tensor], path: Path) -> None:
    load_weights(state.model, _under("model/", tensors), path)
    state.loss.copy_(tensors["loss"])
    scaler = _under("scaler/", tensors)
    if scaler.keys() != state.precision.state_dict().keys():
        raise RunError(
            "The checkpoint is of another precision: one of the two has fp16's scale of gradients", where=path
        )
    state.precision.load_state_dict({name: value.item() for name, value in scaler.items()})
    for name, parameter in _named(state.optimizer):
        moments = _under(f"optimizer/{name}/", tensors)
        if not moments and _step(path):
            raise RunError("The checkpoint holds no optimiser state", where=f"{path}: {name}")
        # The fused optimiser of a GPU wants its step count there too.
        state.optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in moments.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
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
