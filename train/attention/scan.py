"""One pass of images through an encoder, layer after layer, with the measures of each layer's attention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgeunip.errors import DataError
from edgeunip.train.attention import choice
from edgeunip.train.attention.choice import TARGET, Choice
from edgeunip.train.attention.measures import Even, Measures, even, fourier_profile, measure
from edgeunip.train.encoder import Encoder, blocks, embed, patch_size, query_key


@dataclass(frozen=True)
class LayerScan:
    """A layer over all images, on the CPU: measures [images, H], and the mean Fourier profile of the output."""

    measures: Measures
    fourier: Tensor


@dataclass(frozen=True)
class Scan:
    """All layers over all images, first to last, and what even attention would measure on them."""

    layers: tuple[LayerScan, ...]
    even: Even

    def choose(self, target: float) -> Choice:
        """Choose the layer whose NMI is nearest to the target, with its agreement over the images."""
        by_image = torch.stack([layer.measures.nmi.mean(1) for layer in self.layers], dim=1)
        chosen = choice.choose(by_image.mean(0).tolist(), target)
        return replace(chosen, agreement=choice.agreement(by_image.numpy(), chosen))


def choose_layer(encoder: Encoder, batches: Iterable[Tensor], *, target: float = TARGET) -> Choice:
    """Choose the layer that NMI-HAD distils, on normalised images [B, channels, H, W].

    Raises:
        DataError: there is no image, or the model's attention is not finite.
    """
    found = scan(encoder, batches)
    if found is None:
        raise DataError("There is no image to choose a layer by", where=encoder.origin.name)
    return found.choose(target)


def scan(encoder: Encoder, batches: Iterable[Tensor], at: Sequence[float] = ()) -> Scan | None:
    """Measure all layers on normalised images [B, channels, H, W] of any sizes; None where there is no image.

    Args:
        encoder: the model.
        batches: the images, whole patches high and wide.
        at: frequencies of the Fourier profiles, cycles a patch.
    """
    found, evens = [], []
    for images in batches:
        found.append([_alone(one, len(images), features, at) for one, features in walk(encoder, images)])
        evens.append((len(images), even(_grid(encoder, images), patch_size(encoder.vit))))
    if not found:
        return None
    count = sum(images for images, _ in evens)
    distance = sum(images * one.distance_px for images, one in evens) / count
    entropy = sum(images * one.entropy for images, one in evens) / count
    return Scan(tuple(_joined(parts) for parts in zip(*found, strict=True)), Even(distance, entropy))


@torch.no_grad()
def walk(encoder: Encoder, images: Tensor) -> Iterator[tuple[Measures, Tensor]]:
    """Yield by layer the measures of its attention and its output as a map [B, rows, columns, dim].

    One layer's attention is in memory at a time, and of it no more than ``measure`` holds.
    """
    grid = _grid(encoder, images)
    tokens = embed(encoder.vit, images.to(next(encoder.vit.parameters()).device))
    prefix = tokens.shape[1] - grid[0] * grid[1]
    for block in blocks(encoder.vit):
        found = measure(*query_key(block, tokens), grid, patch=patch_size(encoder.vit))
        tokens = block(tokens)
        yield found, tokens[:, prefix:].reshape(len(images), *grid, -1)


def _grid(encoder: Encoder, images: Tensor) -> tuple[int, int]:
    patch = patch_size(encoder.vit)
    return images.shape[-2] // patch, images.shape[-1] // patch


def _alone(found: Measures, images: int, features: Tensor, at: Sequence[float]) -> LayerScan:
    """One batch of a layer; its profile is the sum over the images until all are there."""
    on_cpu = Measures(found.nmi.cpu(), found.distance.cpu(), found.entropy.cpu())
    return LayerScan(on_cpu, images * fourier_profile(features, at).cpu() if at else torch.zeros(0))


def _joined(parts: Sequence[LayerScan]) -> LayerScan:
    nmi, distance, entropy = (
        torch.cat([getattr(part.measures, name) for part in parts]) for name in ("nmi", "distance", "entropy")
    )
    return LayerScan(Measures(nmi, distance, entropy), torch.stack([part.fourier for part in parts]).sum(0) / len(nmi))
