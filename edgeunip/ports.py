"""The sinks and recorders of a stream of several cameras: some are shared, some are one camera's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from edgeunip import redaction
from edgeunip.classes import Classes
from edgeunip.defaults import say
from edgeunip.errors import EdgeunipError, UsageError
from edgeunip.frame import Frame, Result
from edgeunip.health import Board
from edgeunip.protocols import Camera, Taker
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.record import open_recorder
from edgeunip.runtimes.sharing import Shared
from edgeunip.runtimes.sinks import Setting, open_sink, sink_spec, slug

FOLDER_RATE_HZ = 5.0  # at which pictures that have no rate of their own follow one another in a video
_PLACE = "{camera}"

logger = logging.getLogger(__name__)


class Ports:
    """The sinks of every camera: those that name ``{camera}`` one a camera, the others shared.

    Attributes:
        sinks: of results, by the camera's name.
        recorders: of frames, by the camera's name.
    """

    def __init__(self, cameras: Sequence[Camera], classes: Classes, board: Board, alarms: tuple[str, ...]) -> None:
        self._cameras, self._classes, self._board, self._alarms = cameras, classes, board, alarms
        self._opened: list[Taker[Any]] = []
        self.sinks: dict[str, list[Port[Result]]] = {camera.name: [] for camera in cameras}
        self.recorders: dict[str, list[Port[Frame]]] = {camera.name: [] for camera in cameras}

    def open(self, texts: Sequence[str], *, profile: str) -> None:
        """Open every sink. Of a live stream, one that cannot be opened yet is tried again later, unless it is alone.

        Args:
            texts: as the user wrote them.
            profile: of the cameras, for their recordings; empty where none was named.

        Raises:
            EdgeunipError: a sink is written wrongly or twice, or none can be opened.
        """
        for text in texts:
            if texts.count(text) > 1:
                raise UsageError("A sink is named twice", where=text)
        failures: list[EdgeunipError] = []
        for text in texts:
            try:
                self._open(text, profile)
            except UsageError:
                raise
            except EdgeunipError as error:
                if len(failures) + 1 == len(texts) or not all(camera.live for camera in self._cameras):
                    raise
                failures.append(error)
                logger.error("%s", error)

    def close(self) -> None:
        """Close what was opened, where no loop has taken it over."""
        for taker in self._opened:
            taker.close()

    def _open(self, text: str, profile: str) -> None:
        record = sink_spec(text).kind == "record"
        where: dict[str, list[Any]] = self.recorders if record else self.sinks
        if _PLACE in text or len(self._cameras) == 1 or record:
            names = self._names(text, record=record)
            openers = [
                self._opener(own, self._setting(camera), profile)
                for camera, own in zip(self._cameras, names, strict=True)
            ]
        else:
            names = [text] * len(self._cameras)
            shared = Shared(redaction.clean(text), partial(open_sink, text, self._setting(*self._cameras)))
            openers = [shared.lease] * len(self._cameras)
        failures: list[EdgeunipError] = []
        # Every camera gets its port, opened or not: one that fails now is opened later by the camera's own loop.
        for camera, own, opener in zip(self._cameras, names, openers, strict=True):
            try:
                self._add(where[camera.name], own, opener)
            except UsageError:
                raise
            except EdgeunipError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    @staticmethod
    def _opener(text: str, setting: Setting, profile: str) -> Callable[[], Taker[Any]]:
        spec = sink_spec(text)
        if spec.kind == "record":
            return partial(open_recorder, spec, setting, profile=profile)
        return partial(open_sink, text, setting)

    def _names(self, text: str, *, record: bool) -> list[str]:
        """Return the sink of each camera."""
        names = [text.replace(_PLACE, slug(camera.name)) for camera in self._cameras]
        if len(set(names)) < len(names):
            what = "Each camera needs its own recording" if record else "Two cameras have the same short name"
            raise UsageError(what, where=text, remedy="Write {camera} in it." if _PLACE not in text else None)
        return names

    def _add(self, ports: list[Any], text: str, opener: Callable[[], Taker[Any]]) -> None:
        name = redaction.clean(text)
        ports.append(Port(name, opener))
        first = opener()
        if first.name not in (taker.name for taker in self._opened):
            say(f"Writing to {first.name}")
        self._opened.append(first)
        ports[-1] = Port(first.name, opener, first)

    def _setting(self, *cameras: Camera) -> Setting:
        rate = None if cameras[0].live else cameras[0].rate_hz or FOLDER_RATE_HZ
        return Setting(self._classes, tuple(camera.name for camera in cameras), rate, self._board, self._alarms)
