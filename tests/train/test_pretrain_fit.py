"""Pre-training runs: what they leave, that nothing of them is lost, and what is refused."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from training import (
    EXECUTABLE,
    MICRO,
    ForkServer,
    checkpoints,
    digest,
    environment,
    interrupt_at,
    log,
    make_teacher,
    recipe,
    unip,
)

from edgeunip.errors import DataError, RunError, TrainingError, UsageError
from edgeunip.train import fit as finetuning
from edgeunip.train.corpus.corpus import open_corpus
from edgeunip.train.datasets import DataSet
from edgeunip.train.pretrain import ahead, fit
from edgeunip.train.pretrain.describe import describe
from edgeunip.train.pretrain.recipe import MaeRecipe, UnipRecipe
from edgeunip.train.pretrain.run import open_run
from edgeunip.train.pretrain.student import new_vit
from edgeunip.train.pretrain.unip import Distillation, Teacher
from edgeunip.train.public.open import open_encoder
from edgeunip.train.public.own import encoder_bytes
from edgeunip.train.settings import override
from edgeunip.train.vit import SIZES, ViTSize

KILLED = -signal.SIGKILL
pytestmark = pytest.mark.usefixtures("micro")


def silent(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def images(data_folder: Path) -> str:
    return str(data_folder / "images")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors"))


@pytest.fixture(scope="module")
def whole(images: str, teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distillation that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", MICRO)
        return fit.pretrain(unip(teacher=teacher), images, tmp_path_factory.mktemp("runs") / "u", say=silent).path


def mae(**values: Any) -> MaeRecipe:
    base = MaeRecipe(size="tiny", crop=64, steps=6, batch=4, holdout=1, base_lr=0.1, decoder_dim=16, decoder_heads=2)
    return override(base, {"decoder_depth": 1, "checkpoint_every": 2, "threads": 1, "precision": "32-true"} | values)


# What a run leaves


def test_a_run_tells_all_that_made_it(whole: Path, teacher: str, images: str) -> None:
    run = open_run(whole)
    assert isinstance(run.recipe, UnipRecipe)
    assert (run.recipe.teacher, run.recipe.layer, run.recipe.steps, run.recipe.holdout) == (teacher, 2, 12, 1)
    facts = run.provenance
    assert facts["method"] == "unip"
    assert facts["source"]["file"] == teacher and len(facts["source"]["sha256"]) == 64
    assert facts["source"]["licence"] == "CC-BY-NC-4.0"
    assert facts["layer"] == {"layer": 2, "chosen": "by hand"}
    assert (facts["data"]["images"], facts["data"]["source"]) == (16, images)
    assert "timm" in facts["versions"] and facts["machine"]["cores"] >= 1
    lines = log(whole)
    assert [line["step"] for line in lines if "val" in line] == [0, 5, 10, 12]
    assert [line["step"] for line in lines if "loss" in line] == [10, 12]


def test_u12_the_loss_falls_on_pictures_it_never_saw(images: str, teacher: str, tmp_path: Path) -> None:
    """And the student's NMI goes where the teacher's is."""
    values = unip(teacher=teacher, steps=120, batch=8, micro_batch=8, base_lr=0.06, evaluate_every=1000)
    run = fit.pretrain(values, images, tmp_path / "run", say=silent)
    first, last = (line["val"] for line in log(run.path) if "val" in line)
    assert last["loss"] < 0.6 * first["loss"]
    assert first["nmi_teacher"] == last["nmi_teacher"]
    gap = [abs(found["nmi_student"] - found["nmi_teacher"]) for found in (first, last)]
    assert gap[1] < 0.7 * gap[0]


def test_the_encoder_is_a_start_and_keeps_heads_and_licence(whole: Path, data: DataSet, tmp_path: Path) -> None:
    encoder = open_encoder(str(whole), say=silent)
    assert encoder.heads == (2, 4)
    assert encoder.origin.licence == "CC-BY-NC-4.0"
    run = finetuning.train(recipe(init=str(whole), steps=2), data, tmp_path / "run")
    assert run.recipe.last_heads == 4
    assert run.provenance["init"]["licence"] == "CC-BY-NC-4.0"


def test_auto_takes_the_layer_by_nmi(images: str, teacher: str, tmp_path: Path) -> None:
    said: list[str] = []
    run = fit.pretrain(unip(teacher=teacher, layer=0, steps=2), images, tmp_path / "run", say=said.append)
    facts = run.provenance["layer"]
    assert run.recipe.layer == facts["layer"] == min(facts["layer"], 3)  # type: ignore[union-attr]
    assert facts["chosen"] == "by NMI" and facts["margin"] > 0


def test_the_average_is_what_is_kept(images: str, teacher: str, tmp_path: Path) -> None:
    """And the training itself is the same."""
    runs = [fit.pretrain(unip(teacher=teacher, ema=ema), images, tmp_path / str(ema), say=silent) for ema in (0, 0.9)]
    plain, averaged = (safetensors.torch.load_file(run.path / "weights.safetensors") for run in runs)
    changed = [name for name, value in plain.items() if not torch.equal(value, averaged[name])]
    assert "blocks.0.attn.qkv.weight" in changed
    losses = [[line.get("loss") for line in log(run.path)] for run in runs]
    assert losses[0] == losses[1]


def test_mae_goes_on_from_an_encoder(whole: Path, images: str, tmp_path: Path) -> None:
    run = fit.pretrain(mae(), images, tmp_path / "scratch", say=silent)
    on = fit.pretrain(mae(init=str(run.path), steps=1, base_lr=1e-9), images, tmp_path / "on", say=silent)
    ours, theirs = (safetensors.torch.load_file(path / "weights.safetensors") for path in (on.path, run.path))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=0)
    with pytest.raises(UsageError, match="no base ViT with a CLS token"):
        fit.pretrain(mae(init=str(whole), size="base"), images, tmp_path / "other", say=silent)


# Nothing is lost


@pytest.mark.parametrize("step", [1, 4, 11, 12])
def test_interrupted_and_resumed_is_bit_equal(
    whole: Path, images: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(KeyboardInterrupt):
            fit.pretrain(unip(teacher=teacher), images, tmp_path / "run", say=silent)
    assert len(checkpoints(tmp_path / "run")) == min(2, step // 3 - (step == 12))
    fit.resume(tmp_path / "run", say=silent)
    assert digest(tmp_path / "run") == digest(whole)
    assert log(tmp_path / "run") == log(whole)


def test_a_teacher_that_is_ahead_changes_no_bit(
    whole: Path, images: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even across an interruption; two processors, one for the teacher, against one for both."""
    monkeypatch.setattr(ahead, "WORST", 2.0)  # however unlike their shares are
    seen: set[str] = set()
    monkeypatch.setattr(Teacher, "forward", told(Teacher.forward, seen))
    values = unip(teacher=teacher, threads=2)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            fit.pretrain(values, images, tmp_path / "run", say=silent)
    fit.resume(tmp_path / "run", say=silent)
    assert {"MainThread", "ahead_0"} == seen  # the held-out pictures are judged by the first
    assert digest(tmp_path / "run") == digest(whole)


