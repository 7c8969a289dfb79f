"""People and bicycles: bodies of thick lines, walking, standing or riding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeunip.scenes.climate import Climate
from edgeunip.scenes.view import NEAR_M, Points, Polygon, Pose, View, capsules

Joint = tuple[float, float, float]
"""(forward, up, left), m."""
Limb = tuple[Joint, Joint, float, float, float]
"""From, to, radius at both ends (m), degC."""

_HIP, _SHOULDER, _THIGH, _SHIN, _ARM, _FOREARM = 0.92, 1.42, 0.44, 0.43, 0.29, 0.26
_WHEEL_M, _AXLE_M = 0.34, 0.52
_STRIDE_M = 1.45
_SADDLE, _HEAD_TUBE, _CRANK = (-0.17, 0.95, 0.0), (0.40, 0.85, 0.0), (-0.08, 0.29, 0.0)


@dataclass(frozen=True)
class Outfit:
    """A person's looks: temperatures in degC, sizes as factors of an average person's."""

    height: float
    girth: float
    face: float
    hair: float
    hands: float
    coat: float
    trousers: float
    shoes: float
    pack: float | None


@dataclass(frozen=True)
class Bicycle:
    """A bicycle's temperatures, degC, and the radius of its tubes, m."""

    frame: float
    tyre: float
    saddle: float
    tube: float


def draw_outfit(rng: np.random.Generator, climate: Climate) -> Outfit:
    """Draw a person dressed for the weather."""
    air, skin = climate.air, 33.5 - max(0.0, 12 - climate.air) * rng.uniform(0.1, 0.25)
    leak = rng.uniform(0.3, 0.62) if air > 8 else rng.uniform(0.2, 0.48)
    sun = climate.sun * rng.uniform(0, 9)
    coat = air + leak * (32 - air) + sun
    bare = air > 18 and rng.random() < 0.4
    return Outfit(
        height=float(rng.uniform(0.62, 0.8) if rng.random() < 0.1 else rng.uniform(0.9, 1.1)),
        girth=float(rng.uniform(0.88, 1.3)),
        face=float(skin + sun * 0.2),
        hair=float(air + rng.uniform(0.35, 0.7) * (skin - air) + sun),
        hands=float(skin - rng.uniform(0.5, 5)),
        coat=float(coat),
        trousers=float(skin - 1.5 if bare else air + leak * rng.uniform(0.75, 1.05) * (31 - air) + sun * 0.7),
        shoes=float(air + rng.uniform(0.1, 0.3) * (30 - air) + sun * 0.5),
        pack=float(air + 0.15 * (30 - air) + sun) if rng.random() < 0.25 else None,
    )


def draw_bicycle(rng: np.random.Generator, climate: Climate) -> Bicycle:
    """Draw a bicycle: its bare metal mirrors the cold sky, the sun heats its tyres."""
    mirror = rng.uniform(0.15, 0.45)
    frame = climate.reflecting(climate.air + climate.sun * rng.uniform(2, 20), mirror)
    tyre = climate.air + climate.sun * rng.uniform(4, 20) + rng.uniform(-1.5, 7)
    return Bicycle(float(frame), float(tyre), float(climate.air + rng.uniform(0, 8)), float(rng.uniform(0.022, 0.032)))


def walking(outfit: Outfit, covered_m: float, pace: float) -> list[Limb]:
    """Return the limbs of a walker who has covered a distance; ``pace`` 0 stands, 1 strides."""
    phase = 2 * math.pi * covered_m / (_STRIDE_M * outfit.height)
    limbs: list[Limb] = []
    sway = 0.02 * pace * math.sin(2 * phase)
    for side, turn in ((1.0, 0.0), (-1.0, math.pi)):
        swing = 0.45 * pace * math.sin(phase + turn)
        bend = 0.12 + 0.75 * pace * max(0.0, math.cos(phase + turn))
        hip = (0.0, _HIP + sway, side * 0.09)
        knee = _hang(hip, _THIGH, swing + 0.3 * bend * pace)
        ankle = _hang(knee, _SHIN, swing - 0.7 * bend * pace)
        limbs += _leg(outfit, hip, knee, ankle)
        shoulder = (0.0, _SHOULDER + sway, side * 0.19 * outfit.girth)
        elbow = _hang((0.0, _SHOULDER + sway, side * 0.24 * outfit.girth), _ARM, -0.7 * swing)
        limbs += _sleeve(outfit, shoulder, elbow, _hang(elbow, _FOREARM, 0.25 - 0.9 * swing))
    return [*limbs, *_trunk(outfit, (0.0, _HIP + sway), (0.0, _SHOULDER + sway))]


