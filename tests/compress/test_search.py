"""The search for int8, on forms whose accuracy and speed are known: what it tries, takes, refuses and says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeunip.bundle import Manifest
from edgeunip.compress import search
from edgeunip.compress.search import Attempt, Budget, Found, Variant
from edgeunip.errors import ExportError, UsageError

PICTURES = [np.zeros((4, 4), np.uint8)]
MAX, PERCENTILE = Variant("max"), Variant("percentile")


@dataclass(frozen=True)
class Known:
    """A form that takes ``seconds`` a call and has the accuracy ``miou``."""

    miou: float
    seconds: float = 0.0
    layers: Mapping[str, str] = field(default_factory=dict)
    name: str = "known"
    concurrency: int = 1

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(self.seconds)
        return np.zeros((2, 1, 1), np.float32)

    def runtime(self, *, threads: int | None = None) -> Known:
        return self

    def files(self, manifest: Manifest) -> dict[str, bytes]:
        return {}

    def close(self) -> None:
        return None


class Table:
    """A quantiser whose forms stand in a table; each layer put back to float brings one point."""

    method, variants = "table", (MAX, PERCENTILE)

    def __init__(self, miou: dict[Variant, float], *, seconds: float = 0.0) -> None:
        self.miou, self.seconds, self.asked = miou, seconds, list[Variant]()

    def quantise(self, variant: Variant) -> Known:
        self.asked.append(variant)
        base = self.miou[Variant(variant.ranges, variant.smooth)]
        return Known(base + 0.01 * len(variant.float_layers), self.seconds)

    def cost_by_layer(self) -> dict[str, float]:
        return {f"layer{index}": 10.0 * index for index in (3, 1, 2, 4)}


def find(
    quantiser: Table, *, mode: search.Mode = "fast", timed: bool = False, seconds: float = 0.0, **budget: float
) -> tuple[Found, list[str]]:
    said = list[str]()
    found = search.search(
        quantiser, Known(0.80, seconds), {"miou": 0.80}, lambda runtime: {"miou": runtime.miou}, PICTURES,  # type: ignore[attr-defined]
        budget=Budget(**budget), mode=mode, timed=timed, say=said.append,
    )  # fmt: skip
    return found, said


def test_fast_takes_the_first_within_the_budget() -> None:
    quantiser = Table({MAX: 0.795, PERCENTILE: 0.799})
    found, said = find(quantiser)
    assert found.chosen == Attempt(MAX, {"miou": 0.795}, pytest.approx(0.5), None)
    assert quantiser.asked == [MAX] and found.cost_by_layer == {}
    assert said == ["int8, ranges by max: val mIoU 79.50 % (-0.50 points)"]


def test_accurate_takes_the_best() -> None:
    found, _ = find(Table({MAX: 0.795, PERCENTILE: 0.799}), mode="accurate")
    assert found.chosen is not None and found.chosen.variant == PERCENTILE and len(found.attempts) == 2


def test_costliest_layers_go_back_to_float() -> None:
    quantiser = Table({MAX: 0.760, PERCENTILE: 0.775})
    found, _ = find(quantiser)
    assert [len(variant.float_layers) for variant in quantiser.asked] == [0, 0, 1, 2]
    assert found.chosen is not None and found.chosen.drop == pytest.approx(0.5)
    assert found.chosen.variant == Variant("percentile", None, ("layer1", "layer2"))


def test_nothing_within_the_budget_names_what_costs() -> None:
    found, _ = find(Table({MAX: 0.2, PERCENTILE: 0.3}))
    assert found.form is None and len(found.attempts) == 6
    with pytest.raises(ExportError) as error:
        search.require(found, Budget(), "runs/night")
    told = str(error.value)
    assert "No int8 within the budget (at most 1 points lost and 1.2 times float's speed) in 6 attempts" in told
    assert "layer1 10.0 dB, layer2 20.0 dB, layer3 30.0 dB, layer4 40.0 dB" in told
    assert "--on-miss float" in told and "runs/night" in told


def test_speed_is_part_of_the_budget() -> None:
    """Twice as slow as float is not mended by another variant or by layers put back: nothing more is tried."""
    slow = Table({MAX: 0.8, PERCENTILE: 0.8}, seconds=0.010)
    found, said = find(slow, timed=True, seconds=0.005)
    assert found.form is None and slow.asked == [MAX]
    assert "times as fast as float" in said[0]
    fast, _ = find(Table({MAX: 0.8, PERCENTILE: 0.8}, seconds=0.002), timed=True, seconds=0.010)
    assert fast.chosen is not None and fast.chosen.speedup is not None and fast.chosen.speedup > 1.5


def test_a_little_too_slow_is_tried_otherwise() -> None:
    """Without a floor under the speed of this machine: the ratio of equal times is near 1, whatever it does."""
    found, _ = find(Table({MAX: 0.8, PERCENTILE: 0.8}, seconds=0.004), timed=True, seconds=0.004, min_speedup=0.0)
    assert found.chosen is not None and found.chosen.variant == MAX


def test_attempts_are_plain_values() -> None:
    found, _ = find(Table({MAX: 0.2, PERCENTILE: 0.3}))
    told = found.to_json()
    assert told["attempts"][2]["variant"] == {"ranges": "percentile", "smooth": None, "float_layers": ["layer1"]}
    assert told["cost_by_layer_db"]["layer4"] == 40.0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("name", ["max_drop", "min_speedup"])
def test_a_budget_is_made_of_numbers_from_0(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"^The budget's {name} must be a number from 0: {value}$"):
        Budget(**{name: value})
