"""Checkpoints: what is kept, what is refused, and what happens to a damaged one."""

from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from lightning_fabric.plugins import Precision
from training import MICRO, checkpoints, digest, log, recipe

from edgeunip import durable
from edgeunip.errors import RunError, StorageError
from edgeunip.train import checkpoint, fit, segmentor
from edgeunip.train.checkpoint import State, load_weights, restore, save
from edgeunip.train.datasets import DataSet
from edgeunip.train.optim import parameter_groups
from edgeunip.train.vit import Backbone


def state(*, seed: int = 0, classes: int = 3, dim: int = 32, steps: int = 0) -> State:
    """A small model and its AdamW after a few steps."""
    torch.manual_seed(seed)
    model = segmentor.build(Backbone(replace(MICRO, dim=dim), (2, 2)), "light", classes)
    optimizer = torch.optim.AdamW(parameter_groups(model, 2, weight_decay=0.05, layer_decay=1.0), lr=1e-3)
    found = State(model, optimizer, torch.zeros(2, dtype=torch.float64), Precision())
    for _ in range(steps):
        train(found)
    return found


def train(at: State) -> None:
    loss = at.model(torch.randn(2, 1, 32, 32)).square().mean()
    loss.backward()
    at.optimizer.step()
    at.optimizer.zero_grad()
    at.loss.add_(torch.tensor([loss.item(), 1]))


def content(at: State) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in checkpoint._tensors(at)}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    first = state(steps=2)
    save(tmp_path, first, 2)
    other = state(seed=1)
    assert restore(tmp_path, other) == (2, [])
    assert content(other) == content(first)
    assert other.loss[1] == 2
    for one in (first, other):
        torch.manual_seed(7)
        train(one)
    assert content(other) == content(first)


def test_without_a_checkpoint(tmp_path: Path) -> None:
    untouched = state()
    before = content(untouched)
    assert restore(tmp_path / "none", untouched) == (0, [])
    (tmp_path / ".step-00000002-abc.safetensors.partial").touch()
    (tmp_path / "step-9.safetensors").touch()
    assert restore(tmp_path, untouched) == (0, [])
    assert content(untouched) == before


def names(folder: Path) -> list[str]:
    return [path.name[:13] for path in sorted(folder.iterdir())]


def test_two_are_kept_in_plain_sight(tmp_path: Path) -> None:
    at = state(steps=1)
    for step in (3, 6, 9, 12):
        save(tmp_path, at, step)
    assert names(tmp_path) == ["step-00000009", "step-00000012"]
    for path in tmp_path.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem.split("-")[2]
        assert safetensors.torch.load_file(path).keys() == content(at).keys()  # no pickle: safetensors reads it


def test_after_a_fallback_no_damaged_one_is_kept(tmp_path: Path) -> None:
    """A run that went back to 3 and stops at 5 leaves 3 and 5, not the damaged 6."""
    at = state(steps=1)
    save(tmp_path, at, 3)
    save(tmp_path, at, 6)
    damage(checkpoints_in(tmp_path)[-1])
    assert restore(tmp_path, at)[0] == 3
    save(tmp_path, at, 5)
    assert names(tmp_path) == ["step-00000003", "step-00000005"]
    assert restore(tmp_path, at) == (5, [])


def checkpoints_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def damage(path: Path, *, bit: int = 4000, length: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data) if length is None else path.read_bytes()[:length])


def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, state(steps=1), 3)
    (path,) = tmp_path.iterdir()
    whole, rng = path.read_bytes(), random.Random(0)
    fresh = state(seed=1)
    before = content(fresh)
    damages: list[dict[str, Any]] = [{"bit": rng.randrange(8 * len(whole))} for _ in range(60)]
    damages += [{"length": rng.randrange(len(whole))} for _ in range(20)] + [{"length": 0}]
    for change in damages:
        path.write_bytes(whole)
        damage(path, **change)
        with pytest.raises(RunError, match=r"^No checkpoint of this run is whole: .* Start a new run"):
            restore(tmp_path, fresh)
    assert content(fresh) == before
    path.write_bytes(whole)
    assert restore(tmp_path, fresh) == (3, [])


def test_the_one_before_is_taken_and_told(tmp_path: Path) -> None:
    older, newer = state(steps=1), state(steps=2)
    save(tmp_path, older, 3)
    save(tmp_path, newer, 6)
    newest = checkpoints_in(tmp_path)[-1]
    damage(newest)
    fresh = state(seed=1)
    step, told = restore(tmp_path, fresh)
    assert step == 3
    assert told == [f"The checkpoint {newest} is damaged; falling back to the one before."]
    assert content(fresh) == content(older)


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path, state(steps=1), 3)
    wider, more = state(dim=48), state(classes=5)
    before = content(more)
    with pytest.raises(RunError, match=r"^The weights do not fit the model in 4 places: .*\(head\.classify\.bias, hea"):
        restore(tmp_path, more)
    assert content(more) == before
    with pytest.raises(RunError, match=r"in \d\d places: .*\(backbone\.vit\.blocks\.0\.attn\.proj\.bias, "):
        restore(tmp_path, wider)


def test_weights_of_another_model(tmp_path: Path) -> None:
    model = state().model
    weights = dict(model.state_dict())
    weights["extra"] = weights.pop("backbone.vit.cls_token")
    with pytest.raises(RunError, match=r"in 2 places: w\.safetensors \(backbone\.vit\.cls_token, extra\)$"):
        load_weights(model, weights, Path("w.safetensors"))


def test_a_full_disk_keeps_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = state(steps=1)
    save(tmp_path, at, 3)
    save(tmp_path, at, 6)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StorageError, match=r"step-00000009-.* \(No space left on device\)\. Free some space"):
        save(tmp_path, at, 9)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_step_counts_of_a_fused_optimizer_move_with_their_parameters(tmp_path: Path) -> None:
    at = state(steps=1)
    save(tmp_path, at, 3)
    restore(tmp_path, at)
    for parameter, moments in at.optimizer.state.items():
        assert {value.device for value in moments.values()} == {parameter.device}


# In a run


@pytest.mark.usefixtures("micro")
@pytest.mark.parametrize("length", [None, 1000])
def test_a_run_goes_on_from_the_one_before(
    whole_run: Path,
    data: DataSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    length: int | None,
) -> None:
    """The newest checkpoint bit-flipped or truncated: the run falls back to the other, says so, and ends bit-equal."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(fit.Trainer, "_evaluate", stop_at(8))
        with pytest.raises(KeyboardInterrupt):
            fit.train(recipe(), data, out)
    older, newest = checkpoints(out)
    damage(newest, length=length)
    capsys.readouterr()
    fit.resume(out)
    assert f"The checkpoint {newest} is damaged; falling back to the one before." in capsys.readouterr().out
    assert digest(out) == digest(whole_run)
    assert log(out) == log(whole_run)
    assert older.name.startswith("step-00000003")


def stop_at(step: int) -> Any:
    real = fit.Trainer._evaluate

    def stopped(trainer: fit.Trainer, done: int) -> Any:
        if done == step:
            raise KeyboardInterrupt
        return real(trainer, done)

    return stopped


@pytest.mark.usefixtures("micro")
def test_a_run_without_a_whole_checkpoint(whole_run: Path, data: DataSet, tmp_path: Path) -> None:
    out = fit.train(recipe(steps=7), data, tmp_path / "run").path
    for path in checkpoints(out):
        damage(path)
    with pytest.raises(RunError, match=r"^No checkpoint of this run is whole: .*checkpoints\. Start a new run\.$"):
        fit.resume(out)
