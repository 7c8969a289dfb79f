"""A scene: weather, a place, and people, bicycles and vehicles that move through it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import UsageError
from edgeunip.scenes.cast import draw_actors
from edgeunip.scenes.climate import draw_climate
from edgeunip.scenes.places import draw_camera, draw_setting
from edgeunip.scenes.view import Canvas, Paint, Pose, View, paint


class Scene:
    """A street or yard in the thermal infrared; the same seed gives the same scene.

    Labels are the same on every machine; temperatures may differ there in their last bits, as processors round sums
    of floats differently.

    Args:
        seed: 0 or more.
        night: True for night, False for day, None to let the seed choose.

    Raises:
        UsageError: the seed is negative.
    """

    def __init__(self, seed: int, *, night: bool | None = None) -> None:
        if seed < 0:
            raise UsageError("The seed must not be negative", where=seed)
        rng = np.random.Generator(np.random.PCG64(seed))
        self.climate = draw_climate(rng, night)
        self.night = self.climate.night
        self._camera = draw_camera(rng)
        self._setting = draw_setting(rng, self.climate)
        self._actors, shades = draw_actors(rng, self._setting, self._camera)
        self._setting = replace(self._setting, shades=[*self._setting.shades, *shades])
        self._stage: Canvas | None = None

    def render(self, t_s: float, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Return what is there at a time, before any camera's optics and noise.

        Args:
            t_s: seconds since the start of the scene.
            height, width: of the picture, pixels. The height of the field of view is the scene's own.

        Returns:
            Temperatures (H, W), float32, degC, and labels (H, W), uint8, indices of
            :data:`~edgeunip.scenes.CLASSES`. Every pixel has exactly one class: the one whose temperature it shows.
        """
        view = replace(self._camera, height=height, width=width)
        stage = self.stage(height, width)
        canvas = Canvas(stage.celsius.copy(), stage.labels.copy(), stage.distance)
        cast = [(actor, *actor.path.at(t_s)) for actor in self._actors]
        for actor, pose, covered in sorted(cast, key=lambda item: -(item[1].z + item[0].behind_m)):
            if _in_sight(pose, view):
                blur = actor.softness_m * view.focal_px / max(pose.z, 1.0)
                paint(canvas, actor.shape(pose, covered, view), Paint(actor.label, pose.z, blur, actor.grain))
        return canvas.celsius, canvas.labels

    def stage(self, height: int, width: int) -> Canvas:
        """Return the scene without its actors; kept until another size is asked for, so not to be written into."""
        if self._stage is None or self._stage.labels.shape != (height, width):
            self._stage = self._setting.paint(replace(self._camera, height=height, width=width))
        return self._stage


def _in_sight(pose: Pose, view: View) -> bool:
    margin = 7.0
    return pose.z > -margin and abs(pose.x) < margin + (pose.z + margin) * view.width / (2 * view.focal_px)
