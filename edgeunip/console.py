"""What a stream shows at the terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeunip import streaming
from edgeunip.defaults import say
from edgeunip.frame import State
from edgeunip.health import Health, Totals
from edgeunip.streaming import DEFAULTS, Options


def stream(source: str | Sequence[str], model: Path, sinks: Sequence[str], options: Options = DEFAULTS) -> Totals:
    """Stream through a bundle, with a status line on standard error; return the first camera's totals."""
    status = Status()
    sources = [source] if isinstance(source, str) else source
    try:
        totals = streaming.run(sources, model, sinks, options, show=status.show)
    finally:
        status.clear()
    status.end(totals)
    return next(iter(totals.values()))


class Status:
    """One line on standard error: rewritten on a terminal, repeated every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shown_s = time.monotonic()

    def show(self, healths: Sequence[Health]) -> None:
        """Show where the stream is."""
        if self._terminal:
            # A line that wraps would not be overwritten.
            line = _line(healths)[: shutil.get_terminal_size().columns - 1]
            say(f"\r\x1b[K{line}", end="")
        elif time.monotonic() - self._shown_s >= 10:
            self._shown_s = time.monotonic()
            say(_line(healths))

    def clear(self) -> None:
        """Take the line off the terminal."""
        if self._terminal:
            say("\r\x1b[K", end="")

    def end(self, totals: Mapping[str, Totals]) -> None:
        """Show the sums, a line a camera."""
        for name, one in totals.items():
            say((f"{name}: " if len(totals) > 1 else "") + describe(one))


def _line(healths: Sequence[Health]) -> str:
    """Return how one camera does and its sums in words, those of several in figures."""
    if len(healths) == 1:
        state = _state(healths[0])
        return (f"{state}, " if state else "") + describe(healths[0].totals)
    cameras = (f"{one.camera} {_state(one) or f'{_rate(one.totals):.1f} fps'}" for one in healths)
    return f"{', '.join(cameras)}; {sum(one.totals.written for one in healths)} frames"


def _state(health: Health) -> str:
    """Return what ails a camera and for how long; empty while it is live."""
    status = health.status
    if status.state is State.LIVE:
        return ""
    lasted_s = (time.monotonic_ns() - status.since_ns) / 1e9
    return f"{status.state.value} for {lasted_s:.0f} s ({status.reason})"


def _rate(totals: Totals) -> float:
    return totals.inferred / totals.seconds if totals.seconds else 0.0


def describe(totals: Totals) -> str:
    """Return the sums of a stream in one line."""
    parts = [
        f"{totals.written} frames in {totals.seconds:.1f} s ({_rate(totals):.1f} a second)",
        f"age {totals.latency_ms[0]:.0f} ms (p99 {totals.latency_ms[1]:.0f})",
        f"{totals.skipped} skipped for newer ones",
        f"{totals.lost} lost at the source",
    ]
    if totals.held:
        parts.append(f"{totals.held} with the class map of an earlier one")
    parts += [f"{name} dropped {count}" for name, count in totals.sink_drops.items()]
    parts += [f"sink failed: {name}" for name in totals.failed_sinks]
    return ", ".join(parts)
