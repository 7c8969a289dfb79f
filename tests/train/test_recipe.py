"""Recipes: what is read, what is refused, and in which words."""

from __future__ import annotations

import typing
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeunip.errors import UsageError
from edgeunip.train.recipe import Recipe
from edgeunip.train.settings import collect, override, parse, read

SIDES = st.integers(0, 64).map(lambda n: 16 * n)
SHARES = st.floats(0, 1)
POSITIVE = st.floats(1e-9, 1e9)
COUNTS = st.integers(1, 1 << 40)
RECIPES = st.builds(
    Recipe,
    size=st.sampled_from(["auto", "tiny", "small", "base", "large"]),
    head=st.sampled_from(["light", "uper"]),
    modality=st.sampled_from(["thermal", "depth", "rgb"]),
    init=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8).map(str.strip),
    agc=st.sampled_from(["percentile", "plateau", "clahe", "window"]),
    precision=st.sampled_from(["auto", "32-true", "bf16-mixed", "16-mixed"]),
    last_heads=st.integers(0, 64),
    height=SIDES,
    width=SIDES,
    crop_height=SIDES,
    crop_width=SIDES,
    mean=st.floats(-1e6, 1e6),
    std=POSITIVE,
    drop_path=SHARES,
    dropout=SHARES,
    focus=SHARES,
    contrast=SHARES,
    scale_min=st.floats(1e-3, 1),
    scale_max=st.floats(1, 10),
    steps=COUNTS,
    batch=COUNTS,
    lr=POSITIVE,
    warmup=st.integers(0, 1 << 40),
    balance=st.floats(0, 2),
    seed=st.integers(0, (1 << 32) - 1),
    workers=st.integers(-1, 64),
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@given(recipe=RECIPES)
def test_toml_round_trip(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    assert read(write(path, recipe.to_toml()), Recipe()) == recipe


@given(recipe=RECIPES)
def test_settings_round_trip(recipe: Recipe) -> None:
    """Every value can be given as text on the command line, too."""
    assert override(Recipe(), parse(f"{key}={value}" for key, value in asdict(recipe).items())) == recipe


def test_toml_holds_every_value() -> None:
    assert Recipe().to_toml().count("\n") == len(fields(Recipe))


def test_a_file_and_settings(tmp_path: Path) -> None:
    """What a file does not name keeps its default; a setting beats the file."""
    base = read(write(tmp_path / "r.toml", "lr = 2e-4\nsteps = 10\nclip = 0\n"), Recipe())
    assert base == Recipe(lr=2e-4, steps=10, clip=0.0)
    assert isinstance(base.clip, float)
    merged = override(base, parse(["steps = 20", "head=uper", "steps=30"]))
    assert merged == Recipe(lr=2e-4, steps=30, clip=0.0, head="uper")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("step", "Did you mean steps or std or size?"),
        ("crop_hight", "Did you mean crop_height or crop_width or height?"),
        ("zzz", "Known: agc, balance, batch"),
    ],
)
def test_unknown_keys(key: str, hint: str) -> None:
    with pytest.raises(UsageError, match=r"^Unknown recipe key: ") as told:
        override(Recipe(), {key: 1})
    assert hint in str(told.value)


REFUSED: list[tuple[str, Any, str]] = [
    ("steps", "many", "Give a value of type int."),
    ("steps", "1.5", "Give a value of type int."),
    ("steps", 1.5, "Give a whole number."),
    ("steps", float("inf"), "Give a value of type int."),
    ("steps", float("nan"), "Give a value of type int."),
    ("steps", True, "Give a value of type int."),
    ("steps", [1], "Give a value of type int."),
    ("steps", {"a": 1}, "Give a value of type int."),
    ("steps", 0, "Give a positive number."),
    ("steps", -4, "Give a positive number."),
    ("batch", 0, "Give a positive number."),
    ("checkpoint_every", 0, "Give a positive number."),
    ("evaluate_every", 0, "Give a positive number."),
    ("lr", "fast", "Give a value of type float."),
    ("lr", 0, "Give a positive number."),
    ("lr", "nan", "Give a finite number."),
    ("lr", "inf", "Give a finite number."),
    ("lr", 10**400, "Give a value of type float."),
    ("std", 0, "Give a positive number."),
    ("scale_min", 0, "Give a positive number."),
    ("scale_max", 0.1, "It must not be below scale_min."),
    ("height", 100, "Give a multiple of 16 pixels, or 0 for the default."),
    ("crop_width", -16, "Give a multiple of 16 pixels, or 0 for the default."),
    ("dropout", 1.1, "Give a share between 0 and 1."),
    ("drop_path", -0.1, "Give a share between 0 and 1."),
    ("focus", 2, "Give a share between 0 and 1."),
    ("contrast", 1.5, "Give a share between 0 and 1."),
    ("layer_decay", 0, "Give a factor above 0 and up to 1."),
    ("layer_decay", 1.5, "Give a factor above 0 and up to 1."),
    ("warmup", -1, "It must not be negative."),
    ("weight_decay", -0.1, "It must not be negative."),
    ("clip", -1, "It must not be negative."),
    ("balance", -1, "It must not be negative."),
    ("brightness", -1, "It must not be negative."),
    ("threads", -1, "It must not be negative."),
    ("devices", -1, "It must not be negative."),
    ("last_heads", -1, "It must not be negative."),
    ("merge", -1, "It must not be negative."),
    ("workers", -2, "Give a number of processes, or -1 for the default."),
    ("seed", -1, "Give a whole number from 0 to 4294967295."),
    ("seed", 1 << 32, "Give a whole number from 0 to 4294967295."),
    ("size", "huge", "Choose one of auto, micro, tiny, small, base, large, edge-s, edge-xs."),
    ("head", 3, "Choose one of light, uper, linear."),
    ("modality", "sonar", "Choose one of thermal, depth, rgb."),
    ("layers", "4,6", "It is the linear head's; leave it out, or take head = linear."),
    ("agc", "", "Choose one of percentile, plateau, clahe, window."),
    ("precision", "64", "Choose one of auto, 32-true, bf16-mixed, 16-mixed."),
]


