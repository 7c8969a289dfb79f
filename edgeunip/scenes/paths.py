"""How things move over the ground: parked, along a line, or around a circle; smoothly, and for ever."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeunip.scenes.view import Pose


@dataclass(frozen=True)
class Path:
    """A motion without end.

    Attributes:
        x, z: middle of the line or of the circle, m.
        yaw: heading on the line, radians; on the circle, heading at the start.
        speed: m/s; 0 stands still.
        reach: half the length of the line; at its end the walk begins anew at its start, so both lie out of sight.
        radius: of the circle, m; 0 for a line.
        start: distance already covered at time 0, m.
    """

    x: float
    z: float
    yaw: float
    speed: float = 0.0
    reach: float = 1.0
    radius: float = 0.0
    start: float = 0.0

    def at(self, t_s: float) -> tuple[Pose, float]:
        """Return the pose at a time, and the distance covered since time 0, m."""
        covered = self.start + self.speed * t_s
        if self.radius:
            yaw = self.yaw + covered / self.radius
            return Pose(self.x + self.radius * math.sin(yaw), self.z - self.radius * math.cos(yaw), yaw), covered
        along = (covered + self.reach) % (2 * self.reach) - self.reach if self.speed else self.start
        return Pose(self.x + along * math.cos(self.yaw), self.z + along * math.sin(self.yaw), self.yaw), covered