def riding(outfit: Outfit, covered_m: float) -> list[Limb]:
    """Return the limbs of a cyclist who has covered a distance."""
    phase = covered_m / 0.9
    limbs: list[Limb] = []
    hips, shoulders = (_SADDLE[0], _SADDLE[1] + 0.06), (0.14, 1.47)
    for side, turn in ((1.0, 0.0), (-1.0, math.pi)):
        hip = (hips[0], hips[1], side * 0.09)
        foot = (_CRANK[0] + 0.17 * math.sin(phase + turn), 0.34 + 0.17 * math.cos(phase + turn), side * 0.12)
        limbs += _leg(outfit, hip, _between(hip, foot, _THIGH, _SHIN, 1.0), foot)
        shoulder, hand = (shoulders[0], shoulders[1], side * 0.19), (0.42, 1.05, side * 0.26)
        limbs += _sleeve(outfit, shoulder, _between(shoulder, hand, _ARM, _FOREARM, -1.0), hand)
    return [*limbs, *_trunk(outfit, hips, shoulders)]


def bicycle(bike: Bicycle) -> list[Limb]:
    """Return the tubes and wheels of a bicycle."""
    limbs: list[Limb] = []
    for axle in (-_AXLE_M, _AXLE_M):
        rim = [_on_wheel(axle, turn) for turn in np.linspace(0, 2 * math.pi, 17)]
        limbs += [(a, b, 0.028, 0.028, bike.tyre) for a, b in itertools.pairwise(rim)]
        limbs.append(((axle, _WHEEL_M, 0.03), (axle, _WHEEL_M, -0.03), 0.04, 0.04, bike.frame))
    rear, front = (-_AXLE_M, _WHEEL_M, 0.0), (_AXLE_M, _WHEEL_M, 0.0)
    tubes = [(rear, _CRANK), (rear, _SADDLE), (_CRANK, _SADDLE), (_CRANK, _HEAD_TUBE), (_SADDLE, _HEAD_TUBE)]
    tubes += [(_HEAD_TUBE, front), (_HEAD_TUBE, (0.36, 1.04, 0.0)), ((0.36, 1.04, 0.27), (0.36, 1.04, -0.27))]
    limbs += [(a, b, bike.tube, bike.tube, bike.frame) for a, b in tubes]
    saddle = ((_SADDLE[0] - 0.12, 0.97, 0.0), (_SADDLE[0] + 0.12, 0.97, 0.0))
    limbs.append((*saddle, 0.06, 0.035, bike.saddle))
    limbs.append((_CRANK, (_CRANK[0], 0.29, 0.02), 0.09, 0.09, bike.frame))
    return limbs


def outlines(limbs: Sequence[Limb], scale: float, pose: Pose, view: View, climate: Climate) -> list[Polygon]:
    """Return the polygons of a body in the picture, far limbs first; none when it is beside or behind the camera."""
    joints = np.array([(*a, *b) for a, b, *_ in limbs]).reshape(-1, 3) * scale
    ends = pose.world(joints).reshape(-1, 2, 3)
    if ends[..., 2].min() < NEAR_M:
        return []
    radii = np.array([limb[2:4] for limb in limbs]) * scale
    order = np.argsort(-(ends[..., 2].mean(axis=1) - radii.mean(axis=1)), kind="stable")
    shapes: Points = capsules(view, ends, radii)
    return [(shapes[i], climate.seen(limbs[i][4], pose.z)) for i in order]


