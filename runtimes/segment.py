"""One frame's way: counts to the model's picture, logits to the class map and what it says in degC.

The runtime's call lies between the two halves, so that a stream can run several of them at once. Preparing keeps the
tone from frame to frame and must see frames in order; all the rest depends on its arguments alone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.bundle import Manifest
from edgeunip.errors import InferenceError
from edgeunip.frame import Frame, Result, State
from edgeunip.protocols import Runtime
from edgeunip.runtimes.analyse import measure
from edgeunip.runtimes.scene import Scene
from edgeunip.thermal import Tone, fit


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

    def __init__(self, manifest: Manifest, *, rate_hz: float | None = None, scene: Scene | None = None) -> None:
        """Start with no tone.

        Args:
            manifest: the bundle's.
            rate_hz: frames a second where the capture times are not the scene's (a file read as fast as it goes);
                infinitely slow, 0, for pictures that do not follow one another. None: the frames' own times hold.
            scene: areas and regions to measure; None: regions of the usual size, no areas.
        """
        self.manifest = manifest
        self._rate_hz, self._scene = rate_hz, scene
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
        if self._measured is not None and not _alike(frame, self._measured):
            self._tone = self._measured = None  # reopened, the camera may give another format
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
        return self.compose(prepared, class_map(logits, prepared.frame.counts.shape), dropped=dropped)

    def compose(self, prepared: Prepared, labels: NDArray[np.uint8], *, dropped: int = 0, held: bool = False) -> Result:
        """Return the result of a class map (H, W), uint8, of this frame or ``held`` from an earlier one."""
        found = measure(prepared.frame, labels, self.manifest.classes, self._scene)
        return Result(
            prepared.frame,
            prepared.picture,
            labels,
            found.classes,
            time.monotonic_ns(),
            dropped,
            held=held,
            regions=found.regions,
            areas=found.areas,
        )

    def _elapsed_s(self, frame: Frame) -> float:
        """Seconds of the scene since the tone was measured."""
        if self._measured is None:
            return math.inf
        if self._rate_hz is None:
            return (frame.t_ns - self._measured.t_ns) / 1e9
        return (frame.seq - self._measured.seq) / self._rate_hz if self._rate_hz else math.inf


def _alike(one: Frame, other: Frame) -> bool:
    return one.counts.shape == other.counts.shape and one.counts.dtype == other.counts.dtype


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
