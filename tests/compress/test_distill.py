"""Lessons from beginning to end: pictures, teacher's outputs on disk, resume, starts, refusals, the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from lessons import SMALL, digest, lesson, make_data, make_teacher, recipe

from edgeunip import cli
from edgeunip.compress.distill import cache, fit, pictures, start
from edgeunip.compress.distill.lesson import Lesson, collect, student_size
from edgeunip.compress.distill.teacher import Teacher
from edgeunip.errors import DataError, EdgeunipError, RunError, UsageError
from edgeunip.train import fit as training
from edgeunip.train import run as runs
from edgeunip.train.augment import Augmentation
from edgeunip.train.datasets import DataSet
from edgeunip.train.loader import Pictures
from edgeunip.train.recipe import Recipe
from edgeunip.train.run import Run, TorchModel
from edgeunip.train.settings import override
from edgeunip.train.vit import SIZES

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def small_sizes() -> Iterator[None]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SMALL.items():
            patch.setitem(SIZES, name, size)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return make_data(tmp_path_factory.mktemp("scenes") / "set")


@pytest.fixture(scope="module")
def teacher(data: DataSet, small_sizes: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_teacher(data, tmp_path_factory.mktemp("teacher") / "run")


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory, data: DataSet) -> Path:
    """Five pictures of another set, and two of this one's test split, which must not be learned from."""
    folder = tmp_path_factory.mktemp("more") / "pictures"
    folder.mkdir()
    other = make_data(tmp_path_factory.mktemp("other") / "set", seed=9)
    for index, sample in enumerate(other.split("train")[:5]):
        (folder / f"new{index}{sample.image.suffix}").write_bytes(sample.image.read_bytes())
    for index, sample in enumerate(data.split("test")[:2]):
        (folder / f"own{index}{sample.image.suffix}").write_bytes(sample.image.read_bytes())
    return folder


# The teacher's outputs


def test_what_is_on_disk_is_what_the_teacher_says(data: DataSet, teacher: Run, tmp_path: Path) -> None:
    master = Teacher(teacher, CPU)
    seen = Pictures(data, data.split("train"), teacher.recipe.agc_parameters())
    outputs = cache.Outputs(tmp_path / "outputs", len(seen))
    assert outputs.fill(master, seen, cache.KINDS, say=lambda _: None) == len(seen)
    live = TorchModel(teacher.model(), teacher.recipe)
    for index in (0, len(seen) - 1):
        picture = seen.read(index)[0]
        expected = live(runs_fit(picture, teacher))
        np.testing.assert_allclose(outputs.read("logits", index), expected, atol=2e-3, rtol=1e-3)
        assert outputs.read("features", index).shape == (32, 3, 4)
    mean, std = outputs.statistics()
    assert mean.shape == std.shape == (32,)
    assert (std > 0).all()


def runs_fit(picture: Any, run: Run) -> Any:
    from edgeunip import thermal

    return thermal.fit(picture, *run.size)


def test_cached_is_live_in_a_batch_that_is_not_augmented(data: DataSet, teacher: Run, tmp_path: Path) -> None:
    master, plain = Teacher(teacher, CPU), replace(teacher.recipe, brightness=0.0, contrast=0.0)
    seen = Pictures(data, data.split("train"), plain.agc_parameters())
    outputs = cache.Outputs(tmp_path, len(seen))
    outputs.fill(master, seen, cache.KINDS, say=lambda _: None)
    augment = Augmentation(48, 64, (48, 64), 255, plain)  # scale 1, crop whole: what is left is the mirror
    draw = pictures.MixedDraw(0, 4, len(seen))
    shelf = pictures.Shelf(seen, outputs)
    rest = {"augment": augment, "draw": draw, "first": 0, "last": 2, "rank": 0, "ranks": 1}
    batches = pictures.TaughtBatches((shelf,), cache.KINDS, **rest)
    live = 0
    for step in range(len(batches)):
        images, _, logits, inside, features, _ = batches[step]
        assert inside.all()
        with torch.no_grad():
            ((expected, _),), expected_map = master.model.taught(images)
        mirrors = [batches.augment.draw(seen[i][1], np.random.default_rng((0, 2, step, at)))[0].mirrored
                   for at, i in enumerate(draw(step))]  # fmt: skip
        for at, mirrored in enumerate(mirrors):
            if not mirrored:  # the teacher on a mirrored picture is not its mirrored answer
                live += 1
                torch.testing.assert_close(logits[at], expected[at], atol=3e-3, rtol=2e-3)
                torch.testing.assert_close(features[at], expected_map[at], atol=3e-3, rtol=2e-3)
    assert live


