"""A stream put together: cameras kept alive, one model, sinks, and what watches over them.

sources -> guarded cameras -> a loop each (they take turns at the model) -> sinks, shared or one a camera
                      \\-> board <- loops, warnings        board -> status line, page, metrics, watchdog
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgeunip import address, bundle
from edgeunip.defaults import say
from edgeunip.devices.guard import Guarded
from edgeunip.devices.open import open_camera, open_guarded
from edgeunip.errors import EdgeunipError, UsageError
from edgeunip.frame import State
from edgeunip.health import Board, CameraStatus, Health, Totals
from edgeunip.ports import Ports
from edgeunip.protocols import Camera
from edgeunip.runtimes import memory
from edgeunip.runtimes.gate import Gate
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.scene import Scene, read_scene
from edgeunip.runtimes.sinks import sink_spec
from edgeunip.runtimes.stream import stream
from edgeunip.runtimes.supervisor import Watchdog
from edgeunip.runtimes.turns import Turns
from edgeunip.stopping import stopping
from edgeunip.watch import Watch

_POLL_S = 0.05
_SHOW_S = 1.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What a user may say of a stream.

    Attributes:
        frames: end after as many results of each camera.
        profile: of the cameras; None finds it.
        scene: TOML file of areas and rules.
        hold_s: hold the class map for so long while nothing moves, seconds; None infers every frame.
        once: end when a live camera is lost, or is not there, instead of waiting for it.
        max_memory_mib: end when the process holds more.

    Raises:
        UsageError: a number is not above 0.
    """

    frames: int | None = None
    profile: str | None = None
    scene: Path | None = None
    hold_s: float | None = None
    once: bool = False
    max_memory_mib: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("--hold", self.hold_s), ("--max-memory", self.max_memory_mib)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} takes a number above 0", where=value)
        if self.frames is not None and self.frames < 1:
            raise UsageError("--frames takes a number above 0", where=self.frames)


DEFAULTS = Options()


def run(
    sources: Sequence[str],
    model: Path,
    sinks: Sequence[str],
    options: Options = DEFAULTS,
    *,
    show: Callable[[Sequence[Health]], None] = lambda healths: None,
) -> dict[str, Totals]:
    """Stream cameras through a bundle until the sources end, or SIGTERM or Ctrl-C ends them in order.

    Args:
        sources: what to read; see :func:`edgeunip.devices.open.open_camera`.
        model: folder of the bundle.
        sinks: where results go; see :func:`edgeunip.runtimes.sinks.open_sink`. ``record:FILE`` takes every frame.
        options: the rest.
        show: called about once a second with each camera's health.

    Returns:
        Each camera's totals.

    Raises:
        EdgeunipError: a source, a sink or the model cannot be used; the first error of any loop.
    """
    for text in sinks:
        sink_spec(text)  # a slip of the pen is told at once, not after the model is compiled
    loaded = bundle.load(model)
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        board = Board()
        cameras = _cameras([address.resolve(source) for source in sources], board, options)
        scene = Scene() if options.scene is None else read_scene(options.scene, loaded.manifest.classes)
        runtime = open_runtime(loaded, throughput=not any(camera.live for camera in cameras))
        stack.callback(runtime.close)
        for camera in cameras:
            stack.enter_context(camera)
        ports = Ports(cameras, loaded.manifest.classes, board, tuple(rule.name for rule in scene.rules))
        unused = stack.enter_context(ExitStack())
        unused.callback(ports.close)
        ports.open(sinks, profile=options.profile or "")
        say(f"Streaming {', '.join(camera.name for camera in cameras)} on {runtime.name}; end with Ctrl-C")
        turns = Turns(runtime.concurrency)
        lanes = []
        for camera in cameras:
            loop = partial(
                stream,
                camera,
                runtime,
                loaded.manifest,
                ports.sinks[camera.name],
                recorders=ports.recorders[camera.name],
                scene=scene,
                watch=Watch(camera.name, loaded.manifest, board),
                gate=Gate(options.hold_s) if options.hold_s is not None and camera.live else None,
                turns=turns,
                frames=options.frames,
                stop=stop,
            )
            lanes.append(_Lane(camera, board, loop))
        with Watchdog(board, cameras=[camera.name for camera in cameras]):
            unused.pop_all()  # from here on each loop closes its own sinks, and leaves one that hangs behind
            _attend(lanes, stop, options, lambda: show(board.read()))
    for lane in lanes:
        if lane.error is not None:
            raise lane.error
    return {lane.camera.name: lane.totals for lane in lanes}


def _cameras(addresses: Sequence[str], board: Board, options: Options) -> list[Camera]:
    """Return every source's camera, none of one name with another."""
    for one in addresses:
        if addresses.count(one) > 1:
            raise UsageError("A source is named twice", where=address.redact(one))
    cameras = [_camera(one, board, options) for one in addresses]
    names = [camera.name for camera in cameras]
    for index, camera in enumerate(cameras):
        # Two addresses may differ in what is not shown: in the channel behind a question mark, or in the user.
        if earlier := names[:index].count(camera.name):
            camera.name = f"{camera.name} ({earlier + 1})"
        if not isinstance(camera, Guarded):
            board.put(camera.name, status=CameraStatus(State.LIVE, "frame", since_ns=time.monotonic_ns(), opened=1))
    return cameras


def _camera(source: str, board: Board, options: Options) -> Camera:
    """Return a live camera kept alive, or a source that ends."""
    if options.once:
        return open_camera(source, profile=options.profile)
    camera = open_guarded(source, profile=options.profile, on_status=lambda status: _tell(board, camera, status))
    return camera


def _tell(board: Board, camera: Camera, status: CameraStatus) -> None:
    board.put(camera.name, status=status)
    if status.state in (State.OFFLINE, State.STALE, State.FROZEN, State.DEGRADED) and status.message:
        logger.warning("%s: %s", camera.name, status.message)


class _Lane:
    """One camera's loop, in a thread of its own."""

    def __init__(self, camera: Camera, board: Board, run: Callable[..., Totals]) -> None:
        """Prepare; ``run`` is the loop, lacking only where to report."""
        self.camera = camera
        self.totals = Totals()
        self.error: Exception | None = None
        self._board, self._stream = board, run
        self.thread = threading.Thread(target=self._run, name=f"stream {camera.name}", daemon=True)

    def _run(self) -> None:
        try:
            self._stream(report=self._report)
        except Exception as error:
            self.error = error

    def _report(self, totals: Totals) -> None:
        self.totals = totals
        self._board.put(self.camera.name, totals=totals)


def _attend(
    lanes: Sequence[_Lane],
    stop: threading.Event,
    options: Options,
    show: Callable[[], None],
) -> None:
    """Run the loops until all have ended; the first that fails ends the others, in order."""
    for lane in lanes:
        lane.thread.start()
    shown = time.monotonic()
    while any(lane.thread.is_alive() for lane in lanes):
        for lane in lanes:
            lane.thread.join(_POLL_S)
        if any(lane.error is not None for lane in lanes):
            stop.set()
        if time.monotonic() - shown >= _SHOW_S:
            shown = time.monotonic()
            show()
            try:
                memory.check(options.max_memory_mib)
            except EdgeunipError as error:
                lanes[0].error = lanes[0].error or error
                stop.set()
