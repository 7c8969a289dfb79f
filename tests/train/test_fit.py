"""The training loop: what it leaves behind, and that no interruption changes it."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from dataset_trees import encode
from training import (
    EXECUTABLE,
    ForkServer,
    checkpoints,
    digest,
    environment,
    interrupt_at,
    log,
    make_data,
    recipe,
    scene,
)

from edgeunip import durable
from edgeunip.errors import DataError, RunError, TrainingError, UsageError
from edgeunip.train import fit, loop
from edgeunip.train import run as runs
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.recipe import Recipe
from edgeunip.train.settings import override

pytestmark = pytest.mark.usefixtures("micro")
KILLED = -signal.SIGKILL


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report of the runs in this process undrawn: half of a short run's time, and not the subject here."""
    monkeypatch.setattr(fit.report, "write", lambda *_: None)


def test_what_a_run_leaves(whole_run: Path, data: DataSet) -> None:
    run = runs.open_run(whole_run)
    assert run.size == (64, 80)
    found = replace(recipe(), size="tiny", height=64, width=80, crop_height=64, crop_width=80, last_heads=4)
    assert run.recipe == found
    assert [(line["step"], *sorted(line)) for line in log(whole_run)] == [
        (4, "step", "val"),
        (8, "step", "val"),
        (10, "loss", "lr", "step"),
        (12, "loss", "lr", "step"),
        (12, "step", "val"),
    ]
    assert [path.name[:13] for path in checkpoints(whole_run)] == ["step-00000006", "step-00000009"]
    weights = safetensors.torch.load_file(whole_run / "weights.safetensors")
    assert weights.keys() == run.model().state_dict().keys()
    assert (whole_run.parent / "latest").resolve() == whole_run
    assert runs.latest(whole_run.parent) == whole_run
    assert run.provenance["data"]["fingerprints"]["val"] == data.fingerprint("val")
    pixels = run.provenance["data"]["class_pixels"]["train"]
    assert sum(pixels.values()) == 10 * 62 * 80
    files = [path for path in whole_run.rglob("*") if path.is_file() and path.parent.name != "tensorboard"]
    assert {path.suffix for path in files} <= {".toml", ".json", ".jsonl", ".safetensors", ".png", ""}  # no pickle


def test_a_second_run_is_the_same(whole_run: Path, data: DataSet, tmp_path: Path) -> None:
    again = fit.train(recipe(), data, tmp_path / "run").path
    assert digest(again) == digest(whole_run)
    assert log(again) == log(whole_run)


def test_another_seed_is_another_run(whole_run: Path, data: DataSet, tmp_path: Path) -> None:
    """Negative control of every comparison of digests here."""
    other = fit.train(recipe(seed=1), data, tmp_path / "run").path
    assert digest(other) != digest(whole_run)
    assert log(other) != log(whole_run)