def _trunk(outfit: Outfit, hips: tuple[float, float], shoulders: tuple[float, float]) -> list[Limb]:
    """Torso, neck, head and what is on the back, from the (forward, up) of hips and shoulders."""
    wide, coat = outfit.girth, outfit.coat
    lean = math.atan2(shoulders[0] - hips[0], shoulders[1] - hips[1])
    ahead, up = shoulders[0] + 0.12 * math.sin(lean), shoulders[1]
    limbs: list[Limb] = []
    for side in (1.0, -1.0):
        hip, shoulder = (*hips, side * 0.08 * wide), (*shoulders, side * 0.12 * wide)
        limbs.append((hip, shoulder, 0.11 * wide, 0.095 * wide, coat))
    limbs.append(((*hips, 0.0), (*shoulders, 0.0), 0.11 * wide, 0.12 * wide, coat + 0.6))
    limbs.append(((*shoulders, 0.0), (ahead + 0.02, up + 0.14, 0.0), 0.06, 0.055, outfit.face))
    limbs.append(((ahead + 0.03, up + 0.17, 0.0), (ahead + 0.02, up + 0.25, 0.0), 0.078, 0.09, outfit.face))
    limbs.append(((ahead - 0.03, up + 0.22, 0.0), (ahead, up + 0.29, 0.0), 0.085, 0.085, outfit.hair))
    if outfit.pack is not None:
        low, high = (hips[0] - 0.17, hips[1] + 0.08, 0.0), (shoulders[0] - 0.17, shoulders[1] - 0.06, 0.0)
        limbs.append((low, high, 0.15, 0.13, outfit.pack))
    return limbs


def _leg(outfit: Outfit, hip: Joint, knee: Joint, ankle: Joint) -> list[Limb]:
    wide, warm = outfit.girth, outfit.trousers
    toe = (ankle[0] + 0.15, ankle[1] - 0.02, ankle[2])
    thigh = (hip, knee, 0.095 * wide, 0.065 * wide, warm)
    return [thigh, (knee, ankle, 0.065 * wide, 0.045 * wide, warm - 0.8), (ankle, toe, 0.05, 0.04, outfit.shoes)]


def _sleeve(outfit: Outfit, shoulder: Joint, elbow: Joint, wrist: Joint) -> list[Limb]:
    wide, warm = outfit.girth, outfit.coat - 0.8
    fingers = (wrist[0] + 0.04, wrist[1], wrist[2])
    upper = (shoulder, elbow, 0.07 * wide, 0.05 * wide, warm)
    return [upper, (elbow, wrist, 0.05 * wide, 0.038, warm), (wrist, fingers, 0.045, 0.04, outfit.hands)]


def _hang(joint: Joint, length: float, angle: float) -> Joint:
    """Return the lower end of a bone that hangs at an angle, forward positive, radians."""
    return joint[0] + length * math.sin(angle), joint[1] - length * math.cos(angle), joint[2]


def _between(top: Joint, bottom: Joint, upper: float, lower: float, bend: float) -> Joint:
    """Return the knee (``bend`` 1) or elbow (-1) between two joints of a limb with bones of two lengths."""
    forward, down = bottom[0] - top[0], top[1] - bottom[1]
    reach = min(math.hypot(forward, down), upper + lower)
    corner = math.acos(min(1.0, max(-1.0, (upper**2 + reach**2 - lower**2) / (2 * upper * max(reach, 1e-6)))))
    forward, up, _ = _hang(top, upper, math.atan2(forward, down) + bend * corner)
    return forward, up, (top[2] + bottom[2]) / 2


def _on_wheel(axle: float, turn: float) -> Joint:
    return axle + _WHEEL_M * math.cos(turn), _WHEEL_M + _WHEEL_M * math.sin(turn), 0.0
