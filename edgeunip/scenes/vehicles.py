"""Vehicles: cold glass that mirrors the sky, bonnets warm from the engine, hot exhausts, tyres warm from rolling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edgeunip.scenes.climate import Climate
from edgeunip.scenes.solids import Panel, Solid, extrude
from edgeunip.scenes.view import Points

Corner = tuple[float, float]
Decal = tuple[Points, float]


@dataclass(frozen=True)
class Model:
    """The shape of a kind of vehicle, in metres.

    Attributes:
        profile: (forward, up) of the corners, clockwise from the rear bumper's foot, as seen from the right.
        strips: what lies between a corner and the next: back, boot, glass, roof, bonnet, front or floor.
        half_width: half of the width.
        windows: side windows, each by its (forward, up) corners.
        axles: forward position of the axles.
        wheel: radius of the wheels.
    """

    profile: tuple[Corner, ...]
    strips: tuple[str, ...]
    half_width: float
    windows: tuple[tuple[Corner, ...], ...]
    axles: tuple[float, ...]
    wheel: float


MODELS = {
    "sedan": Model(
        (
            (-2.15, 0.32),
            (-2.2, 0.85),
            (-1.7, 0.98),
            (-1.05, 1.42),
            (0.35, 1.45),
            (1.05, 0.98),
            (2.1, 0.78),
            (2.2, 0.32),
        ),
        ("back", "boot", "glass", "roof", "glass", "bonnet", "front", "floor"),
        0.88,
        (
            ((-1.45, 0.98), (-1.0, 1.34), (-0.3, 1.36), (-0.3, 0.98)),
            ((-0.2, 0.98), (-0.2, 1.36), (0.3, 1.36), (0.85, 0.98)),
        ),
        (-1.35, 1.35),
        0.32,
    ),
    "hatchback": Model(
        ((-1.85, 0.32), (-1.9, 0.95), (-1.55, 1.46), (0.4, 1.5), (1.15, 1.0), (1.85, 0.8), (1.95, 0.32)),
        ("back", "glass", "roof", "glass", "bonnet", "front", "floor"),
        0.86,
        (
            ((-1.45, 1.0), (-1.3, 1.38), (-0.25, 1.4), (-0.25, 1.0)),
            ((-0.15, 1.0), (-0.15, 1.4), (0.35, 1.4), (0.95, 1.0)),
        ),
        (-1.2, 1.25),
        0.31,
    ),
    "van": Model(
        ((-2.5, 0.35), (-2.5, 1.95), (1.3, 2.0), (1.95, 1.2), (2.5, 1.0), (2.6, 0.35)),
        ("back", "roof", "glass", "bonnet", "front", "floor"),
        0.97,
        (((0.5, 1.2), (0.5, 1.8), (1.25, 1.8), (1.7, 1.2)),),
        (-1.6, 1.7),
        0.35,
    ),
    "lorry": Model(
        ((-3.6, 0.55), (-3.6, 3.0), (2.0, 3.0), (2.05, 2.6), (3.3, 2.6), (3.5, 1.6), (3.55, 0.5)),
        ("back", "roof", "roof", "roof", "glass", "front", "floor"),
        1.2,
        (((2.3, 1.6), (2.3, 2.35), (3.1, 2.35), (3.2, 1.6)),),
        (-2.4, -1.4, 2.5),
        0.48,
    ),
}


@dataclass(frozen=True)
class Heat:
    """A vehicle's temperatures in degC, and its engine's heat from 0 (cold) to 1 (at work)."""

    engine: float
    strips: dict[str, float]
    side: float
    tyre: float
    hub: float


def draw_vehicle(rng: np.random.Generator, climate: Climate, *, model: str, moving: bool) -> Solid:
    """Draw a vehicle of a model; ``moving`` ones have a hot engine, parked ones a cold or a cooling one."""
    shape, heat = MODELS[model], _draw_heat(rng, climate, moving)
    strips = [heat.strips[name] for name in shape.strips]
    panels = extrude(np.array(shape.profile), shape.half_width, strips, heat.side)
    names = [*shape.strips, "left", "right"]
    dressed = [_dressed(panel, name, shape, heat) for panel, name in zip(panels, names, strict=True)]
    return Solid([*dressed, *_treads(shape, heat), *_discs(shape, heat)])


def footprint(model: str) -> tuple[float, float]:
    """Return the half length and half width of a model, m."""
    shape = MODELS[model]
    return max(forward for forward, _ in shape.profile), shape.half_width


def _draw_heat(rng: np.random.Generator, climate: Climate, moving: bool) -> Heat:
    engine = float(rng.uniform(0.6, 1.0) if moving else rng.uniform(0.2, 0.9) * (rng.random() < 0.35))
    paint = climate.reflecting(climate.air + climate.sun * rng.uniform(4, 26), rng.uniform(0.02, 0.14))
    shade = paint - climate.sun * rng.uniform(1, 7)
    strips = {
        "back": shade,
        "boot": climate.reflecting(paint, 0.08),
        "glass": climate.reflecting(climate.air + climate.sun * 6 + 2 * engine, rng.uniform(0.2, 0.45)),
        "roof": climate.reflecting(paint, rng.uniform(0.08, 0.25)),
        "bonnet": paint + engine * rng.uniform(6, 22),
        "front": shade + engine * rng.uniform(8, 24),
        "floor": climate.air + 8 * engine,
    }
    tyre = climate.air + climate.sun * 6 + rng.uniform(-1, 3) + (rng.uniform(6, 22) if moving else 0.0)
    hub = tyre + (rng.uniform(-2, 12) if moving else rng.uniform(-3, 1))
    side = shade + engine * rng.uniform(0, 2)
    return Heat(
        engine, {name: float(celsius) for name, celsius in strips.items()}, float(side), float(tyre), float(hub)
    )


def _dressed(panel: Panel, name: str, shape: Model, heat: Heat) -> Panel:
    """Add what is painted on a panel."""
    if name in ("left", "right"):
        return replace(panel, decals=tuple(_side_decals(shape, heat, 1.0 if name == "left" else -1.0)))
    if name == "glass":
        return replace(panel, celsius=heat.side, decals=((_inset(panel.outline, 0.88), panel.celsius),))
    if name == "front":
        return replace(panel, decals=tuple(_front_decals(panel, heat)))
    if name == "back":
        return replace(panel, decals=tuple(_back_decals(panel, heat)))
    return panel


def _side_decals(shape: Model, heat: Heat, side: float) -> Iterator[Decal]:
    """Yield the windows, and the wing that the engine warms."""
    lateral, axle = side * shape.half_width, max(shape.axles)
    for window in shape.windows:
        yield np.insert(np.array(window), 2, lateral, axis=1), heat.strips["glass"]
    wing = np.array([(axle - 0.5, 0.5), (axle - 0.5, 0.8), (axle + 0.5, 0.8), (axle + 0.5, 0.5)])
    yield np.insert(wing, 2, lateral, axis=1), heat.side + 7 * heat.engine


def _front_decals(panel: Panel, heat: Heat) -> Iterator[Decal]:
    """Yield the grille and the lamps."""
    yield _spot(panel.outline, 0.5, 0.45, 0.5, 0.3), panel.celsius + 8 * heat.engine
    for across in (0.13, 0.87):
        yield _spot(panel.outline, across, 0.62, 0.17, 0.18), panel.celsius - 2 + 6 * heat.engine


def _back_decals(panel: Panel, heat: Heat) -> Iterator[Decal]:
    """Yield the number plate and, when the engine has run, the exhaust."""
    yield _spot(panel.outline, 0.5, 0.3, 0.3, 0.14), panel.celsius - 1.0
    if heat.engine > 0.3:
        yield _spot(panel.outline, 0.22, 0.06, 0.09, 0.14), panel.celsius + 55 * heat.engine


def _discs(shape: Model, heat: Heat) -> Iterator[Panel]:
    """Yield the wheels as seen from the side."""
    turn = np.linspace(0, 2 * math.pi, 14, endpoint=False)
    circle = shape.wheel * np.stack((np.cos(turn), np.sin(turn)), axis=-1)
    for axle in shape.axles:
        for side in (1, -1):
            lateral = side * (shape.half_width + 0.01)
            rings = ((axle, shape.wheel) + circle * size for size in (1.0, 0.62))
            rim, disc = (np.insert(ring, 2, lateral, axis=1)[::side] for ring in rings)
            yield Panel(rim, heat.tyre, ((disc, heat.hub),), rank=2)


def _treads(shape: Model, heat: Heat) -> Iterator[Panel]:
    """Yield what shows of the wheels below the body from the front and from behind."""
    high, inside, outside = 1.6 * shape.wheel, shape.half_width - 0.22, shape.half_width
    for axle in shape.axles:
        for side in (1, -1):
            for face in (1, -1):
                ahead = axle + face * 0.8 * shape.wheel
                corners = [(0.0, inside), (0.0, outside), (high, outside), (high, inside)]
                outline = np.array([(ahead, up, side * lateral) for up, lateral in corners])
                yield Panel(outline[:: -side * face], heat.tyre, rank=-1)


def _spot(outline: Points, across: float, up: float, width: float, height: float) -> Points:
    """Return a rectangle on a strip's panel, in shares of the panel from its right foot."""
    left_low, left_high, right_high, right_low = outline
    if left_low[1] > left_high[1]:
        left_low, left_high, right_low, right_high = left_high, left_low, right_high, right_low

    def at(a: float, b: float) -> Points:
        low, high = right_low + a * (left_low - right_low), right_high + a * (left_high - right_high)
        return np.asarray(low + b * (high - low))

    a, b = across - width / 2, max(0.0, up - height / 2)
    return np.array([at(a, b), at(a + width, b), at(a + width, b + height), at(a, b + height)])


def _inset(outline: Points, share: float) -> Points:
    centre = outline.mean(axis=0)
    return np.asarray(centre + share * (outline - centre))