@pytest.mark.parametrize("step", [1, 5, 6])  # before the first checkpoint, between two, just after one
def test_an_interrupted_run_ends_as_the_whole_one(
    whole_run: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            fit.train(recipe(), data, tmp_path / "run")
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    torch.manual_seed(99)  # what the process drew before must not matter
    fit.resume(tmp_path / "run")
    assert digest(tmp_path / "run") == digest(whole_run)
    assert log(tmp_path / "run") == log(whole_run)


def test_a_resume_without_its_moments_is_noticed(
    whole_run: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: a checkpoint that forgets AdamW's moments does not pass the comparison."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, 8)
        with pytest.raises(KeyboardInterrupt):
            fit.train(recipe(), data, tmp_path / "run")
    real = loop.checkpoint.restore

    def forgetful(folder: Path, state: Any) -> Any:
        found = real(folder, state)
        for moments in state.optimizer.state.values():
            moments["exp_avg"].zero_()
        return found

    monkeypatch.setattr(loop.checkpoint, "restore", forgetful)
    fit.resume(tmp_path / "run")
    assert digest(tmp_path / "run") != digest(whole_run)


def test_killed_processes(whole_run: Path, data_folder: Path, tmp_path: Path, server: ForkServer) -> None:
    out = tmp_path / "run"
    for steps in (2, 5, 1, 4):  # counted anew by each process: after 2; 5; 3+1; 3+4 of the run's 12 steps
        assert server.train(data_folder, out, {}, after=steps) == [KILLED]
    assert server.train(data_folder, out, {}) == [0], server.read()
    assert digest(out) == digest(whole_run)
    assert log(out) == log(whole_run)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_leave(
    whole_run: Path, data_folder: Path, tmp_path: Path, server: ForkServer, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "run"
    assert server.train(data_folder, out, {}, send=number, after=5) == [code], server.read()
    done = int(checkpoints(out)[-1].name[5:13])
    assert done in (5, 6, 7)  # the step at hand when the signal came
    assert f"Stopped after step {done}; go on with: edgeunip train --resume {out}" in server.read()
    assert not (out / "weights.safetensors").exists()
    assert server.train(data_folder, out, {}) == [0], server.read()
    assert digest(out) == digest(whole_run)
    assert log(out) == log(whole_run)


def test_a_second_signal_is_immediate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one of a kind only leaves a note; then the handler from before is back, and in the end both are."""
    trainer = SimpleNamespace(stop_signal=0)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), loop._signals(trainer):  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        assert trainer.stop_signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is before
        os.kill(os.getpid(), signal.SIGINT)
        assert trainer.stop_signal == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_a_hundred_random_kills(whole_run: Path, data_folder: Path, tmp_path: Path, server: ForkServer) -> None:
    whole_s = 0.0
    for name in ("first", "second"):  # the server is still starting when it gets the first
        started = time.monotonic()
        assert server.train(data_folder, tmp_path / name, {}) == [0], server.read()
        whole_s = time.monotonic() - started
    rng, kills, runs_ended = random.Random(0), 0, 0
    while kills < 100:
        out = tmp_path / f"run{runs_ended}"
        while server.train(data_folder, out, {}, after=rng.uniform(0.2, 1) * whole_s) == [KILLED]:
            kills += 1
        assert digest(out) == digest(whole_run), f"{kills} kills"
        assert log(out) == log(whole_run), f"{kills} kills"
        runs_ended += 1
    print(f"{kills} kills, {runs_ended} runs ended bit-equal")


def command(*words: object) -> list[str]:
    return [str(word) for word in (EXECUTABLE, *words)]


@pytest.mark.slow
def test_the_command_line_killed_and_resumed(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real program at the real size of ViT-tiny, SIGKILL in the middle."""
    monkeypatch.undo()  # the micro model
    values = {"steps": 8, "batch": 4, "threads": 1, "checkpoint_every": 2, "precision": "32-true"}
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    out = tmp_path / "run"
    words = command("train", "--data", data.source, *settings, "--out", out)
    killed = subprocess.Popen(words, env=environment())
    deadline = time.monotonic() + 60
    while not checkpoints(out) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == KILLED
    assert not (out / "weights.safetensors").exists()
    resumed = subprocess.Popen(command("train", "--resume", out), env=environment())
    whole = fit.train(recipe_of(values), data, tmp_path / "whole").path
    assert resumed.wait(60) == 0
    assert digest(out) == digest(whole)
    assert log(out) == log(whole)


def recipe_of(values: dict[str, Any]) -> Recipe:
    return override(Recipe(), values)


# Two ranks


STILL = {"drop_path": 0, "dropout": 0}  # a rank draws its own dropout, everything else is the same on any number


def gradients(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the gradients of step 1: AdamW's first moment after it is a tenth of them."""
    tensors = safetensors.torch.load_file(checkpoint)
    return {name: 10 * value for name, value in tensors.items() if name.endswith("/exp_avg")}


@pytest.mark.parametrize("head", ["light", pytest.param("uper", marks=pytest.mark.slow)])
def test_two_ranks_train_as_one(data_folder: Path, tmp_path: Path, server: ForkServer, head: str) -> None:
    """The gradient agrees to 1e-5 of its largest entry, the losses of 12 steps to 1e-5.

    Only at a low rate: AdamW makes a full step of the rounding noise where a gradient is zero by construction (a bias
    or a scale before a batch norm). At the default rate the curves of the light head part by 1e-3 at step 5.
    """
    first, losses = [], []
    for ranks in (1, 2):
        values = {**STILL, "head": head, "lr": 1e-5, "clip": 0}
        short, out = tmp_path / f"short{ranks}", tmp_path / f"run{ranks}"
        two_steps = {**values, "steps": 2, "checkpoint_every": 1}
        assert server.train(data_folder, short, two_steps, ranks=ranks) == [0] * ranks, server.read()
        assert server.train(data_folder, out, values, ranks=ranks) == [0] * ranks, server.read()
        first.append(gradients(checkpoints(short)[0]))
        losses.append([line["loss"] for line in log(out) if "loss" in line])
    largest = max(float(value.abs().max()) for value in first[0].values())
    assert largest > 1e-2
    for name, value in first[0].items():
        assert float((first[1][name] - value).abs().max()) < 1e-5 * largest, name
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_of_two_ranks(data_folder: Path, tmp_path: Path, server: ForkServer) -> None:
    """Both save and leave together, and the run ends as one that nobody disturbed."""
    assert server.train(data_folder, tmp_path / "whole", STILL, ranks=2) == [0, 0], server.read()
    codes = server.train(data_folder, tmp_path / "run", STILL, ranks=2, send=signal.SIGTERM, after=5)
    assert codes == [143, 143], server.read()
    assert server.train(data_folder, tmp_path / "run", STILL, ranks=2) == [0, 0], server.read()
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    losses = [[line.get("loss", 0) for line in log(tmp_path / run)] for run in ("run", "whole")]
    np.testing.assert_allclose(*losses, rtol=1e-12)


@pytest.mark.slow
def test_one_of_two_ranks_dies(data_folder: Path, tmp_path: Path, server: ForkServer) -> None:
    """The other one does not wait for ever; the run goes on from its checkpoint."""
    started = time.monotonic()
    codes = server.train(data_folder, tmp_path / "run", STILL, ranks=2, after=7)
    assert codes[1] == KILLED
    assert codes[0] not in (0, KILLED)
    assert time.monotonic() - started < 30
    assert checkpoints(tmp_path / "run")
    assert server.train(data_folder, tmp_path / "run", STILL, ranks=2) == [0, 0], server.read()


@pytest.mark.slow
def test_torchrun(data_folder: Path, tmp_path: Path, server: ForkServer) -> None:
    """The same by torchrun itself and the real program."""
    values = {**STILL, "steps": 4, "batch": 4, "threads": 1, "precision": "32-true"}
    settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    for ranks in (1, 2):
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
        words = command("train", "--data", data_folder, *settings, "--out", tmp_path / str(ranks))
        subprocess.run([*launch, *words], env=environment(), check=True)
    losses = [[line["loss"] for line in log(tmp_path / run) if "loss" in line] for run in ("1", "2")]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_batch_not_divisible_by_the_ranks(data_folder: Path, tmp_path: Path, server: ForkServer) -> None:
    assert server.train(data_folder, tmp_path / "run", {"batch": 3}, ranks=2) == [2, 2], server.read()
    told = "The batch of 3 cannot be shared by 2 devices. Make batch a multiple of 2, or set devices."
    assert server.read().count(told) == 2
    assert not (tmp_path / "run").exists()


# What ends a run


def test_a_loss_that_is_not_finite(data: DataSet, tmp_path: Path) -> None:
    """A rate of 1e30 makes the second loss NaN: nothing of it is kept."""
    with pytest.raises(TrainingError) as told:
        fit.train(recipe(lr=1e30, warmup=0, clip=0), data, tmp_path / "run")
    where = tmp_path / "run"
    remedy = "Start a new run with a lower lr or a longer warmup; checkpoints are from before."
    assert str(told.value) == f"The loss or a weight is not finite after step 3: {where}. {remedy}"
    assert not checkpoints(where)
    assert not (where / "weights.safetensors").exists()
    with pytest.raises(TrainingError, match=r"^The loss is nan by step 10: "):
        fit.train(recipe(lr=1e30, warmup=0, clip=0, checkpoint_every=99), data, tmp_path / "other")


def poison(patch: pytest.MonkeyPatch, step: int) -> None:
    """Make the gradient of one step infinite, its loss being finite."""
    real = fit.Trainer._step

    def poisoned(trainer: fit.Trainer, at: int, *batch: Any) -> Any:
        if at != step:
            return real(trainer, at, *batch)
        with trainer.model.backbone.vit.cls_token.register_hook(lambda gradient: gradient * math.inf):
            return real(trainer, at, *batch)

    patch.setattr(fit.Trainer, "_step", poisoned)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_an_infinite_gradient_just_before_a_checkpoint(
    whole_run: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float
) -> None:
    """The checkpoint of step 6 is not written; from that of step 3 the run can go on."""
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, 5)
        with pytest.raises(TrainingError, match=r"^The loss or a weight is not finite after step 6: "):
            fit.train(recipe(clip=clip), data, out)
    assert [path.name[:13] for path in checkpoints(out)] == ["step-00000003"]
    fit.resume(out)
    if clip:
        assert digest(out) == digest(whole_run)


def test_an_infinite_gradient_in_the_last_step(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison(monkeypatch, 11)
    with pytest.raises(TrainingError, match=r"^The loss or a weight is not finite after step 12: "):
        fit.train(recipe(), data, tmp_path / "run")
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_memory_exhausted(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(fit.SegmentationTask, "forward", exhausted)
    told = (
        r"^Out of memory at batch 4 of \(64, 80\) pixels\. Lower batch, crop_height and crop_width, or take a smaller"
    )
    with pytest.raises(TrainingError, match=told):
        fit.train(recipe(), data, tmp_path / "run")


def test_a_second_process_refuses_the_folder(data_folder: Path, tmp_path: Path, server: ForkServer) -> None:
    out = tmp_path / "run"
    assert server.train(data_folder, out, {}, after=4) == [KILLED]
    with durable.exclusive(out / ".lock", AssertionError):
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        assert server.train(data_folder, out, {}) == [1]
        assert f"Another process is training this run: {out}. Wait for it, or stop it." in server.read()
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert server.train(data_folder, out, {}) == [0], server.read()  # a killed one's lock is free


def test_a_folder_with_a_run_is_left_alone(whole_run: Path, data: DataSet) -> None:
    before = (whole_run / "recipe.toml").read_text()
    told = "^The folder holds a run already: .*whole. Go on with --resume, or name another --out.$"
    with pytest.raises(RunError, match=told):
        fit.train(recipe(seed=3), data, whole_run)
    assert (whole_run / "recipe.toml").read_text() == before


def test_resuming_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^Not a training run: .*none \(no such folder\)\. Train one first: "):
        fit.resume(tmp_path / "none")
    with pytest.raises(RunError, match=r"^Not a training run: .* \(it holds no recipe\.toml\)"):
        fit.resume(tmp_path)


def stopped_run(out: Path, data: DataSet, patch: pytest.MonkeyPatch) -> Path:
    with patch.context() as inner:
        interrupt_at(inner, 5)
        with pytest.raises(KeyboardInterrupt):
            fit.train(recipe(), data, out)
    return out


def test_resuming_on_changed_data(whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_data(tmp_path / "data")
    run = stopped_run(tmp_path / "run", open_data(str(folder)), monkeypatch)
    image = folder / "images" / "train4.png"
    original = image.read_bytes()
    image.write_bytes(encode(255 - scene(5)[0]))
    with pytest.raises(RunError, match=f"^The train split has changed since the run was started: {folder}"):
        fit.resume(run)
    image.write_bytes(original)
    moved = tmp_path / "elsewhere"
    shutil.move(folder, moved)
    with pytest.raises(DataError, match=f"^No such data-set folder: {folder}"):
        fit.resume(run)
    fit.resume(run, open_data(str(moved)))
    assert digest(run) == digest(whole_run)


def test_an_image_lost_during_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is named, the checkpoints stay, and with the file back the run goes on."""
    folder = make_data(tmp_path / "data")
    data = open_data(str(folder))
    real = fit.Trainer._step

    def stepped(trainer: fit.Trainer, step: int, *batch: Any) -> None:
        real(trainer, step, *batch)
        if step == 4:
            lost.rename(lost.with_suffix(".lost"))
            trainer.train_pictures._kept.clear()

    monkeypatch.setattr(fit.Trainer, "_step", stepped)
    lost = data.split("train")[fit.Draw(0, 4, 10)(6)[0]].image
    with pytest.raises(DataError, match=lost.name):
        fit.train(recipe(), data, tmp_path / "run")
    assert [path.name[:13] for path in checkpoints(tmp_path / "run")] in (
        ["step-00000003"],
        ["step-00000003", "step-00000006"],
    )
    lost.with_suffix(".lost").rename(lost)
    monkeypatch.undo()


def test_a_torn_log(whole_run: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last line is half a line, after a power cut perhaps zeros or nonsense."""
    run = stopped_run(tmp_path / "run", data, monkeypatch)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'\0\0\0\n\xff\xfe\n\n{"step": 7, "lo')
    fit.resume(run)
    assert log(run) == log(whole_run)
    seconds = [json.loads(line)["seconds"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


# What the recipe leaves to the data


def test_resolve(data: DataSet) -> None:
    found = fit.resolve(Recipe(crop_width=48), data)
    assert (found.height, found.width, found.crop_height, found.crop_width, found.last_heads) == (64, 80, 64, 48, 4)
    assert fit.resolve(found, data) == found
    assert fit.resolve(Recipe(height=128), data).crop_height == 128


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"last_heads": 5}, "5 last_heads do not divide the width 32 of the tiny model"),
        ({"head": "uper", "crop_width": 16}, "The uper head needs inputs and crops of 32 pixels or more, not 16"),
        ({"head": "uper", "batch": 1}, "The uper head needs a batch of 2 or more: it normalises one value a picture"),
    ],
)
def test_recipes_that_no_model_fits(data: DataSet, tmp_path: Path, values: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=f"^{told}$"):
        fit.train(recipe(**values), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_light_head_learns_from_single_pictures(data: DataSet, tmp_path: Path) -> None:
    """The other side of the bound on UPerNet's batch."""
    assert (fit.train(recipe(batch=1, steps=2), data, tmp_path / "run").path / "weights.safetensors").exists()


def test_all_else_is_as_in_the_readme(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``out`` the run gets a folder of its own in ``runs/``, and ``latest`` names it."""
    monkeypatch.chdir(tmp_path)
    run = fit.train(recipe(steps=1), data)
    assert run.path.parent == Path("runs")
    assert run.path.name.startswith("tiny-light-data")
    assert runs.latest(Path("runs")).name == run.path.name
    assert run.data().fingerprint("train") == data.fingerprint("train")
