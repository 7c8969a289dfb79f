"""The report of a comparison: a table for a terminal and for Markdown, CSV, JSON, a plot, one HTML page."""

from __future__ import annotations

import base64
import csv
import html
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from edgeunip import durable
from edgeunip.compress.compare import Comparison, Row
from edgeunip.train.report import encode

HEAD = ("model", "for", "precision", "input", "mIoU, %", "ms", "p90", "x first", "/ fastest", "MB", "GMACs", "int8, %")
_TEXTS = 4  # the first columns are text, the others numbers
_MARKERS = {"run": "o", "bundle": "s", "external": "D"}
# Where a label may stand about its point, in points: the first that is free is taken.
_PLACES = [(8, 6), (8, -12), (-8, 6), (-8, -12), (0, 14), (0, -20), (8, 18), (8, -26), (-8, 18), (-8, -26)]

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; margin-top: 2rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #8886; text-align: right; white-space: nowrap }
.text { text-align: left }
img { max-width: 100%; height: auto; background: #fff }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dt { opacity: .7 } dd { margin: 0 }
"""

_TERMS = {
    "ms, p90": "one call of the bare model, median and 90th percentile",
    "x first": "how many times as fast as the first model, median over the rounds",
    "/ fastest": "how many times as long as the fastest model, median over the rounds",
    "MB": "what a device loads of a bundle; a run's weights; a model file",
    "GMACs": "multiply-accumulates of convolutions and matrix products for one picture",
    "int8": "share of the GMACs whose operands both are 8-bit in the graph: with GMACs, what energy follows",
}
_NAMED = 4  # models in a heading


def describe(found: Comparison) -> str:
    """Return the table and the IoU of each class for a terminal."""
    tables = [_aligned(HEAD, cells(found.rows), _TEXTS)]
    if by_class := class_cells(found.rows):
        tables.append(_aligned(*by_class, texts=1))
    return "\n\n".join([caption(found), *tables])


def caption(found: Comparison) -> str:
    """Return in one line what the figures were measured on."""
    scored = next((row.score for row in found.rows if row.score), None)
    pictures = f"{Path(found.data).name}, {found.split} split, {scored['images']} pictures; " if scored else ""
    engines = ", ".join(dict.fromkeys(row.engine for row in found.rows))
    return f"{pictures}{found.processor}, {found.threads} threads, {engines}, float32 hint, models in turns"


def cells(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the rows of the table as text; accuracy is empty where a model was measured for speed only."""
    return [
        (
            row.name,
            row.target,
            row.precision,
            f"{row.height}x{row.width}",
            percent(row.score["miou"]) if row.score else "",
            f"{row.median_ms:.1f}",
            f"{row.p90_ms:.1f}",
            f"{row.speed:.2f}",
            f"{row.behind:.2f}",
            f"{row.bytes / 1e6:.2f}",
            f"{row.macs / 1e9:.2f}",
            f"{100 * row.int8_share:.0f}",
        )
        for row in rows
    ]


def class_cells(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """Return head and rows of the table of IoU by class; None where no model was scored."""
    scored = [(row.name, row.score["iou"]) for row in rows if row.score]
    if not scored:
        return None
    head = ("IoU, %", *scored[0][1])
    return head, [(name, *("absent" if iou is None else percent(iou) for iou in by.values())) for name, by in scored]


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.2f}"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]], texts: int) -> str:
    """Return a Markdown table whose first ``texts`` columns are text."""
    rule = ["---" if column < texts else "---:" for column in range(len(head))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))


def write(out: Path, found: Comparison) -> None:
    """Write ``compare.json``, ``.csv``, ``.md``, ``.png`` and ``.html`` into the folder ``out``."""
    picture = plot(found)
    tables = [markdown(HEAD, cells(found.rows), _TEXTS)]
    if by_class := class_cells(found.rows):
        tables.append(markdown(*by_class, texts=1))
    durable.write_json(out / "compare.json", found.to_json())
    durable.write_text(out / "compare.csv", _csv(found.rows))
    durable.write_text(out / "compare.md", "\n".join([f"{caption(found)}\n", *tables]))
    durable.write_bytes(out / "compare.png", picture)
    durable.write_text(out / "compare.html", page(found, picture))


