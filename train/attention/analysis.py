"""One pass over images: what an encoder's attention does in each layer, and which layer NMI-HAD would distil."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from edgeunip.errors import DataError
from edgeunip.train.attention import pictures
from edgeunip.train.attention.choice import TARGET, Borders, Choice, Pattern, choose
from edgeunip.train.attention.measures import Even, frequencies
from edgeunip.train.attention.pictures import Preparation
from edgeunip.train.attention.scan import LayerScan, scan
from edgeunip.train.encoder import Encoder, Origin, patch_size

Say = Callable[[str], None]


@dataclass(frozen=True)
class Layer:
    """What was measured of a layer; means over the images, those by head in the order of the heads.

    Attributes:
        layer: counted from 1.
        nmi, nmi_heads: normalised mutual information, 0..1.
        nmi_std: standard deviation over the images of the mean over heads.
        distance_px, distance_heads: attention distance, pixels of the encoder's input.
        entropy, entropy_heads: of a query's attention, nats.
        pattern: by the borders of the analysis.
        fourier: ln amplitude of the block's output relative to DC, at the frequencies of the analysis.
    """

    layer: int
    nmi: float
    nmi_heads: tuple[float, ...]
    nmi_std: float
    distance_px: float
    distance_heads: tuple[float, ...]
    entropy: float
    entropy_heads: tuple[float, ...]
    pattern: Pattern
    fourier: tuple[float, ...]


@dataclass(frozen=True)
class Analysis:
    """An encoder's attention over a set of images.

    Attributes:
        layers: first to last.
        choice: the layer that NMI-HAD would distil.
        borders: of the patterns.
        origin: where the encoder's weights come from.
        paths: the images that were used.
        refused: for each image that could not be used, why.
        preparation: how images became input.
        frequencies: at which ``fourier`` stands, cycles a patch.
        even: what even attention would measure.
    """

    layers: tuple[Layer, ...]
    choice: Choice
    borders: Borders
    origin: Origin
    paths: tuple[Path, ...]
    refused: tuple[str, ...]
    preparation: Preparation
    frequencies: tuple[float, ...]
    even: Even

    def to_json(self) -> dict[str, Any]:
        """Return all figures: ``layers``, ``chosen`` (counted from 1), and what they were measured with."""
        choice = {key: value for key, value in asdict(self.choice).items() if key != "layer"}
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "chosen": self.choice.layer,
            "choice": choice,
            "borders": asdict(self.borders),
            "images": len(self.paths),
            "refused": list(self.refused),
            "preparation": asdict(self.preparation),
            "frequencies": list(self.frequencies),
            "even": asdict(self.even),
            "origin": asdict(self.origin),
        }


def analyse(
    encoder: Encoder,
    paths: Sequence[Path],
    how: Preparation,
    *,
    target: float = TARGET,
    borders: Borders | None = None,
    say: Say = lambda text: None,
) -> Analysis:
    """Measure an encoder on images, each read once.

    Args:
        encoder: the model.
        paths: the images.
        how: their preparation.
        target: NMI of the layer to choose.
        borders: of the patterns.
        say: told each image that cannot be used.

    Raises:
        DataError: no image can be used, or the model's attention is not finite.
    """
    borders, refused = borders or Borders(), dict[Path, str]()
    choose([0.0], target)  # a target out of range is told before the work, not after it

    def refuse(path: Path, error: DataError) -> None:
        refused[path] = str(error)
        say(f"Left out: {error}")

    at = frequencies(own_grid(encoder))
    scanned = scan(encoder, pictures.batches(paths, how, refuse), at)
    if scanned is None:
        raise DataError(f"None of the {len(paths)} images can be used", where=paths[0].parent, why=refused[paths[0]])
    return Analysis(
        layers=tuple(_layer(index, layer, borders) for index, layer in enumerate(scanned.layers, 1)),
        choice=scanned.choose(target),
        borders=borders,
        origin=encoder.origin,
        paths=tuple(path for path in paths if path not in refused),
        refused=tuple(refused.values()),
        preparation=how,
        frequencies=tuple(at),
        even=scanned.even,
    )


def on_best_device(encoder: Encoder) -> Encoder:
    """Move an encoder to the GPU where there is one."""
    return Encoder(encoder.vit.to("cuda" if torch.cuda.is_available() else "cpu"), encoder.origin)


def own_grid(encoder: Encoder) -> tuple[int, int]:
    """Return the grid (rows, columns) of the encoder's position table, patches."""
    rows, columns = encoder.vit.patch_embed.grid_size
    return int(rows), int(columns)


def preparation(encoder: Encoder, size: str | None = None, **values: Any) -> Preparation:
    """Return how images become this encoder's input; ``size``: ``HxW``, ``native``, or None for its own grid's."""
    projection: Any = encoder.vit.patch_embed.proj
    patch = patch_size(encoder.vit)
    rows, columns = own_grid(encoder)
    pixels = (
        (rows * patch, columns * patch) if size is None else None if size == "native" else pictures.parse_size(size)
    )
    return Preparation(int(projection.in_channels), patch, pixels, **values)


def _layer(index: int, found: LayerScan, borders: Borders) -> Layer:
    measures = found.measures
    (nmi, nmi_heads), (distance, distance_heads), (entropy, entropy_heads) = (
        (float(values.mean()), tuple(values.mean(0).tolist()))
        for values in (measures.nmi, measures.distance, measures.entropy)
    )
    return Layer(
        layer=index,
        nmi=nmi,
        nmi_heads=nmi_heads,
        nmi_std=float(measures.nmi.mean(1).std(correction=0)),
        distance_px=distance,
        distance_heads=distance_heads,
        entropy=entropy,
        entropy_heads=entropy_heads,
        pattern=borders.pattern(nmi),
        fourier=tuple(found.fourier.tolist()),
    )


def describe(found: Analysis) -> str:
    """Return the figures as a table for the terminal, and the choice in words."""
    head = f"{'layer':>5} {'NMI':>7} {'+-images':>9} {'distance px':>12} {'entropy':>8}  pattern"
    rows = [
        f"{one.layer:>5} {one.nmi:>7.4f} {one.nmi_std:>9.4f} {one.distance_px:>12.1f} {one.entropy:>8.3f}"
        f"  {one.pattern}{', chosen' if one.layer == found.choice.layer else ''}"
        for one in found.layers
    ]
    return "\n".join([head, *rows, tell(found)])


def tell(found: Analysis) -> str:
    """Return the choice and how sure it is, in words."""
    choice = found.choice
    count = f"{len(found.paths)} image{'s' if len(found.paths) > 1 else ''}"
    parts = [f"Layer {choice.layer} is nearest to NMI {choice.target:g}, with {choice.nmi:.4f} on {count}"]
    if choice.margin is not None:
        parts.append(f"layer {choice.runner_up} is farther by {choice.margin:.4f}")
    if choice.agreement is not None:
        parts.append(f"{100 * choice.agreement:.0f} % of resamples of the images choose the same layer")
    text = "; ".join(parts) + "."
    if found.layers[choice.layer - 1].pattern != "hybrid":
        text += (
            f" It is {found.layers[choice.layer - 1].pattern}, not hybrid: distilling it is not what the paper does."
        )
    if found.refused:
        text += f" {len(found.refused)} more could not be used."
    return text
