"""int8 under a budget: variants are tried until one loses little and gains enough; else it is told what costs."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeunip.compress.forms import Form
from edgeunip.errors import ExportError, UsageError
from edgeunip.protocols import Runtime

Mode = Literal["fast", "accurate"]
Ranges = Literal["max", "percentile", "entropy", "mse"]
Say = Callable[[str], None]
RESTORED = (1, 2, 4, 8)  # how many of the costliest layers are put back to float, in turn
TOLD = 5
ALIKE = 0.8  # variants differ in speed by less than that factor: where one is slower by more, none is fast enough
ROUNDS, CALLS, WARM_UP = 7, 3, 2


@dataclass(frozen=True)
class Budget:
    """What int8 may cost and must bring.

    Attributes:
        max_drop: mIoU points on the val split, against the float bundle.
        min_speedup: float's time over int8's, on this machine where it is the target.
    """

    max_drop: float = 1.0
    min_speedup: float = 1.2

    def __post_init__(self) -> None:
        for name in ("max_drop", "min_speedup"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise UsageError(f"The budget's {name} must be a number from 0", where=getattr(self, name))


@dataclass(frozen=True)
class Variant:
    """One way of making int8.

    Attributes:
        ranges: how an activation's range comes from what was seen of it.
        smooth: SmoothQuant's strength, 0..1; None for none.
        float_layers: layers that stay float.
    """

    ranges: Ranges
    smooth: float | None = None
    float_layers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**asdict(self), "float_layers": list(self.float_layers)}

    def __str__(self) -> str:
        smooth = "" if self.smooth is None else f", SmoothQuant {self.smooth:g}"
        kept = f", {len(self.float_layers)} more layers in float" if self.float_layers else ""
        return f"ranges by {self.ranges}{smooth}{kept}"


class Quantiser(Protocol):
    """Makes int8 of one model.

    Attributes:
        method: its name, for the manifest.
    """

    method: str

    @property
    def variants(self) -> Sequence[Variant]:
        """What it can do, likeliest first."""
        ...

    def quantise(self, variant: Variant) -> Form:
        """Make the model int8; the same variant gives the same bytes."""
        ...

    def cost_by_layer(self) -> Mapping[str, float]:
        """Return the signal-to-noise ratio of the logits, dB, with each layer alone in int8."""
        ...


@dataclass(frozen=True)
class Attempt:
    """One variant, measured.

    Attributes:
        variant: what was tried.
        accuracy: of the int8 form on the val split, ``miou`` among it, 0..1.
        drop: mIoU points lost against float.
        speedup: float's time over int8's; None where the target is another machine.
    """

    variant: Variant
    accuracy: dict[str, Any]
    drop: float
    speedup: float | None

    def met(self, budget: Budget) -> bool:
        """Tell whether it is within the budget."""
        return self.drop <= budget.max_drop and not self.too_slow(budget)

    def too_slow(self, budget: Budget) -> bool:
        """Tell whether it gains too little."""
        return self.speedup is not None and self.speedup < budget.min_speedup

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        speed = None if self.speedup is None else round(self.speedup, 3)
        return {"variant": self.variant.to_json(), "accuracy": self.accuracy, "drop": self.drop, "speedup": speed}


@dataclass(frozen=True)
class Found:
    """What the search came to.

    Attributes:
        method: of the quantiser.
        form, chosen: the model within the budget and how it was made; None where there is none.
        attempts: everything that was tried, in order.
        cost_by_layer: dB by layer, where it was looked at.
    """

    method: str
    form: Form | None
    chosen: Attempt | None
    attempts: tuple[Attempt, ...]
    cost_by_layer: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return the attempts and the layers' costs as plain values."""
        attempts = [attempt.to_json() for attempt in self.attempts]
        return {"attempts": attempts, "cost_by_layer_db": {k: round(v, 2) for k, v in self.cost_by_layer.items()}}