def plot(found: Comparison) -> bytes:
    """Draw mIoU over milliseconds, PNG: hollow for float, filled for int8; models for speed only are lines."""
    figure = Figure(figsize=(9, 5.5))
    axes = figure.subplots()
    times = [row.median_ms for row in found.rows]
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.6, max(times) * 1.6)
    scored = [row for row in found.rows if row.score]
    timed = [row for row in found.rows if not row.score]
    colours = _colours(found.rows)
    names = [_draw_line(axes, row, colours[_family(row)]) for row in timed]
    _draw_points(axes, scored, colours)
    axes.margins(y=0.2)
    axes.set(xlabel=f"ms a picture, {found.threads} threads, median (log)")
    axes.set_ylabel("mIoU, %; hollow: float, filled: int8" if scored else "dashed: float, solid: int8")
    axes.set_title(textwrap.fill(caption(found), 130), fontsize=8, loc="left")
    _number_axis(axes, times)
    axes.grid(alpha=0.25)
    if not scored:
        axes.set_yticks([])
    figure.tight_layout()
    _label(figure, axes, scored, colours, names)
    return encode(figure)


def page(found: Comparison, picture: bytes) -> str:
    """Return one HTML page that needs no other file."""
    tables = [_html_table(HEAD, cells(found.rows), _TEXTS)]
    if by_class := class_cells(found.rows):
        tables.append("<h2>By class</h2>" + _html_table(*by_class, texts=1))
    terms = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(text)}</dd>" for key, text in _TERMS.items())
    source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Comparison</title><style>{_STYLE}</style></head><body>
<h1>{html.escape(_heading(found))}</h1>
<p>{html.escape(caption(found))}</p>
<p><img src="{source}" alt="mIoU over milliseconds"></p>
{"".join(tables)}
<h2>Terms</h2><dl>{terms}</dl>
</body></html>
"""


def _heading(found: Comparison) -> str:
    """Name the models, where a line holds them."""
    names = [row.name for row in found.rows]
    return ", ".join(names) if len(names) <= _NAMED else f"{len(names)} models compared"


def _aligned(head: Sequence[str], body: Sequence[Sequence[str]], texts: int) -> str:
    rows = [head, *body]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    used = [column for column in range(len(head)) if any(row[column] for row in body)]
    lines = []
    for row in rows:
        words = [row[at].ljust(widths[at]) if at < texts else row[at].rjust(widths[at]) for at in used]
        lines.append("  ".join(words).rstrip())
    return "\n".join(lines)


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = list(next((row.score["iou"] for row in rows if row.score), {}))
    figures = ["name", "kind", "target", "precision", "height", "width", "median_ms", "p90_ms", "speed", "behind"]
    figures += ["bytes", "macs", "int8_share", "engine"]
    writer.writerow([*figures, "miou", "accuracy", "images", *(f"iou {name}" for name in classes)])
    for row in rows:
        score = row.score or {}
        accuracy = [score.get(key) for key in ("miou", "accuracy", "images")]
        by_class = [score["iou"][name] if score else None for name in classes]
        writer.writerow([*(getattr(row, key) for key in figures), *accuracy, *by_class])
    return text.getvalue()


def _html_table(head: Sequence[str], body: Sequence[Sequence[str]], texts: int) -> str:
    def line(tag: str, row: Sequence[str]) -> str:
        marks = [' class="text"' if at < texts else "" for at in range(len(row))]
        inner = "".join(f"<{tag}{mark}>{html.escape(word)}</{tag}>" for mark, word in zip(marks, row, strict=True))
        return f"<tr>{inner}</tr>"

    return f'<div class="scroll"><table>{line("th", head)}{"".join(line("td", row) for row in body)}</table></div>'


def _family(row: Row) -> str:
    """Return the name that float and int8 of one model share, as far as their names tell."""
    return row.name.removesuffix("-int8").removesuffix("-float32")


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    families = dict.fromkeys(_family(row) for row in rows)
    return {name: f"C{index % 10}" for index, name in enumerate(families)}


def _draw_line(axes: Any, row: Row, colour: str) -> Any:
    """Draw a model without accuracy over the whole height; returns its name's text."""
    style = "-" if row.precision == "int8" else "--"
    axes.axvline(row.median_ms, color=colour, linestyle=style, alpha=0.7, linewidth=1, zorder=1)
    # The two forms of a model are often as fast as each other: int8's name stands at the bottom, float's at the top.
    low = row.precision == "int8"
    place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "right"}
    place |= {"va": "bottom" if low else "top"}
    at, beside = (row.median_ms, 0.02 if low else 0.98), (-3, 0)
    return axes.annotate(_title(row), at, beside, rotation=90, fontsize=8, color=colour, **place)


