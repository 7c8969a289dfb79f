"""The classes of the synthetic scenes."""

from __future__ import annotations

from edgeunip.classes import Classes

CLASSES = Classes(
    ("ground", "sky", "building", "vehicle", "bicycle", "person"),
    ((110, 90, 70), (70, 150, 230), (150, 150, 160), (240, 170, 0), (0, 190, 110), (230, 40, 60)),
)
GROUND, SKY, BUILDING, VEHICLE, BICYCLE, PERSON = range(6)
