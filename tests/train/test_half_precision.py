"""Training in fp16, whose gradients are scaled: here on the CPU, where torch has the same scaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning_fabric
import pytest
import safetensors.torch
import torch
from lightning_fabric.plugins import MixedPrecision, Precision
from training import checkpoints, digest, interrupt_at, log, make_teacher, recipe, unip

from edgeunip.errors import RunError, UsageError
from edgeunip.train import fit
from edgeunip.train.checkpoint import State, restore, save
from edgeunip.train.datasets import DataSet
from edgeunip.train.launch import launch
from edgeunip.train.pretrain import fit as pretraining

START = 2.0**10


@pytest.fixture
def fp16(monkeypatch: pytest.MonkeyPatch, micro: None) -> None:
    """Launch with fp16 and a scaler that doubles its scale every three steps."""

    def launched(_: Any) -> lightning_fabric.Fabric:
        scaler = torch.amp.GradScaler("cpu", init_scale=START, growth_interval=3)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1, plugins=plugin)
        fabric.launch()
        torch.set_num_threads(1)
        return fabric

    for module in (fit, pretraining):
        monkeypatch.setattr(module, "launch", launched)


def scale(run: Path) -> list[float]:
    """The scale of the gradients by checkpoint."""
    return [float(safetensors.torch.load_file(path)["scaler/scale"]) for path in checkpoints(run)]


@pytest.mark.usefixtures("fp16")
def test_fine_tuning_clips_and_goes_on_bit_equal(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe(precision="16-mixed", clip=1.0, steps=11)
    whole, cut = fit.train(values, data, tmp_path / "whole").path, tmp_path / "cut"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 8)
        fit.train(values, data, cut)
    assert scale(cut) == [2 * START, 4 * START]  # after steps 3 and 6
    fit.resume(cut)
    assert scale(cut) == scale(whole) == [4 * START, 8 * START]
    assert digest(cut) == digest(whole)


@pytest.mark.usefixtures("fp16")
def test_distillation_goes_on_bit_equal(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = str(make_teacher(tmp_path / "teacher.safetensors"))
    values, images = unip(teacher=teacher, precision="16-mixed", clip=1.0), str(data_folder / "images")
    whole, cut = pretraining.pretrain(values, images, tmp_path / "whole", say=print).path, tmp_path / "cut"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 10)
        pretraining.pretrain(values, images, cut, say=print)
    pretraining.resume(cut, say=print)
    assert scale(cut) == scale(whole) == [4 * START, 8 * START]
    assert digest(cut) == digest(whole)
    first, *_, last = (line["val"]["loss"] for line in log(whole) if "val" in line)
    assert last < first


def test_a_cpu_has_no_fp16() -> None:
    with pytest.raises(UsageError, match=r"^16-mixed trains on a GPU only\. Set precision=bf16-mixed, or auto\.$"):
        launch(recipe(precision="16-mixed"))


def test_a_checkpoint_of_another_precision_is_refused(tmp_path: Path) -> None:
    """In both directions: a scale that would be forgotten, and one that is missing."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([{"params": list(model.parameters()), "names": ["weight", "bias"]}])
    scaled = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    plain, half = (State(model, optimizer, torch.zeros(2), one) for one in (Precision(), scaled))
    for number, (saved, opened) in enumerate([(plain, half), (half, plain)]):
        save(tmp_path / str(number), saved, 0)
        with pytest.raises(RunError, match=r"^The checkpoint is of another precision: .*fp16's scale of"):
            restore(tmp_path / str(number), opened)
