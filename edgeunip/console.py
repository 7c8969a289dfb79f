"""What a stream shows at the terminal, and how signals end it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from edgeunip import bundle
from edgeunip.defaults import say
from edgeunip.devices.open import open_camera
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.sinks import open_sink
from edgeunip.runtimes.stream import Totals
from edgeunip.runtimes.stream import stream as run_stream

FOLDER_RATE_HZ = 5.0  # at which pictures that have no rate of their own follow one another in a video


def stream(source: str, model: Path, sinks: Sequence[str], *, frames: int | None, profile: str | None) -> Totals:
    """Stream a camera through a bundle, with a status line on standard error, until the source or the user ends it."""
    loaded = bundle.load(model)
    with ExitStack() as stack:
        stop = stack.enter_context(stopping())
        camera = open_camera(source, profile=profile)
        runtime = open_runtime(loaded, throughput=not camera.live)
        stack.callback(runtime.close)
        stack.enter_context(camera)
        rate = None if camera.live else camera.rate_hz or FOLDER_RATE_HZ
        opened = []
        for spec in sinks:
            opened.append(open_sink(spec, classes=loaded.manifest.classes, rate_hz=rate))
            stack.callback(opened[-1].close)
            say(f"Writing to {opened[-1].name}")
        say(f"Streaming {camera.name} on {runtime.name}; end with Ctrl-C")
        status = Status()
        totals = run_stream(camera, runtime, loaded.manifest, opened, frames=frames, stop=stop, report=status.show)
    status.end(totals)
    return totals


class Status:
    """One line on standard error: rewritten on a terminal, repeated every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0

    def show(self, totals: Totals) -> None:
        """Show where the stream is."""
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{describe(totals)}")
            sys.stderr.flush()
        elif totals.seconds - self._shown >= 10:
            self._shown = totals.seconds
            say(describe(totals))

    def end(self, totals: Totals) -> None:
        """Show the sums."""
        say(("\r\x1b[K" if self._terminal else "") + describe(totals))


def describe(totals: Totals) -> str:
    """Return the sums of a stream in one line."""
    fps = totals.inferred / totals.seconds if totals.seconds else 0.0
    parts = [
        f"{totals.written} frames in {totals.seconds:.1f} s ({fps:.1f} a second)",
        f"age {totals.latency_ms[0]:.0f} ms (p99 {totals.latency_ms[1]:.0f})",
        f"{totals.skipped} skipped for newer ones",
        f"{totals.lost} lost at the source",
    ]
    parts += [f"{name} dropped {count}" for name, count in totals.sink_drops.items()]
    parts += [f"sink failed: {name}" for name in totals.failed_sinks]
    return ", ".join(parts)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event; a second one ends the process at once."""
    event = threading.Event()

    def ask(number: int, _: FrameType | None) -> None:
        event.set()
        signal.signal(number, signal.SIG_DFL)

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
