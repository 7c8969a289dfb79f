"""One frame's way: counts to the model's picture, logits to the class map and what it says in degC.

The runtime's call lies between the two halves, so that a stream can run several of them at once. Preparing keeps the
tone from frame to frame and must see frames in order; all the rest depends on its arguments alone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.bundle import Manifest
from edgeunip.classes import Classes
from edgeunip.errors import InferenceError
from edgeunip.frame import ClassStatistics, Frame, Result, State
from edgeunip.protocols import Runtime
from edgeunip.thermal import Tone, fit

_NO_CLASS = np.uint8(255)  # never a class: the ignore index is at least the number of classes


@dataclass(frozen=True)
class Prepared:
    """A frame on its way to the runtime.

    Attributes:
        frame: as the camera gave it.
        picture: its AGC picture at native size (H, W), uint8.
        model_picture: the same at the model's input size.
    """

    frame: Frame
    picture: NDArray[np.uint8]
    model_picture: NDArray[np.uint8]


class Segmenter:
    """Frames to results by one bundle's rules. One thread at a time may call :meth:`prepare`."""

    def __init__(self, manifest: Manifest, *, rate_hz: float | None = None) -> None:
        """Start with no tone.

        Args:
            manifest: the bundle's.
            rate_hz: frames a second where the capture times are not the scene's (a file read as fast as it goes);
                infinitely slow, 0, for pictures that do not follow one another. None: the frames' own times hold.
        """
        self.manifest = manifest
        self._rate_hz = rate_hz
        self._tone: Tone | None = None
        self._measured: Frame | None = None

    def __call__(self, frame: Frame, runtime: Runtime) -> Result:
        """Segment one frame, all in the caller's thread."""
        prepared = self.prepare(frame)
        return self.finish(prepared, runtime(prepared.model_picture))

    def prepare(self, frame: Frame) -> Prepared:
        """Return the frame's pictures.

        The tone follows the scene while the camera is live. It is kept as it is while the shutter is closed or the
        sensor settles after it: what the camera shows then is no scene.

        Raises:
            UsageError: the bundle's AGC needs temperatures and the frame has bare counts.
        """
        agc = self.manifest.agc
        tone = self._tone
        if tone is None or frame.state is State.LIVE:
            tone = agc.measure(frame.counts, self._tone, elapsed_s=self._elapsed_s(frame), radiometry=frame.radiometry)
        if frame.state is State.LIVE:
            self._tone, self._measured = tone, frame
        picture = agc.apply(frame.counts, tone)
        return Prepared(frame, picture, fit(picture, self.manifest.height, self.manifest.width))

    def finish(self, prepared: Prepared, logits: NDArray[np.float32], *, dropped: int = 0) -> Result:
        """Return the result of logits (classes, h, w). Any thread may call it.

        Raises:
            InferenceError: the logits are not finite.
        """
        frame = prepared.frame
        labels = class_map(logits, frame.counts.shape)
        found = statistics(frame, labels, self.manifest.classes)
        return Result(frame, prepared.picture, labels, found, time.monotonic_ns(), dropped)

    def _elapsed_s(self, frame: Frame) -> float:
        """Seconds of the scene since the tone was measured."""
        if self._measured is None:
            return math.inf
        if self._rate_hz is None:
            return (frame.t_ns - self._measured.t_ns) / 1e9
        return (frame.seq - self._measured.seq) / self._rate_hz if self._rate_hz else math.inf


def class_map(logits: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the class of every native pixel, uint8 ``shape`` (H, W), from logits (classes, h, w).

    The classes are decided at the logits' size and then enlarged, which costs a tenth of enlarging the logits.

    Raises:
        InferenceError: a logit is NaN or infinite.
    """
    quarter = decide(logits)
    height, width = shape
    enlarged = cv2.resize(quarter, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(enlarged, np.uint8)


def decide(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the class of the largest logit, the first of equals: (classes, h, w) float32 to (h, w) uint8.

    Raises:
        InferenceError: a logit is NaN or infinite.
    """
    if not math.isfinite(float(logits.sum())):
        raise InferenceError(
            "The model's output is not finite", remedy="Run edgeunip verify on the bundle, and export it again."
        )
    # A running maximum over whole planes is eight times as fast as argmax across them: every step is contiguous.
    best, index = logits[0], np.zeros(logits.shape[1:], np.uint8)
    for number in range(1, len(logits)):
        larger = logits[number] > best
        best = np.maximum(best, logits[number])
        np.maximum(index, larger.view(np.uint8) * np.uint8(number), out=index)
    return index


def statistics(frame: Frame, labels: NDArray[np.uint8], classes: Classes) -> dict[str, ClassStatistics]:
    """Return what a frame shows of each class, absent ones included, on raw counts at native resolution.

    Args:
        frame: counts (H, W); temperatures are told where it has a radiometry, over pixels that have a temperature.
        labels: class of every pixel, shape (H, W), uint8.
        classes: the classes, in order.
    """
    pixels = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()[: len(classes)].astype(int).tolist()
    heat = _heat(frame, labels, [number for number, area in enumerate(pixels) if area])
    return {
        name: ClassStatistics(pixels[number], pixels[number] / labels.size, **heat.get(number, {}))
        for number, name in enumerate(classes.names)
    }


def _heat(frame: Frame, labels: NDArray[np.uint8], present: list[int]) -> dict[int, dict[str, Any]]:
    """Return the temperatures of the classes that have any."""
    if frame.radiometry is None:
        return {}
    celsius = frame.radiometry.celsius(frame.counts)
    valid = np.isfinite(celsius)
    if not valid.all():
        celsius, labels = np.where(valid, celsius, np.float32(0)), np.where(valid, labels, _NO_CLASS)
    # Above the coldest, so that a masked L1 norm is a masked sum: ten times as fast as OpenCV's masked mean.
    coldest = cv2.minMaxLoc(celsius)[0]
    above = celsius - np.float32(coldest)
    found = {}
    for number in present:
        mask = cv2.inRange(labels, number, number)
        if count := cv2.countNonZero(mask):
            low, high, _, hotspot = cv2.minMaxLoc(celsius, mask)
            mean = min(max(low, coldest + cv2.norm(above, cv2.NORM_L1, mask) / count), high)
            found[number] = {"min_c": low, "mean_c": mean, "max_c": high, "hotspot": (hotspot[0], hotspot[1])}
    return found
