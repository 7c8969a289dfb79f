"""Procedural radiometric thermal scenes with exact masks, and the cameras that look at them.

The embedded default of the toolkit: the demo trains on these scenes, tests measure on them, and the synthetic camera
streams them. Everything follows from a seed; no data is downloaded.
"""

from edgeunip.scenes.dataset import synthesise
from edgeunip.scenes.labels import CLASSES
from edgeunip.scenes.scene import Scene
from edgeunip.sensors import SENSORS, Sensor, SensorModel

__all__ = ["CLASSES", "SENSORS", "Scene", "Sensor", "SensorModel", "synthesise"]
