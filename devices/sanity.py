"""What is wrong with a frame although it came: a look once a second, not at every frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeunip.frame import Frame, State
from edgeunip.thermal import Counts, Radiometry

# So many pixels an axis are enough for statistics.
_SAMPLE = 256
_FULL = (255, 1023, 4095, 16383, 65535)
_SATURATED = 0.002
# Neighbours of a thermal picture are alike. Exchanged bytes make them differ by this factor more than they need.
_ROUGH = 4.0
_SPANS = 8.0


def warnings(frame: Frame, before: Frame | None = None) -> dict[str, str]:
    """Return what the operator should look at, as one line for each code; empty where nothing is.

    =================  ==========================================================================================
    code               what
    =================  ==========================================================================================
    ``black``          every pixel is 0
    ``flat``           every pixel has the same value: the shutter is stuck, or the camera has a fault
    ``saturated``      many pixels stand at the highest value there is
    ``byte-order``     the two bytes of each count are exchanged
    ``range``          the scene is hotter or colder than the camera measures
    ``uncalibrated``   a camera that should tell degC, or did at the look before, gives bare counts
    ``jump``           all counts have moved far from one look to the next: another gain, another range
    =================  ==========================================================================================

    Args:
        frame: the frame; one whose shutter is closed tells nothing.
        before: the frame of the look before.
    """
    if frame.state not in (State.LIVE, State.SETTLING):
        return {}
    sample = _sample(frame.counts)
    low, high = int(sample.min()), int(sample.max())
    if low == high:
        return _blank(low)
    found = {}
    if (share := float((sample == high).mean())) > _SATURATED and high in _FULL:
        found["saturated"] = f"{100 * share:.1f} % of the pixels are saturated at {high} counts"
    if is_swapped(frame.counts):
        found["byte-order"] = "The two bytes of each count are exchanged; use a profile with swapped = true"
    lost = before is not None and before.radiometry is not None
    if (frame.range_c is not None or lost) and frame.radiometry is None:
        found["uncalibrated"] = f"No temperature: counts of {low}..{high} are not those of the camera's profile"
    if frame.range_c is not None and frame.radiometry is not None:
        found |= _out_of_range(frame.radiometry, low, high, frame.range_c)
    if before is not None and before.state is State.LIVE and _has_jumped(sample, _sample(before.counts)):
        found["jump"] = f"The counts jumped to {low}..{high}: the camera may have changed its gain or its range"
    return found


def is_swapped(counts: Counts) -> bool:
    """Tell whether the bytes of 16-bit counts (H, W) are exchanged: neighbours then differ without reason.

    Noise without any picture is not taken for exchanged bytes, nor are 8 bits shifted up.
    """
    if counts.dtype != np.uint16 or not (counts & 0xFF).any():
        return False
    stride = max(1, counts.shape[0] // _SAMPLE)
    rows: Any = counts[::stride]
    return _roughness(rows) > _ROUGH * max(_roughness(rows.byteswap()), 1e-9)


def _sample(counts: Counts) -> Counts:
    return counts[:: max(1, counts.shape[0] // _SAMPLE), :: max(1, counts.shape[1] // _SAMPLE)]


def _blank(value: int) -> dict[str, str]:
    if value:
        return {"flat": f"Every pixel is {value}: the shutter is stuck, or the camera has a fault"}
    return {"black": "Every pixel is 0: the camera sends empty frames"}


def _roughness(counts: Counts) -> float:
    """Mean difference of a pixel from its left neighbour, in counts."""
    return float(np.abs(np.diff(counts.astype(np.int32), axis=1)).mean())


def _out_of_range(radiometry: Radiometry, low: int, high: int, range_c: tuple[float, float]) -> dict[str, str]:
    coldest, hottest = radiometry.celsius(np.array([[low, high]], np.uint16))[0].tolist()
    if range_c[0] <= coldest and hottest < range_c[1]:
        return {}
    measured = f"it measures {range_c[0]:g} to {range_c[1]:g} degC"
    return {"range": f"The scene reads {coldest:.0f} to {hottest:.0f} degC, and of the camera is known that {measured}"}


def _has_jumped(now: Counts, before: Counts) -> bool:
    middle, spread = _middle(now)
    old, old_spread = _middle(before)
    return now.dtype == before.dtype and abs(middle - old) > _SPANS * max(spread, old_spread, 16.0)


def _middle(sample: Counts) -> tuple[float, float]:
    low, middle, high = np.percentile(sample, (5, 50, 95))
    return float(middle), float(high - low)
