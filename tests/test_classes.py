import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.classes import Classes
from edgeunip.errors import DataError

GOOD = {"ignore": 255, "classes": [{"name": "background", "rgb": [0, 0, 0]}, {"name": "person", "rgb": [255, 0, 9]}]}


def test_read_and_write() -> None:
    classes = Classes.from_json(GOOD)
    assert classes == Classes(("background", "person"), ((0, 0, 0), (255, 0, 9)), 255)
    assert len(classes) == 2 and classes.to_json() == GOOD
    assert Classes.from_json({"classes": GOOD["classes"]}).ignore == 255
    assert Classes.from_json({**GOOD, "image": {"width": 640}}) == classes  # data sets say more, and may


def test_palette_is_black_outside_the_classes() -> None:
    palette = Classes.from_json(GOOD).palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert palette[1].tolist() == [255, 0, 9] and not palette[2:].any()


@pytest.mark.parametrize(
    ("names", "colours", "ignore", "message"),
    [
        ((), (), 255, "The class list is empty"),
        (("a", "a"), ((0, 0, 0), (1, 1, 1)), 255, "A class name occurs twice: a, a"),
        (("a", "b"), ((0, 0, 0),), 255, "2 class names but 1 colours"),
        (("a",), ((0, 0, 256),), 255, "A class colour is outside 0..255"),
        (("a", "b"), ((0, 0, 0), (1, 1, 1)), 1, "The ignore index 1 must lie in 2..255"),
        (("a",), ((0, 0, 0),), 256, "The ignore index 256 must lie in 1..255"),
        (("",), ((0, 0, 0),), 255, "A class name is empty or holds control characters"),
        (("a\nb",), ((0, 0, 0),), 255, "A class name is empty or holds control characters"),
        (("\ud800",), ((0, 0, 0),), 255, "A class name is empty or holds control characters"),
    ],
)
def test_what_is_no_class_set(names: Any, colours: Any, ignore: int, message: str) -> None:
    with pytest.raises(DataError, match=f"^{message}"):
        Classes(names, colours, ignore)


WRONG: list[Any] = [
    *(None, [], "text", 3, {}, {"classes": None}, {"classes": 5}, {"classes": [1]}, {"classes": [{"name": "a"}]}),
    *({"classes": [{"name": "a", "rgb": rgb}]} for rgb in ([0, 0], [0, 0, 0, 0], "000", ["0", 0, 0], [1.0, 0, 0])),
    *({"classes": [{"name": "a", "rgb": rgb}]} for rgb in ([True, 0, 0], None, 7, [None, 0, 0])),
    *({"classes": [{"name": name, "rgb": [0, 0, 0]}]} for name in (1, None, [], True, {})),
    *({**GOOD, "ignore": ignore} for ignore in ("255", 255.0, True, None, float("inf"), [255])),
]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_wrong_types_are_refused_not_converted(value: Any) -> None:
    with pytest.raises(DataError):
        Classes.from_json(value)


names = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)
colour = st.tuples(*[st.integers(0, 255)] * 3)


@given(st.dictionaries(names, colour, min_size=1, max_size=20), st.integers(20, 255))
def test_round_trip(entries: dict[str, tuple[int, int, int]], ignore: int) -> None:
    classes = Classes(tuple(entries), tuple(entries.values()), ignore)
    assert Classes.from_json(json.loads(json.dumps(classes.to_json()))) == classes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["classes", "name", "rgb"]), inner),
    max_leaves=12,
)


@given(json_values)
def test_any_json_gives_classes_or_a_data_error(value: Any) -> None:
    try:
        Classes.from_json(value)
    except DataError as error:
        assert "\n" not in str(error)


@pytest.mark.skipif("EDGEUNIP_DATA" not in os.environ, reason="EDGEUNIP_DATA names no folder of real data")
def test_real_data_sets() -> None:
    files = sorted(Path(os.environ["EDGEUNIP_DATA"]).glob("*/classes.json"))
    assert files
    for file in files:
        assert len(Classes.from_json(json.loads(file.read_text()))) >= 2, file