def search(
    quantiser: Quantiser,
    plain: Form,
    plain_accuracy: Mapping[str, Any],
    score: Callable[[Runtime], dict[str, Any]],
    pictures: Sequence[NDArray[np.uint8]],
    *,
    budget: Budget,
    mode: Mode,
    timed: bool,
    say: Say,
) -> Found:
    """Look for an int8 form within a budget.

    ``fast`` takes the first variant that is within it; ``accurate`` tries all and takes the best mIoU. Where none is,
    the costliest layers go back to float, a few at a time, as long as int8 is fast enough without them.

    Args:
        quantiser: makes int8.
        plain: the float form.
        plain_accuracy: what ``score`` says of it.
        score: the accuracy of a runtime on the val split, ``miou`` among it, 0..1.
        pictures: for the timing, of the model's input size.
        budget: what it may cost and must bring.
        mode: see above.
        timed: this machine is the target, so that speed is part of the budget.
        say: told each attempt.
    """
    attempts, best, costs = list[Attempt](), None, dict[str, float]()
    reference = plain.runtime() if timed else None

    def attempt(variant: Variant) -> tuple[Attempt, Form]:
        form = quantiser.quantise(variant)
        runtime = form.runtime()
        found = score(runtime)
        drop = 100 * (plain_accuracy["miou"] - found["miou"])
        attempts.append(Attempt(variant, found, drop, speedup(reference, runtime, pictures) if reference else None))
        say(f"int8, {variant}: {_told(attempts[-1])}")
        return attempts[-1], form

    for variant in _variants(quantiser, attempts, budget, costs):
        tried, form = attempt(variant)
        if tried.met(budget) and (best is None or tried.drop < best[0].drop):
            best = tried, form
        if best and (mode == "fast" or variant.float_layers):
            break
    chosen, form_found = best or (None, None)
    return Found(quantiser.method, form_found, chosen, tuple(attempts), costs)


def _variants(
    quantiser: Quantiser, attempts: Sequence[Attempt], budget: Budget, costs: dict[str, float]
) -> Iterator[Variant]:
    """Yield what to try next, given what was: the quantiser's variants, then the best of them with layers restored."""
    for variant in quantiser.variants:
        yield variant
        if attempts[-1].too_slow(replace(budget, min_speedup=budget.min_speedup * ALIKE)):
            return
    best = min(attempts, key=lambda attempt: attempt.drop)
    if any(attempt.met(budget) for attempt in attempts) or best.too_slow(budget):
        return
    costs |= quantiser.cost_by_layer()
    costliest = sorted(costs, key=lambda layer: costs[layer])
    for count in RESTORED:
        yield replace(best.variant, float_layers=tuple(sorted(costliest[:count])))


def speedup(plain: Runtime, int8: Runtime, pictures: Sequence[NDArray[np.uint8]]) -> float:
    """Return how many times as fast ``int8`` is as ``plain`` here: median over rounds that take turns."""
    runtimes = [plain, int8]
    for runtime in runtimes:
        _seconds(runtime, pictures, WARM_UP)
    ratios = []
    for _ in range(ROUNDS):
        slow, fast = (_seconds(runtime, pictures, CALLS) for runtime in runtimes)
        ratios.append(slow / fast)
    return statistics.median(ratios)


def require(found: Found, budget: Budget, where: object) -> None:
    """Refuse an int8 that is not within the budget.

    Raises:
        ExportError: none was found; it says what was best and which layers cost most.
    """
    if found.form is not None:
        return
    best = min(found.attempts, key=lambda attempt: attempt.drop)
    asked = f"at most {budget.max_drop:g} points lost and {budget.min_speedup:g} times float's speed"
    raise ExportError(
        f"No int8 within the budget ({asked}) in {len(found.attempts)} attempts",
        where=where,
        why=f"the best, {best.variant}: {_told(best)}{costliest(found)}",
        remedy="Allow more with --max-drop or --min-speedup (0 where the device is another machine), or take "
        "--on-miss float.",
    )


def costliest(found: Found) -> str:
    """Return the layers that cost most, as a clause for the user; empty where they were not looked at."""
    worst = sorted(found.cost_by_layer.items(), key=lambda entry: entry[1])[:TOLD]
    told = ", ".join(f"{layer} {ratio:.1f} dB" for layer, ratio in worst)
    return f"; layers that cost most (signal to noise alone in int8): {told}" if worst else ""


def _told(attempt: Attempt) -> str:
    speed = "" if attempt.speedup is None else f", {attempt.speedup:.2f} times as fast as float"
    return f"val mIoU {100 * attempt.accuracy['miou']:.2f} % ({-attempt.drop:+.2f} points){speed}"


def _seconds(runtime: Runtime, pictures: Sequence[NDArray[np.uint8]], calls: int) -> float:
    started = time.perf_counter()
    for index in range(calls):
        runtime(pictures[index % len(pictures)])
    return time.perf_counter() - started
