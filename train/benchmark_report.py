"""The results of a comparison: every run, mean and spread over the seeds, mIoU over cost."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgeunip import durable
from edgeunip.train.cost import Cost
from edgeunip.train.report import encode

MARKERS = "osD^vP*X"


@dataclass(frozen=True)
class Result:
    """One run of a comparison.

    Attributes:
        init, data, mode, seed: the combination.
        folder: of the run.
        score: over the test split (miou, iou by class, accuracy: shares 0..1; images); None where it failed.
        cost: of the model.
        error: why it failed.
    """

    init: str
    data: str
    mode: str
    seed: int
    folder: str
    score: dict[str, Any] | None = None
    cost: Cost | None = None
    error: str | None = None

    def __str__(self) -> str:
        return f"failed: {self.error}" if self.score is None else f"test mIoU {100 * self.score['miou']:.2f} %"


@dataclass(frozen=True)
class Group:
    """The runs of one combination of init, data set and mode.

    Attributes:
        init, data, mode: the combination.
        values: test mIoU of the runs that ended, shares.
        asked: number of runs, failed ones included.
        cost: of the model; None where none ended.
    """

    init: str
    data: str
    mode: str
    values: tuple[float, ...]
    asked: int
    cost: Cost | None

    @property
    def mean(self) -> float | None:
        """Mean test mIoU."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1); None for fewer than two runs."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            return "failed"
        spread = "" if self.deviation is None else f" ± {100 * self.deviation:.2f}"
        missing = "" if len(self.values) == self.asked else f" ({len(self.values)} of {self.asked} runs)"
        return f"{100 * self.mean:.2f}{spread}{missing}"


def group(results: Sequence[Result]) -> list[Group]:
    """Gather the seeds of each combination, in the order of the results."""
    gathered: dict[tuple[str, str, str], list[Result]] = {}
    for one in results:
        gathered.setdefault((one.init, one.data, one.mode), []).append(one)
    return [
        Group(
            *names,
            tuple(one.score["miou"] for one in found if one.score),
            len(found),
            next((one.cost for one in found if one.cost), None),
        )
        for names, found in gathered.items()
    ]


def write(out: Path, results: Sequence[Result]) -> None:
    """Write ``results.json`` (all), ``.csv`` (a row a run), ``.md`` and ``.png`` (mean and spread over the seeds)."""
    groups = group(results)
    summary = [{**asdict(one), "mean": one.mean, "deviation": one.deviation} for one in groups]
    durable.write_json(out / "results.json", {"runs": [asdict(one) for one in results], "summary": summary})
    durable.write_text(out / "results.csv", _csv(results))
    durable.write_text(out / "results.md", table(groups))
    durable.write_bytes(out / "results.png", _plot(groups))


def table(groups: Sequence[Group]) -> str:
    """Return mean and standard deviation over the seeds, and the models' cost, as a Markdown table."""
    head = ("data", "mode", "init", "test mIoU, %", "parameters, M", "trained, M", "GMACs", "with attention's products")
    rows = [head, ("---",) * len(head)]
    for one in groups:
        rows.append((one.data, one.mode, one.init, str(one), *_cost(one.cost)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cost(cost: Cost | None) -> tuple[str, str, str, str]:
    if cost is None:
        return "", "", "", ""
    every = (cost.parameters / 1e6, cost.trainable / 1e6, cost.macs / 1e9, (cost.macs + cost.attention_macs) / 1e9)
    first, second, third, fourth = (f"{value:.3g}" if value < 10 else f"{value:.1f}" for value in every)
    return first, second, third, fourth


def _csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    costs = ["parameters", "macs", "attention_macs"]
    writer.writerow(["data", "mode", "init", "seed", "miou", "accuracy", *costs, "error"])
    for one in results:
        score, cost = one.score or {}, asdict(one.cost) if one.cost else {}
        figures = [score.get("miou"), score.get("accuracy"), *(cost.get(key) for key in costs)]
        writer.writerow([one.data, one.mode, one.init, one.seed, *figures, one.error])
    return text.getvalue()


def _plot(groups: Sequence[Group]) -> bytes:
    """Draw a panel a data set and mode: mIoU, mean and standard deviation, over GMACs; a colour and marker an init."""
    panels = list(dict.fromkeys((one.data, one.mode) for one in groups))
    inits = list(dict.fromkeys(one.init for one in groups))
    figure = Figure(figsize=(1 + 4 * len(panels), 4.5))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for one in (one for one in groups if (one.data, one.mode) == panel):
            _draw(axes, one, inits)
        axes.set(title=", ".join(panel), xlabel="GMACs, attention's products included", ylabel="test mIoU, %")
        axes.grid(alpha=0.3)
        axes.margins(x=0.3, y=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    return encode(figure)


def _draw(axes: Any, one: Group, inits: Sequence[str]) -> None:
    if one.mean is None or one.cost is None:
        return
    index = inits.index(one.init)
    gmacs = (one.cost.macs + one.cost.attention_macs) / 1e9
    style = {"marker": MARKERS[index % len(MARKERS)], "color": f"C{index % 10}", "capsize": 4, "linestyle": "none"}
    axes.errorbar(gmacs, 100 * one.mean, 100 * (one.deviation or 0), label=one.init[-30:], **style)
