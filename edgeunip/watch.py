"""A look once a second at what a camera shows: is it still what the model was made for, and is it a picture at all?"""

from __future__ import annotations

import logging

from edgeunip.bundle import Manifest
from edgeunip.devices import sanity
from edgeunip.frame import Frame, Result, State
from edgeunip.health import Board
from edgeunip.runtimes.shift import Shift

_PERIOD_NS = 1_000_000_000

logger = logging.getLogger(__name__)


class Watch:
    """Sees one camera's results, in order, and keeps its warnings on the board."""

    def __init__(self, camera: str, manifest: Manifest, board: Board) -> None:
        """Begin.

        Args:
            camera: its name on the board.
            manifest: of the bundle, for the calibration's histogram.
            board: where the warnings go.
        """
        self._camera, self._board = camera, board
        histogram = (manifest.calibration or {}).get("histogram")
        self._shift = None if histogram is None else Shift(histogram)
        self._before: Frame | None = None
        self._warnings: dict[str, str] = {}

    def __call__(self, result: Result) -> None:
        """Look at a result, unless the last look was less than a second ago."""
        frame, before = result.frame, self._before
        if frame.state is not State.LIVE or (before is not None and 0 <= frame.t_ns - before.t_ns < _PERIOD_NS):
            return
        self._before = frame
        found = sanity.warnings(frame, before)
        if self._shift is not None and (shifted := self._shift.see(result.picture, frame.t_ns)) is not None:
            found["histogram"] = shifted
        for code, text in found.items():
            if code not in self._warnings:
                logger.warning("%s: %s", self._camera, text)
        if found.keys() != self._warnings.keys():
            self._board.put(self._camera, warnings=found)
        self._warnings = found
