"""Charts as inline SVG. Colours come from the page's style, so that they follow its light or dark scheme.

Every chart is drawn on a plane 400 units wide, about a phone's width: its text stays readable there.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps

WIDTH, HEIGHT = 400, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 26, 38

_MARKS: dict[str, str] = {
    "local": '<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2" class="local"><title>{title}</title></circle>',
    "hybrid": '<path d="M{x:.1f} {y:.1f}m0 -6l6 6l-6 6l-6 -6z" class="hybrid"><title>{title}</title></path>',
    "global": '<path d="M{x:.1f} {y:.1f}m-4 -4h8v8h-8z" class="global"><title>{title}</title></path>',
}


@dataclass(frozen=True)
class Plane:
    """A chart's axes: data to the units of the drawing.

    Attributes:
        x, y: (lowest, highest) of each axis.
    """

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point of the data is drawn."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def path(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        """Return the points as an SVG path."""
        return "M" + "L".join("{:.1f} {:.1f}".format(*self.at(x, y)) for x, y in zip(xs, ys, strict=True))


def layer_chart(
    title: str,
    values: Sequence[float],
    patterns: Sequence[str],
    chosen: int,
    *,
    line: tuple[str, float],
    spread: Sequence[float] | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """Draw a measure over the layers (from 1), each marked by its pattern; the chosen one has a ring.

    Args:
        title: what is shown, with its unit.
        values: by layer.
        patterns: by layer.
        chosen: the layer marked.
        line: (name, level) drawn dashed: the target, or what even attention would have.
        spread: standard deviation by layer, drawn as bars.
        band: (low, high) shaded, the hybrid range; the axis then starts at 0.
    """
    layers = range(1, len(values) + 1)
    plane = Plane((0.5, len(values) + 0.5), _range(values, line[1], band))
    parts = [_frame(plane, title, "layer", _ticks(*plane.y), [n for n in layers if _labelled(n, len(values))])]
    parts += [_band(plane, *band)] if band else []
    parts.append(_level(plane, *line))
    for layer, deviation in zip(layers, spread or [], strict=False):
        parts.append(_bar(plane, layer, values[layer - 1] - deviation, values[layer - 1] + deviation))
    parts.append(f'<path d="{plane.path(list(layers), values)}" class="curve"/>')
    for layer, value, pattern in zip(layers, values, patterns, strict=True):
        x, y = plane.at(layer, value)
        parts.append(_MARKS[pattern].format(x=x, y=y, title=f"layer {layer}: {value:.4g} ({pattern})"))
    x, y = plane.at(chosen, values[chosen - 1])
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" class="ring"/>')
    return _svg(title, parts)


def _range(values: Sequence[float], level: float, band: tuple[float, float] | None) -> tuple[float, float]:
    """Return the ends of the axis: 0 and above where there is a band, else no closer than a fifth of the level."""
    low, high = min(*values, level), max(*values, level, *(band or ()))
    if band:
        return 0.0, 1.08 * high
    margin = 0.08 * (high - low) + max(0.0, 0.2 * level - (high - low)) / 2 or 0.5
    return low - margin, high + margin


def spectrum_chart(title: str, at: Sequence[float], profiles: Sequence[Sequence[float]], chosen: int) -> str:
    """Draw the Fourier profile of each layer, from faint (early) to strong (late), the chosen one thick."""
    lowest, highest = (find(0.0, *(find(profile) for profile in profiles)) for find in (min, max))
    plane = Plane((0.0, max(at)), (1.05 * lowest, 1.05 * highest))
    parts = [_frame(plane, title, "frequency, cycles per patch", _ticks(*plane.y), _ticks(*plane.x))]
    order = sorted(range(len(profiles)), key=lambda index: index == chosen - 1)
    for index in order:
        kind = "profile chosen" if index == chosen - 1 else "profile"
        strength = 1.0 if index == chosen - 1 else 0.25 + 0.75 * index / len(profiles)
        drawn = f'd="{plane.path(at, profiles[index])}" class="{kind}" stroke-opacity="{strength:.2f}"'
        parts.append(f"<path {drawn}><title>layer {index + 1}</title></path>")
    return _svg(title, parts)


def heat_map(title: str, rows: Sequence[Sequence[float]], level: Callable[[float], float], chosen: int) -> str:
    """Draw values by layer (across) and head (down); ``level`` maps a value to 0..1 of the colour scale."""
    heads = max(map(len, rows))
    wide, high = (WIDTH - LEFT - RIGHT) / len(rows), min(16.0, (WIDTH - LEFT - RIGHT) / len(rows))
    bottom = TOP + heads * high
    parts = [_text(LEFT, 14, title, "title", "start")]
    for layer, values in enumerate(rows, 1):
        x = LEFT + (layer - 1) * wide
        for head, value in enumerate(values, 1):
            name = f"<title>layer {layer}, head {head}: {value:.4f}</title>"
            place = f'x="{x:.1f}" y="{TOP + (head - 1) * high:.1f}" width="{wide:.2f}" height="{high:.2f}"'
            parts.append(f'<rect {place} fill="{shade(level(value))}">{name}</rect>')
        if _labelled(layer, len(rows)):
            parts.append(_text(x + wide / 2, bottom + 14, str(layer)))
    parts += [
        _text(LEFT - 5, TOP + (head - 0.5) * high + 4, str(head), anchor="end")
        for head in range(1, heads + 1)
        if _labelled(head, heads)
    ]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 30, "layer"))
    parts.append(_text(12, (TOP + bottom) / 2, "head", turn=True))
    place = (
        f'x="{LEFT + (chosen - 1) * wide:.1f}" y="{TOP}" width="{wide:.1f}" height="{len(rows[chosen - 1]) * high:.1f}"'
    )
    parts.append(f'<rect {place} class="ring"/>')
    return _svg(title, parts, height=round(bottom + 38))


def legend(rows: Sequence[tuple[str, str]]) -> str:
    """Draw a legend: (kind, words), the kind a pattern or one of ring, line, band, bar, faint."""
    parts = [_text(LEFT, 14, "Marks", "title", "start")]
    for index, (kind, words) in enumerate(rows):
        x, y = LEFT + 14, TOP + 16 + 24 * index
        parts.append(_sample(kind, x, y) + _text(x + 24, y + 4, words, anchor="start"))
    return _svg("Marks", parts, height=TOP + 16 + 24 * len(rows))


def _sample(kind: str, x: float, y: float) -> str:
    drawn = {
        "ring": f'<circle cx="{x}" cy="{y}" r="10" class="ring"/>',
        "line": f'<path d="M{x - 14} {y}h28" class="target"/>',
        "band": f'<rect x="{x - 14}" y="{y - 7}" width="28" height="14" class="band"/>',
        "bar": f'<path d="M{x} {y - 8}v16" class="spread"/>',
        "faint": f'<path d="M{x - 14} {y + 3}h28" class="profile" stroke-opacity="0.3"/>'
        f'<path d="M{x - 14} {y - 3}h28" class="profile"/>',
    }
    return drawn[kind] if kind in drawn else _MARKS[kind].format(x=x, y=y, title=kind)


def scale(levels: Sequence[tuple[str, float]]) -> str:
    """Draw the colour scale of a heat map with labels at some levels, 0..1."""
    step = (WIDTH - 2 * LEFT) / 64
    parts = [
        f'<rect x="{LEFT + index * step:.1f}" y="2" width="{step + 0.5:.1f}" height="10" fill="{shade(index / 63)}"/>'
        for index in range(64)
    ]
    parts += [_text(LEFT + level * 64 * step, 25, label) for label, level in levels]
    return _svg("colour scale", parts, height=30)


def shade(level: float) -> str:
    """Return a colour of the scale (cividis, made for colour-blind readers too), for 0..1."""
    red, green, blue = (round(255 * part) for part in colormaps["cividis"](float(np.clip(level, 0, 1)))[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"


def _svg(title: str, parts: Sequence[str], *, height: int = HEIGHT) -> str:
    name = html.escape(title)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _frame(plane: Plane, title: str, across: str, ups: Sequence[float], alongs: Sequence[float]) -> str:
    parts = [_text(LEFT, 14, title, "title", "start"), _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, across)]
    for value in ups:
        _, y = plane.at(plane.x[0], value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" class="grid"/>')
        parts.append(_text(LEFT - 5, y + 4, f"{value:g}", anchor="end"))
    parts += [_text(plane.at(value, 0)[0], HEIGHT - BOTTOM + 15, f"{value:g}") for value in alongs]
    return "".join(parts)


def _band(plane: Plane, low: float, high: float) -> str:
    (left, bottom), (right, top) = plane.at(plane.x[0], low), plane.at(plane.x[1], high)
    return f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" class="band"/>'


def _level(plane: Plane, name: str, value: float) -> str:
    _, y = plane.at(0, value)
    label = _text(WIDTH - RIGHT - 3, y - 5, name, anchor="end")
    return f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" class="target"/>{label}'


def _bar(plane: Plane, x: float, low: float, high: float) -> str:
    (at, bottom), (_, top) = plane.at(x, max(low, plane.y[0])), plane.at(x, min(high, plane.y[1]))
    return f'<path d="M{at:.1f} {bottom:.1f}V{top:.1f}" class="spread"/>'


def _text(x: float, y: float, text: str, kind: str = "label", anchor: str = "middle", *, turn: bool = False) -> str:
    turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}"{turned}>{html.escape(text)}</text>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most six."""
    if high <= low:
        return [low]
    step = 10.0 ** np.floor(np.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= 5)
    return [round(index * step, 12) for index in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _labelled(index: int, count: int) -> bool:
    """Whether a layer or head gets its number: all where there is room, else every other."""
    return count <= 12 or index % 2 == 0
