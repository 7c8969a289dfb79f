"""What a stream shows at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeunip import streaming
from edgeunip.defaults import say
from edgeunip.health import Totals
from edgeunip.streaming import DEFAULTS, Options


def stream(source: str | Sequence[str], model: Path, sinks: Sequence[str], options: Options = DEFAULTS) -> Totals:
    """Stream through a bundle, with a status line on standard error; return the first camera's totals."""
    status = Status()
    sources = [source] if isinstance(source, str) else source
    totals = streaming.run(sources, model, sinks, options, show=status.show)
    status.end(totals)
    return next(iter(totals.values()))


class Status:
    """One line on standard error: rewritten on a terminal, repeated every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0

    def show(self, totals: Mapping[str, Totals]) -> None:
        """Show where the stream is."""
        seconds = max(one.seconds for one in totals.values())
        if self._terminal:
            sys.stderr.write(f"\r\x1b[K{_line(totals)}")
            sys.stderr.flush()
        elif seconds - self._shown >= 10:
            self._shown = seconds
            say(_line(totals))

    def end(self, totals: Mapping[str, Totals]) -> None:
        """Show the sums, a line a camera."""
        for name, one in totals.items():
            label = f"{name}: " if len(totals) > 1 else ""
            say(("\r\x1b[K" if self._terminal else "") + label + describe(one))


def _line(totals: Mapping[str, Totals]) -> str:
    """Return one camera's sums in words, those of several in figures."""
    if len(totals) == 1:
        return describe(next(iter(totals.values())))
    rates = (f"{name} {one.inferred / (one.seconds or 1):.1f} fps" for name, one in totals.items())
    return f"{', '.join(rates)}; {sum(one.written for one in totals.values())} frames"


def describe(totals: Totals) -> str:
    """Return the sums of a stream in one line."""
    fps = totals.inferred / totals.seconds if totals.seconds else 0.0
    parts = [
        f"{totals.written} frames in {totals.seconds:.1f} s ({fps:.1f} a second)",
        f"age {totals.latency_ms[0]:.0f} ms (p99 {totals.latency_ms[1]:.0f})",
        f"{totals.skipped} skipped for newer ones",
        f"{totals.lost} lost at the source",
    ]
    if totals.held:
        parts.append(f"{totals.held} with the class map of an earlier one")
    parts += [f"{name} dropped {count}" for name, count in totals.sink_drops.items()]
    parts += [f"sink failed: {name}" for name in totals.failed_sinks]
    return ", ".join(parts)