def test_a_teacher_that_is_ahead_and_runs_out_of_memory_is_told_in_one_line(
    images: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "WORST", 2.0)
    real = Teacher.forward

    def forward(self: Teacher, batch: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(self, batch)

    monkeypatch.setattr(Teacher, "forward", forward)
    with pytest.raises(TrainingError, match=r"^Out of memory at a micro-batch of \d+ pictures.* Lower micro_batch"):
        fit.pretrain(unip(teacher=teacher, threads=2), images, tmp_path / "run", say=silent)


def told(real: Callable[..., Any], seen: set[str]) -> Callable[..., Any]:
    """Note the thread of each call."""

    def call(*values: Any) -> Any:
        seen.add(threading.current_thread().name)
        return real(*values)

    return call


def test_mae_with_an_average_resumes_bit_equal(images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = mae(ema=0.5)
    unbroken = fit.pretrain(values, images, tmp_path / "whole", say=silent).path
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            fit.pretrain(values, images, tmp_path / "run", say=silent)
    fit.resume(tmp_path / "run", say=silent)
    assert digest(tmp_path / "run") == digest(unbroken)


@pytest.mark.slow
def test_twenty_random_kills(images: str, teacher: str, tmp_path: Path, server: ForkServer) -> None:
    values = {"teacher": teacher}
    whole_s = 0.0
    for name in ("first", "second"):  # the server is still starting when it gets the first
        started = time.monotonic()
        assert server.train(Path(images), tmp_path / name, values) == [0], server.read()
        whole_s = time.monotonic() - started
    rng, kills, runs_ended = random.Random(0), 0, 0
    while kills < 20 or not runs_ended:
        out = tmp_path / f"run{runs_ended}"
        while server.train(Path(images), out, values, after=rng.uniform(0.2, 1) * whole_s) == [KILLED]:
            kills += 1
        assert digest(out) == digest(tmp_path / "first"), f"{kills} kills"
        assert log(out) == log(tmp_path / "first"), f"{kills} kills"
        runs_ended += 1
    print(f"{kills} kills, {runs_ended} runs ended bit-equal")


def test_a_kill_in_the_middle(whole: Path, images: str, teacher: str, tmp_path: Path, server: ForkServer) -> None:
    values = {"teacher": teacher}
    assert server.train(Path(images), tmp_path / "run", values, after=7) == [KILLED], server.read()
    assert server.train(Path(images), tmp_path / "run", values) == [0], server.read()
    assert digest(tmp_path / "run") == digest(whole)


def test_sigterm_says_how_to_go_on(images: str, teacher: str, tmp_path: Path, server: ForkServer) -> None:
    values, out = {"teacher": teacher}, tmp_path / "run"
    assert server.train(Path(images), out, values, send=signal.SIGTERM, after=5) == [143], server.read()
    assert f"go on with: edgeunip pretrain unip --resume {out}" in server.read()


def test_two_ranks_equal_one(images: str, teacher: str, tmp_path: Path, server: ForkServer) -> None:
    """Without drop path, which draws by rank; the rates are small, for Adam magnifies rounding."""
    values = {"teacher": teacher, "drop_path": 0, "base_lr": 1e-3, "steps": 10, "batch": 8}
    for ranks in (1, 2):  # two micro-batches a rank and more: no gradient is exchanged before the last
        found = server.train(Path(images), tmp_path / str(ranks), values, ranks=ranks)
        assert found == [0] * ranks, server.read()
    losses = [[line["loss"] for line in log(tmp_path / run) if "loss" in line] for run in ("1", "2")]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_micro_batches_make_the_same_step(images: str, teacher: str, tmp_path: Path) -> None:
    losses = []
    for micro in (1, 4):
        values = unip(teacher=teacher, drop_path=0, micro_batch=micro, base_lr=1e-3, steps=10)
        run = fit.pretrain(values, images, tmp_path / str(micro), say=silent)
        losses.append([line["loss"] for line in log(run.path) if "loss" in line])
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_every_other_micro_batch_is_smaller_also_behind_an_interruption(
    images: str, teacher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run cut behind an odd number of them goes on where it was."""
    values = unip(teacher=teacher, second_crop=32, micro_batch=4)
    seen: list[int] = []
    real = Distillation.forward

    def forward(task: Distillation, batch: torch.Tensor, *prepared: torch.Tensor) -> torch.Tensor:
        assert batch.shape[-1] == batch.shape[-2]
        seen.append(batch.shape[-1])
        return real(task, batch, *prepared)

    monkeypatch.setattr(Distillation, "forward", forward)
    whole = fit.pretrain(values, images, tmp_path / "whole", say=silent)
    assert seen == [64, 32] * 6
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            fit.pretrain(values, images, tmp_path / "cut", say=silent)
    seen.clear()
    assert digest(fit.resume(tmp_path / "cut", say=silent).path) == digest(whole.path)
    assert seen == [32, 64] * 4 + [32]


# What is refused


def test_another_teacher_of_the_same_name_is_noticed(
    images: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_teacher(tmp_path / "teacher.safetensors")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            fit.pretrain(unip(teacher=str(teacher)), images, tmp_path / "run", say=silent)
    weights = safetensors.torch.load_file(teacher)
    with safetensors.safe_open(teacher, "pt") as file:  # type: ignore[no-untyped-call]
        metadata = file.metadata()
    weights["cls_token"] += 1
    teacher.write_bytes(safetensors.torch.save(weights, metadata))
    with pytest.raises(RunError, match="weights have changed since the run was started"):
        fit.resume(tmp_path / "run", say=silent)


def test_what_cannot_be_trained(images: str, teacher: str, whole: Path, data_folder: Path, tmp_path: Path) -> None:
    for values, told in (
        ({"teacher": ""}, "UNIP needs a teacher. Name one with --teacher"),
        ({"teacher": teacher, "layer": 9}, "The teacher has no layer 9"),
        ({"teacher": teacher, "size": "small", "steps": 0, "batch": 4096, "epochs": 1.0}, "leaves no step"),
    ):
        with pytest.raises(UsageError, match=told):
            fit.pretrain(unip(**values), images, tmp_path / "run", say=silent)
    with pytest.raises(DataError):
        fit.pretrain(unip(teacher=teacher), str(data_folder / "nothing"), tmp_path / "run", say=silent)
    with pytest.raises(RunError, match="holds a run already"):
        fit.pretrain(unip(teacher=teacher), images, whole, say=silent)
    stray = tmp_path / "stray" / "checkpoints" / checkpoints(whole)[-1].name
    stray.parent.mkdir(parents=True)
    shutil.copy(checkpoints(whole)[-1], stray)  # the recipe is gone: another run's weights must not be gone on with
    with pytest.raises(RunError, match="holds a run already"):
        fit.pretrain(unip(teacher=teacher), images, tmp_path / "stray", say=silent)
    with pytest.raises(RunError, match="Not a pre-training run"):
        fit.resume(tmp_path, say=silent)
    with pytest.raises(UsageError, match="5 heads do not divide the width 32 of the tiny student"):
        odd = tmp_path / "odd.safetensors"
        odd.write_bytes(make_odd())
        fit.pretrain(unip(teacher=str(odd)), images, tmp_path / "run", say=silent)


def make_odd() -> bytes:
    return encoder_bytes(new_vit(ViTSize(20, 2, 5, 5), (4, 4)), licence=None)


def test_recipe_values_are_checked() -> None:
    for key, value in (("crop", 100), ("ema", 1), ("scale_min", 0), ("layer", -1), ("batch", 0), ("target_nmi", 2)):
        with pytest.raises(UsageError, match=f"recipe's {key} cannot be"):
            override(UnipRecipe(), {key: value})
    for side in (-32, 100, 224, 240):
        with pytest.raises(UsageError, match=rf"second_crop cannot be {side}.* a multiple of 16 pixels below crop"):
            override(UnipRecipe(), {"second_crop": side})
    for key, value in (("mask", 1), ("decoder_dim", 50), ("decoder_depth", -1)):
        with pytest.raises(UsageError, match=f"recipe's {key} cannot be"):
            override(MaeRecipe(), {key: value})
    assert UnipRecipe().base_lr * UnipRecipe().batch / 256 == pytest.approx(2.4e-3)


@pytest.mark.parametrize(("gpu", "most"), [(False, 15), (True, 150)])
def test_a_micro_batch_is_what_the_device_takes(
    gpu: bool, most: int, images: str, teacher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest divisor of its share up to 16 or 256 pictures, or up to what the recipe says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for asked, taken in ((0, most), (7, 6)):
        values = unip(teacher=teacher, batch=300, steps=1, micro_batch=asked)
        corpus, source = open_corpus(images), open_encoder(teacher, say=silent)
        assert fit.resolve(values, corpus, source, ranks=2, say=silent)[0].micro_batch == taken


def test_describe_trains_nothing(images: str, teacher: str) -> None:
    found = describe(unip(teacher=teacher), images, say=silent)
    assert found["steps"] == 12 and found["effective_batch"] == 4 and found["held_out"] == 1
    parameters = found["parameters"]
    assert parameters["encoder"] == sum(parameters["by_part"].values())
    assert parameters["trainable"] == sum(parameters["trainable_by_part"].values()) < parameters["encoder"]
    # block 2 of 2: norm1 and qkv alone
    assert parameters["trainable_by_part"]["blocks.1"] == 2 * 32 + 3 * 32 * 33
    patches, student, first = 16, 32, 48
    tokens = patches + 1
    teacher_macs = patches * 256 * first + tokens * 12 * first**2 + 2 * tokens**2 * first + tokens * 2 * first**2
    student_macs = (
        patches * 256 * student + tokens * 12 * student**2 + 2 * tokens**2 * student + tokens * 2 * student**2
    )
    attention = tokens**2 * (first + student) + 2 * tokens**2 * student  # logits, and the gradients formed with them
    assert found["gmacs_an_image"]["forward"] * 1e9 == pytest.approx(teacher_macs + student_macs + attention, rel=0.01)


def test_describe_counts_both_resolutions(images: str, teacher: str) -> None:
    sides = ((64, 0), (32, 0), (64, 32))
    found = [describe(unip(teacher=teacher, crop=c, second_crop=s), images, say=silent) for c, s in sides]
    for direction in ("forward", "forward_and_backward"):
        large, small, both = (one["gmacs_an_image"][direction] for one in found)
        assert small < large / 3 and both == pytest.approx((small + large) / 2)


def test_the_command_line(images: str, teacher: str, tmp_path: Path) -> None:
    words = [EXECUTABLE, "pretrain", "unip", "--teacher", teacher, "--data", images, "--size", "tiny", "--describe"]
    described = subprocess.run(
        [*words, "--layer", "2", "--set", "batch=4", "--set", "crop=64"],
        env=environment(),
        capture_output=True,
        check=True,
    )
    assert json.loads(described.stdout)["recipe"]["layer"] == 2
    missing = subprocess.run([EXECUTABLE, "pretrain", "unip"], env=environment(), capture_output=True, text=True)
    assert missing.returncode == 2
    assert missing.stderr == "edgeunip: No images to train on. Name them: --data INDEX.parquet or --data FOLDER.\n"