def _draw_points(axes: Any, scored: Sequence[Row], colours: dict[str, str]) -> None:
    """Draw a point a model, and a line between the forms of one."""
    for family in dict.fromkeys(_family(row) for row in scored):
        forms = [row for row in scored if _family(row) == family]
        at = [row.median_ms for row in forms], [_miou(row) for row in forms]
        axes.plot(*at, color=colours[family], linewidth=1, alpha=0.5, zorder=2)
        for row, x, y in zip(forms, *at, strict=True):
            face = colours[family] if row.precision == "int8" else "white"
            style = {"marker": _MARKERS[row.kind], "color": colours[family], "markerfacecolor": face}
            axes.plot(x, y, linestyle="none", markersize=8, zorder=3, **style)


def _number_axis(axes: Any, times: Sequence[float]) -> None:
    """Write plain numbers under a logarithmic axis: 1, 2, 5, 10, .."""
    low, high = axes.get_xlim()
    steps = (1, 1.5, 2, 3, 5, 7) if max(times) < 30 * min(times) else (1, 2, 5)
    ticks = [step * 10.0**power for power in range(-3, 6) for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()


def _label(figure: Any, axes: Any, scored: Sequence[Row], colours: dict[str, str], names: Sequence[Any]) -> None:
    """Write each point's name where no other name and no point is."""
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    taken = [_about(axes.transData.transform((row.median_ms, _miou(row)))) for row in scored]
    taken += [name.get_window_extent(renderer) for name in names]
    for row in scored:
        behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
        style = {"textcoords": "offset points", "fontsize": 8, "color": colours[_family(row)], "bbox": behind}
        texts = [_beside(axes, row, place, style) for place in _PLACES]
        boxes = [text.get_window_extent(renderer) for text in texts]
        free = [at for at, box in enumerate(boxes) if _inside(axes, box) and not box.count_overlaps(taken)]
        chosen = free[0] if free else len(texts) - 1
        for text in (*texts[:chosen], *texts[chosen + 1 :]):
            text.remove()
        taken.append(boxes[chosen])


def _beside(axes: Any, row: Row, place: tuple[int, int], style: dict[str, Any]) -> Any:
    side = "left" if place[0] > 0 else "right" if place[0] < 0 else "center"
    return axes.annotate(_title(row), (row.median_ms, _miou(row)), place, ha=side, **style)


def _inside(axes: Any, box: Any) -> bool:
    return bool(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1)


def _about(point: Any) -> Bbox:
    return Bbox.from_bounds(point[0] - 6, point[1] - 6, 12, 12)


def _miou(row: Row) -> float:
    return 100 * float(row.score["miou"]) if row.score else 0.0


def _title(row: Row) -> str:
    name = row.name if len(row.name) <= 32 else f"{row.name[:15]}..{row.name[-15:]}"
    return name if row.precision in name else f"{name} {row.precision}"
