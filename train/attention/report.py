"""The report of an analysis: one HTML file that needs no other, for a desk and a phone, light and dark."""

from __future__ import annotations

import base64
import html
import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip import durable
from edgeunip.train.attention import charts, pictures
from edgeunip.train.attention.analysis import Analysis, tell
from edgeunip.train.attention.maps import LayerMaps, Place, attention_maps, places
from edgeunip.train.augment import Picture
from edgeunip.train.encoder import Encoder
from edgeunip.train.report import png

PICTURES = 3
_MOST = 8.0  # times even attention that is drawn full
_DIMMED = 0.55
_SIDE = 320

_LEGEND = [
    ("local", "local layer"),
    ("hybrid", "hybrid layer"),
    ("global", "global layer"),
    ("ring", "chosen layer (by head: frame; profile: thick)"),
    ("line", "target, or what even attention would have"),
    ("band", "hybrid range of NMI"),
    ("bar", "standard deviation over the images"),
    ("faint", "profile: faint early layers, strong late ones"),
]

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --dim: #5c5c5c; --back: #fff; --soft: #f2f2f2; --rule: #d5d5d5;
  --local: #0072b2; --hybrid: #d55e00; --global: #6b6b6b; --band: #e69f0033 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --dim: #a8a8a8; --back: #161616; --soft: #242424;
  --rule: #3a3a3a; --local: #56b4e9; --hybrid: #ff9d3c; --global: #b0b0b0; --band: #e69f0038 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 0 auto; padding: 1rem; color: var(--ink);
  background: var(--back); overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25 } h2 { font-size: 1.2rem; margin-top: 2.2rem }
.verdict { background: var(--soft); border-left: 5px solid var(--hybrid); padding: .7rem 1rem }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem 1.5rem }
svg { width: 100%; height: auto; display: block }
svg text { font: 12px system-ui, sans-serif; fill: var(--dim); paint-order: stroke; stroke: var(--back);
  stroke-width: 3px; stroke-linejoin: round }