@pytest.mark.parametrize(("key", "value", "remedy"), REFUSED)
def test_refused_values(key: str, value: object, remedy: str) -> None:
    with pytest.raises(UsageError) as told:
        override(Recipe(), {key: value})
    assert str(told.value).startswith(f"The recipe's {key} cannot be ")
    assert str(told.value).endswith(remedy)
    assert told.value.exit_code == 2


def test_every_field_has_a_bound() -> None:
    """Only the mean may be any finite number, and init any name; all else is refused somewhere above."""
    bounded = {key for key, _, _ in REFUSED}
    assert {field.name for field in fields(Recipe)} - bounded == {"mean", "init", "width", "crop_height"}


@given(value=st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.lists(st.integers()), st.none()))
@settings(max_examples=25)
@pytest.mark.parametrize("key", list(typing.get_type_hints(Recipe)))
def test_any_value_is_taken_or_refused(key: str, value: object) -> None:
    try:
        taken = override(Recipe(), {key: value})
    except UsageError:
        return
    assert read_back(taken) == taken


def read_back(recipe: Recipe) -> Recipe:
    return override(Recipe(), asdict(recipe))


def test_settings_without_a_value() -> None:
    with pytest.raises(UsageError, match=r"^A setting must read key=value: steps$"):
        parse(["steps"])
    assert parse(["a=b=c", " d = e "]) == {"a": "b=c", "d": "e"}


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^Cannot read the recipe: .*none\.toml \(No such file or directory\)$"):
        read(tmp_path / "none.toml", Recipe())
    with pytest.raises(UsageError, match=r"^Cannot read the recipe: .* \(Is a directory\)$"):
        read(tmp_path, Recipe())
    for content in (b"steps = = 3", b"\xff\xfe", b"[model", b"steps = 1\nsteps = 2"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(UsageError, match=r"^The recipe is no TOML: .*bad\.toml \("):
            read(tmp_path / "bad.toml", Recipe())
    with pytest.raises(UsageError, match=r"^Unknown recipe key: model"):
        read(write(tmp_path / "table.toml", "[model]\nsize = 'tiny'\n"), Recipe())


# The recipes that ship

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_can_be_read(path: Path) -> None:
    if not path.stem.startswith("pretrain"):  # those are of another kind
        assert read(path, Recipe()) != Recipe()


@pytest.mark.parametrize(
    ("name", "steps", "warmup", "every"),
    [("soda", 14400, 1500, 800), ("mfnet", 9800, 1000, 700), ("scut", 16800, 1700, 800)],
)
def test_the_published_schedules(name: str, steps: int, warmup: int, every: int) -> None:
    """UNIP's fine-tuning; as a probe the same, of which only the head differs."""
    (path,) = (path for path in SHIPPED if path.stem == name)
    found = read(path, Recipe())
    assert (found.steps, found.warmup, found.evaluate_every) == (steps, warmup, every)
    published = {"batch": 8, "lr": 1e-4, "layer_decay": 0.85, "weight_decay": 0.05, "drop_path": 0.1, "clip": 0.0}
    assert published == {key: getattr(found, key) for key in published}
    assert (found.head, found.height, found.width, found.focus, found.balance) == ("uper", 512, 512, 0.0, 0.0)
    assert collect(Recipe(), path, {"head": "linear", "size": None}, ["seed=3"]) == replace(
        found, head="linear", seed=3
    )