def test_a_killed_pass_goes_on_where_it_was(
    data: DataSet, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SHARD", 4)
    master, seen = Teacher(teacher, CPU), Pictures(data, data.split("train"), teacher.recipe.agc_parameters())
    quiet: Any = lambda _: None  # noqa: E731
    whole = cache.Outputs(tmp_path / "whole", len(seen))
    whole.fill(master, seen, cache.KINDS, say=quiet)
    cut = cache.Outputs(tmp_path / "cut", len(seen))
    cut.fill(master, seen, ("logits",), rank=0, ranks=2, say=quiet)  # every other shard, and no features
    assert cut.fill(master, seen, ("logits",), rank=1, ranks=2, say=quiet) == cut.fill(
        master, seen, ("features",), rank=1, ranks=2, say=quiet
    )
    cut.fill(master, seen, cache.KINDS, say=quiet)
    assert cut.fill(master, seen, cache.KINDS, say=quiet) == 0
    names = sorted(path.name for path in whole.folder.iterdir())
    assert names == sorted(path.name for path in cut.folder.iterdir())
    for name in names:
        assert (whole.folder / name).read_bytes() == (cut.folder / name).read_bytes()


def test_the_folder_is_named_by_teacher_and_pictures(teacher: Run) -> None:
    master = Teacher(teacher, CPU)
    name = cache.key(master, ["a", "b"])
    assert name == cache.key(master, ["a", "b"])
    others = [cache.key(master, ["b", "a"]), cache.key(master, ["a"])]
    master.sha256 = "0" * 64
    assert len({name, *others, cache.key(master, ["a", "b"])}) == 4


def test_a_damaged_file_of_outputs(tmp_path: Path) -> None:
    outputs = cache.Outputs(tmp_path, 3)
    with pytest.raises(RunError, match=r"^The teacher's outputs cannot be read: .*logits-00000.npy"):
        outputs.read("logits", 1)
    (tmp_path / "features-00000.npy").write_bytes(b"\x93NUMPY\x01\x00damaged")
    with pytest.raises(RunError, match="Delete it, and go on with --resume"):
        outputs.read("features", 0)


# Pictures


def test_a_batch_has_its_share_of_unlabelled_pictures() -> None:
    draw = pictures.MixedDraw(3, 8, 20, unlabelled=7, share=3)
    seen: list[int] = []
    for step in range(28):
        batch = draw(step)
        assert len(batch) == 8
        assert all(index < 20 for index in batch[:5])
        assert all(20 <= index < 27 for index in batch[5:])
        seen += batch
    assert draw(5) == pictures.MixedDraw(3, 8, 20, unlabelled=7, share=3)(5)
    assert draw(5) != pictures.MixedDraw(4, 8, 20, unlabelled=7, share=3)(5)
    counts = np.bincount(seen)
    assert set(counts[:20]) == {7}  # 28 steps of 5 of 20
    assert set(counts[20:]) == {12}  # 28 steps of 3 of 7


@pytest.mark.parametrize(("share", "batch", "expected"), [(0.5, 8, 4), (0.01, 8, 1), (0.99, 8, 7), (0.5, 2, 1)])
def test_the_share_leaves_room_for_both(share: float, batch: int, expected: int) -> None:
    assert Lesson(unlabelled_share=share).unlabelled_of(batch) == expected


def test_unlabelled_images_of_the_sets_own_splits_are_left_out(data: DataSet, unlabelled: Path) -> None:
    corpus, chosen = pictures.open_unlabelled(str(unlabelled), data)
    assert len(corpus) == 7
    assert [corpus.path(index).stem for index in chosen] == [f"new{index}" for index in range(5)]
    seen = pictures.Unlabelled(corpus, chosen, Recipe().agc_parameters(), 255)
    picture, label = seen[0]
    assert picture.dtype == label.dtype == np.uint8
    assert picture.shape == label.shape
    assert (label == 255).all()
    own = unlabelled.parent / "own"
    own.mkdir()
    cv2.imwrite(str(own / "a.png"), np.zeros((48, 64), np.uint8))
    (own / "a.png").write_bytes(data.split("test")[0].image.read_bytes())
    with pytest.raises(DataError, match=r"^Every unlabelled image is one of the data set's own: "):
        pictures.open_unlabelled(str(own), data)


# Lessons


@pytest.mark.parametrize(
    ("size", "terms", "more"),
    [
        ("edge-xs", {}, True),
        ("micro", {"attention": 0.5}, True),
        ("tiny", {"features": 0.0, "labels": 0.0}, False),
    ],
)
def test_a_resumed_lesson_ends_with_the_very_same_weights(
    size: str, terms: dict[str, float], more: bool, data: DataSet, teacher: Run, unlabelled: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plan = lesson(teacher, **terms, **({"unlabelled": str(unlabelled)} if more else {}))
    whole = fit.distill(plan, recipe(size=size), data, tmp_path / "whole")
    real = training.Trainer._step

    def power_cut(trainer: Any, step: int, *batch: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt
        real(trainer, step, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_step", power_cut)
        with pytest.raises(KeyboardInterrupt):
            fit.distill(plan, recipe(size=size), data, tmp_path / "cut")
    resumed = fit.resume(tmp_path / "cut")
    assert digest(resumed.path) == digest(whole.path)
    assert resumed.recipe == whole.recipe
    for path in (tmp_path / "cache").rglob("*.npy"):
        path.unlink()  # the outputs are asked for again where they are gone
    assert digest(fit.resume(tmp_path / "cut").path) == digest(whole.path)


def test_what_a_lesson_leaves_behind(data: DataSet, teacher: Run, tmp_path: Path) -> None:
    run = fit.distill(lesson(teacher), recipe(size="edge-xs"), data, tmp_path / "run")
    about = run.provenance["teacher"]
    assert about == {"source": str(teacher.path), "sha256": digest(teacher.path), "licence": None, "blocks": []}
    assert run.provenance["data"]["unlabelled"] is None
    assert override(Lesson(), dict(read_toml(run.path / "lesson.toml"))) == lesson(teacher)
    assert not any("projection" in name for name in run.model().state_dict())
    (score,) = runs.score(run, data, "test")
    assert score.images == len(data.split("test"))
    assert (run.path / "report" / "predictions.png").is_file()
    with pytest.raises(RunError, match=r"^The run has a teacher: .* Go on with: edgeunip distill --resume "):
        training.resume(run.path)
    with pytest.raises(RunError, match=r"^The run has no teacher: .* Go on with: edgeunip train --resume "):
        fit.resume(teacher.path)


def read_toml(path: Path) -> dict[str, Any]:
    from edgeunip.train import settings

    return settings.read_values(path)


def test_a_teacher_that_has_changed(data: DataSet, teacher: Run, tmp_path: Path) -> None:
    run = fit.distill(lesson(teacher), recipe(size="edge-xs", steps=2), data, tmp_path / "run")
    about = json.loads((run.path / "provenance.json").read_text())
    about["teacher"]["sha256"] = "0" * 64
    (run.path / "provenance.json").write_text(json.dumps(about))
    with pytest.raises(RunError, match=r"^The teacher has changed since the run was started"):
        fit.resume(run.path)


# What a student starts from


@pytest.mark.parametrize(
    ("have", "wanted", "expected"),
    [(12, 4, (1, 2, 3, 12)), (12, 12, tuple(range(1, 13))), (3, 1, (3,)), (3, 2, (1, 3))],
)
def test_first_and_last(have: int, wanted: int, expected: tuple[int, ...]) -> None:
    assert start.first_and_last(have, wanted) == expected


def loud_teacher(run: Run) -> Teacher:
    """The teacher with blocks of ten times the weight: none can go missing unnoticed."""
    master = Teacher(run, CPU)
    backbone: Any = master.model.backbone
    with torch.no_grad():
        for value in backbone.vit.blocks.parameters():
            value.mul_(10)
    return master


def test_a_student_with_all_blocks_is_its_teacher(teacher: Run) -> None:
    master = loud_teacher(teacher)
    model = runs.build_model(teacher.recipe, teacher.classes).eval()
    start.load_blocks(model, master, (1, 2, 3))
    images = torch.randn(1, 1, 48, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), master.model(images))


def test_a_student_with_some_blocks_is_its_teacher_without_the_others(teacher: Run) -> None:
    master = loud_teacher(teacher)
    model = runs.build_model(replace(teacher.recipe, size="micro"), teacher.classes).eval()
    start.load_blocks(model, master, (1, 3))
    images = torch.randn(1, 1, 48, 64)
    backbone: Any = master.model.backbone
    with torch.no_grad():
        assert (model(images) - master.model(images)).abs().max() > 1e-3
        backbone.vit.blocks[1] = torch.nn.Identity()
        torch.testing.assert_close(model(images), master.model(images))


def test_what_a_student_starts_from(teacher: Run) -> None:
    master = Teacher(teacher, CPU)
    assert start.choose_blocks(lesson(teacher), recipe(size="micro"), master) == (1, 3)
    assert start.choose_blocks(lesson(teacher, blocks="scratch"), recipe(size="micro"), master) == ()
    for size in ("edge-s", "small"):  # no ViT; another width
        assert start.choose_blocks(lesson(teacher), recipe(size=size), master) == ()
        with pytest.raises(UsageError, match=f"^The teacher's blocks do not fit the student .the student is {size}"):
            start.choose_blocks(lesson(teacher, blocks="teacher"), recipe(size=size), master)


# Words


def test_lessons_and_recipes_share_no_key() -> None:
    assert not {*asdict(Lesson())} & {*asdict(Recipe())}


@pytest.mark.parametrize(("name", "size"), [("unip-tiny", "tiny"), ("micro", "micro"), ("edge-s", "edge-s")])
def test_students(name: str, size: str) -> None:
    assert student_size(name) == size


def test_words_go_to_the_lesson_or_to_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "lesson.toml"
    file.write_text("temperature = 4.0\nsteps = 7\nlr = 0.5\n")
    plan, values = collect(file, {"teacher": "runs/x", "size": None}, ["features=0", "steps=9"])
    assert (plan.teacher, plan.temperature, plan.features) == ("runs/x", 4.0, 0.0)
    assert values == {"steps": "9", "lr": 0.5}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("temprature=2", "Unknown key of a lesson or a recipe: temprature. Did you mean temperature or features?"),
        ("temperature=0", "The recipe's temperature cannot be 0.0. Give a positive number."),
        ("logits=-1", "The recipe's logits cannot be -1.0. It must not be negative."),
        ("unlabelled_share=1", "The recipe's unlabelled_share cannot be 1.0. Give a share above 0 and below 1."),
        ("blocks=odd", "The recipe's blocks cannot be 'odd'. Choose one of auto, teacher, scratch."),
    ],
)
def test_refused_words(word: str, message: str) -> None:
    with pytest.raises(UsageError) as told:
        collect(None, {}, [word])
    assert str(told.value) == message


@pytest.mark.parametrize(
    ("terms", "values", "message"),
    [
        ({"attention": 1.0}, {"size": "edge-s"}, "The student has no attention: its size is edge-s."),
        ({}, {"size": "tiny", "head": "linear"}, "A linear probe cannot be taught"),
        ({}, {"size": "tiny", "modality": "rgb"}, "Teacher and student see different modalities"),
        ({"unlabelled": "x"}, {"size": "edge-s", "batch": 1}, "With unlabelled images a batch has 2 pictures"),
        ({"attention": 1.0}, {"size": "tiny", "mean": 3.0}, "With attention, mean and std are the teacher's"),
    ],
)
def test_what_cannot_be_taught(terms: dict[str, Any], values: dict[str, Any], message: str, teacher: Run) -> None:
    with pytest.raises(EdgeunipError) as told:
        fit.distill(lesson(teacher, **terms), recipe(**values))
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "A student needs a teacher. Name a finished run: edgeunip distill --teacher RUN."),
        (["--teacher", "nowhere"], "Not a training run: nowhere (no such folder)."),
        (["--teacher", "x", "--student", "edge-m"], "Unknown student: edge-m. Did you mean edge-s or edge-xs?"),
    ],
)
def test_the_command_line_tells_it_in_one_line(words: list[str], message: str) -> None:
    with pytest.raises(EdgeunipError) as told:
        cli.app(["distill", *words], standalone_mode=False)
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)