svg .title { fill: var(--ink); font-weight: 600 }
.grid { stroke: var(--rule); fill: none } .curve { stroke: var(--dim); fill: none; stroke-width: 1.2 }
.band { fill: var(--band) } .target { stroke: var(--hybrid); stroke-dasharray: 6 4; fill: none }
.spread { stroke: var(--dim) } .ring { fill: none; stroke: var(--hybrid); stroke-width: 2 }
.local { fill: var(--local) } .hybrid { fill: var(--hybrid) } .global { fill: var(--global) }
.profile { fill: none; stroke: var(--local); stroke-width: 1.3 }
.profile.chosen { stroke: var(--hybrid); stroke-width: 3.5 }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap }
tr.chosen td { font-weight: 700; background: var(--soft) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dt { color: var(--dim) } dd { margin: 0 }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: .5rem; max-width: 60rem }
.heads { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)) }
figure { margin: 0 } figcaption { font-size: .8rem; line-height: 1.2; color: var(--dim) }
.tile { position: relative; background-size: 100% 100%; print-color-adjust: exact }
.tile img { display: block; width: 100%; height: 100%; position: absolute; image-rendering: pixelated }
.tile i { position: absolute; box-sizing: border-box; border: 2px solid #fff; outline: 1px solid #000 }
.fade { height: .9rem; background: linear-gradient(90deg, #505050, #ff9d3c); max-width: 20rem }
.ends { display: flex; justify-content: space-between; max-width: 20rem; font-size: .8rem; color: var(--dim) }
summary { margin: .6rem 0; cursor: pointer }
@media (max-width: 40rem) { .tiles { grid-template-columns: repeat(2, 1fr) }
  .heads { grid-template-columns: repeat(4, 1fr) } }
"""


def write(path: Path, found: Analysis, encoder: Encoder) -> None:
    """Write the report of an analysis; a few of its images are read again for the attention maps.

    Raises:
        DataError: an image is no longer there.
        StorageError: the file cannot be written.
    """
    durable.write_text(
        path, page(found, [_look(found, encoder, image) for image in pictures.spread(found.paths, PICTURES)])
    )


@dataclass(frozen=True)
class Look:
    """A picture with the attention over it: where the queries are, and by layer where they look."""

    path: Path
    picture: Picture
    queries: dict[str, Place]
    layers: dict[int, LayerMaps]


def _look(found: Analysis, encoder: Encoder, path: Path) -> Look:
    how = found.preparation
    picture = pictures.fit(pictures.read(path, rgb=how.rgb), how, path)
    queries = places(picture, how.patch)
    maps = attention_maps(encoder, picture, how, list(queries.values()), shown_layers(found))
    return Look(path, picture, queries, maps)


def shown_layers(found: Analysis) -> list[int]:
    """Return an early layer, the chosen one and the last."""
    depth = len(found.layers)
    return sorted({max(1, depth // 6), found.choice.layer, depth})


def page(found: Analysis, looks: list[Look]) -> str:
    """Return the whole page."""
    name = html.escape(found.origin.name)
    backgrounds = "".join(
        f".p{index} {{ {_background(look.picture)} }}\n.d{index} {{ {_background(_dim(look.picture))} }}\n"
        for index, look in enumerate(looks)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Attention of {name}</title><style>{_STYLE}{backgrounds}</style></head><body>
<h1>Attention of {name}</h1>
<p class="verdict">{html.escape(tell(found))}</p>
{_facts(found)}
<h2>How to read it</h2>
<p>NMI says how much a patch's attention depends on where that patch is: near 1 each looks at its own surroundings
(<b>local</b>), near 0 all look at the same places (<b>global</b>), and between the two, from
{found.borders.global_below:g} to {found.borders.local_above:g} (the shaded band), most share one foreground and still
look around themselves (<b>hybrid</b>), which is the pattern NMI-HAD distils.
A good teacher layer lies near the dashed line at {found.choice.target:g}, keeps its place when the images are
resampled, and shows maps below that follow the objects while they still differ between the marked patches.
Attention distance falls and NMI rises where attention is local; a low entropy with a low NMI means that all patches
stare at a few tokens.</p>
<h2>By layer</h2>
<div class="charts">{_charts(found)}</div>
<h2>Attention over pictures</h2>
<p>The frame marks the patch that asks; orange over the darkened picture shows where it looks (mean over heads), as a
multiple of even attention. &ldquo;All patches&rdquo; is the mean over every patch that asks.</p>
<div class="fade"></div><div class="ends"><span>1&times; or less</span><span>{_MOST:g}&times; or more</span></div>
{"".join(_look_html(index, look, found) for index, look in enumerate(looks))}
<h2>Figures</h2>
<div class="scroll">{_table(found)}</div>
</body></html>
"""


def _facts(found: Analysis) -> str:
    origin, how = found.origin, found.preparation
    size = "own size" if how.size is None else f"{how.size[0]} x {how.size[1]} pixels"
    rows = {
        "weights": f"{origin.name}, {origin.kind}",
        "licence": origin.licence or "not stated by the source of the weights",
        "file": f"{origin.file}, SHA-256 {origin.sha256}" if origin.file else "",
        "images": f"{len(found.paths)}, {size}, {'colour' if how.rgb else 'gray'}, normalised as {how.normalise}",
        "left out": "; ".join(found.refused),
    }
    return (
        "<dl>" + "".join(f"<dt>{key}</dt><dd>{html.escape(text)}</dd>" for key, text in rows.items() if text) + "</dl>"
    )


def _charts(found: Analysis) -> str:
    layers, chosen, patterns = found.layers, found.choice.layer, [layer.pattern for layer in found.layers]
    nmi = charts.layer_chart(
        "NMI",
        [layer.nmi for layer in layers],
        patterns,
        chosen,
        line=(f"target {found.choice.target:g}", found.choice.target),
        spread=[layer.nmi_std for layer in layers],
        band=(found.borders.global_below, found.borders.local_above),
    )
    heads = charts.heat_map("NMI by head", [one.nmi_heads for one in layers], _level, chosen)
    scale = charts.scale([(f"{value:g}", _level(value)) for value in (0.01, 0.03, 0.1, 0.3, 1.0)])
    even = ("even attention", found.even.distance_px)
    distance = charts.layer_chart(
        "Attention distance, pixels", [one.distance_px for one in layers], patterns, chosen, line=even
    )
    even = ("even attention", found.even.entropy)
    entropy = charts.layer_chart(
        "Entropy of a patch's attention, nats", [one.entropy for one in layers], patterns, chosen, line=even
    )
    spectrum = charts.spectrum_chart(
        "Fourier profile of block outputs, ln amplitude", found.frequencies, [one.fourier for one in layers], chosen
    )
    legend = charts.legend(_LEGEND)
    return "".join(f"<div>{chart}</div>" for chart in (nmi, heads + scale, distance, entropy, spectrum, legend))


def _level(nmi: float) -> float:
    """NMI on the colour scale: 0.01 .. 1, logarithmic, since what matters lies about a tenth."""
    return math.log10(max(nmi, 0.01) / 0.01) / 2


def _look_html(index: int, look: Look, found: Analysis) -> str:
    markers = "".join(_marker(place, look.layers[found.choice.layer].everyone.shape) for place in look.queries.values())
    parts = [
        f"<h3>{html.escape(look.path.name)}</h3><div class='tiles'>{_tile(look, f'p{index}', markers, 'picture')}</div>"
    ]
    for layer, maps in look.layers.items():
        kind = found.layers[layer - 1]
        chosen = ", chosen" if layer == found.choice.layer else ""
        parts.append(f"<p>Layer {layer}: {kind.pattern}, NMI {kind.nmi:.3f}{chosen}</p><div class='tiles'>")
        for heads, (name, place) in zip(maps.queries, look.queries.items(), strict=True):
            parts.append(_tile(look, f"d{index}", _veiled(heads.mean(0), place), name))
        parts.append(_tile(look, f"d{index}", _veiled(maps.everyone), "all patches") + "</div>")
    return "".join(parts) + _heads(index, look, found)


def _heads(index: int, look: Look, found: Analysis) -> str:
    """The chosen layer head by head, folded away."""
    name, place = next(iter(look.queries.items()))
    maps, scores = look.layers[found.choice.layer].queries[0], found.layers[found.choice.layer - 1].nmi_heads
    tiles = [
        _tile(look, f"d{index}", _veiled(shares, place), f"head {head}: {score:.3f}")
        for head, (shares, score) in enumerate(zip(maps, scores, strict=True), 1)
    ]
    words = f"Layer {found.choice.layer} head by head, asked from the {name}, with each head's NMI"
    return f"<details><summary>{words}</summary><div class='tiles heads'>{''.join(tiles)}</div></details>"


def _tile(look: Look, background: str, inside: str, caption: str) -> str:
    height, width = look.picture.shape[:2]
    tile = f'<div class="tile {background}" style="aspect-ratio: {width}/{height}">{inside}</div>'
    return f"<figure>{tile}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _veiled(shares: NDArray[np.float32], place: Place | None = None) -> str:
    veil = f'<img alt="attention map" src="{_data_uri(_veil(shares))}">'
    return veil + (_marker(place, shares.shape) if place else "")


def _marker(place: Place, grid: tuple[int, ...]) -> str:
    (row, column), (rows, columns) = place, grid
    left, top, width, height = 100 * column / columns, 100 * row / rows, 100 / columns, 100 / rows
    return f'<i style="left: {left:.2f}%; top: {top:.2f}%; width: {width:.2f}%; height: {height:.2f}%"></i>'


def _veil(shares: NDArray[np.float32]) -> bytes:
    """Orange, the more opaque the more attention; a pixel a patch, RGBA PNG."""
    doublings = np.log2(np.maximum(shares * shares.size, 1.0)) / math.log2(_MOST)
    veil = np.empty((*shares.shape, 4), np.uint8)
    veil[..., :3] = (60, 157, 255)
    veil[..., 3] = np.clip(doublings, 0, 1) * 255
    return cv2.imencode(".png", veil)[1].tobytes()


def _dim(picture: Picture) -> Picture:
    return np.asarray(picture * _DIMMED, np.uint8)


def _background(picture: Picture) -> str:
    height, width = picture.shape[:2]
    factor = min(1.0, _SIDE / max(height, width))
    sides = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(cv2.resize(picture, sides, interpolation=cv2.INTER_AREA), np.uint8)
    colour = small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2)
    return f"background-image: url({_data_uri(png(colour))})"


def _data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _table(found: Analysis) -> str:
    heads = "<tr><th>layer</th><th>pattern</th><th>NMI</th><th>spread</th><th>lowest head</th><th>highest head</th>"
    heads += "<th>distance, px</th><th>entropy, nats</th></tr>"
    rows = []
    for one in found.layers:
        kind = ' class="chosen"' if one.layer == found.choice.layer else ""
        values = [one.nmi, one.nmi_std, min(one.nmi_heads), max(one.nmi_heads)]
        cells = "".join(f"<td>{value:.4f}</td>" for value in values)
        cells += f"<td>{one.distance_px:.1f}</td><td>{one.entropy:.3f}</td>"
        rows.append(f"<tr{kind}><td>{one.layer}</td><td>{one.pattern}</td>{cells}</tr>")
    return f"<table>{heads}{''.join(rows)}</table>"
