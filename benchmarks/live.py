"""What the live stream leaves of the bare model, and how old a mask is: AGC, model, regions, web page, JSON lines.

    taskset -c 0,1 python benchmarks/live.py BUNDLE [--rate 30] [--rounds 5] [--seconds 12] [--viewer]

A camera in memory gives radiometric 16-bit frames of the model's size at a fixed rate. The bare model and the stream
take turns, round by round, on the same processors: the bare model is called in a row with the pictures of the same
frames. The age of a mask runs from the capture of its frame to the moment its result is complete. Goals: frames a
second of the stream at least 0.95 of the bare model's (where the camera is fast enough), p99 of the age below 1.3 times
the model's median. A camera slower than the model bounds the stream itself; then only the age says something.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from edgeunip import bundle
from edgeunip.bundle import Bundle
from edgeunip.frame import Frame
from edgeunip.protocols import Runtime
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.segment import Segmenter
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.stream import stream
from edgeunip.thermal import Linear

PICTURES = 8
SEED = 0


def main() -> None:
    """Print a line a round, then the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second of the camera")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each half of a round")
    parser.add_argument("--viewer", action="store_true", help="a client watches the page")
    options = parser.parse_args()
    loaded = bundle.load(options.bundle)
    manifest = loaded.manifest
    frames = scenes(manifest.height, manifest.width)
    runtime = open_runtime(loaded)
    print(f"{manifest.name}, {manifest.precision}, {manifest.width}x{manifest.height}, {runtime.name}, seed {SEED}")
    print(f"camera {options.rate:g} Hz; processors {sorted(os.sched_getaffinity(0))}; viewer: {options.viewer}")
    heads = ["round", "model ms", "p99 x", "bare fps", "stream fps", "ratio", "age p50", "age p99", "p99 x"]
    print("".join(f"{head:>11}" for head in heads))
    rounds = []
    for number in range(options.rounds):
        times = bare(runtime, loaded, frames, options.seconds)
        fps, p50, p99 = live(runtime, loaded, frames, options.rate, options.seconds, viewer=options.viewer)
        model_ms, slowest = np.percentile(times, (50, 99)).tolist()
        bare_fps = 1e3 / statistics.mean(times)
        rounds.append((slowest / model_ms, fps / bare_fps, p99 / model_ms))
        figures = (model_ms, rounds[-1][0], bare_fps, fps, rounds[-1][1], p50, p99, rounds[-1][2])
        print(f"{number:11}" + "".join(f"{figure:11.2f}" for figure in figures), flush=True)
    noise, ratio, age = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"stream / bare {ratio:.3f} (goal 0.95: {'met' if ratio >= 0.95 else 'MISSED'})")
    print(f"p99 of the age / median of the model {age:.2f} (goal 1.3: {'met' if age < 1.3 else 'MISSED'})")
    print(f"p99 / median of the bare model {noise:.2f}: what this machine adds by itself")


def bare(runtime: Runtime, loaded: Bundle, frames: list[Frame], seconds: float) -> list[float]:
    """Return the milliseconds of calls in a row."""
    segmenter = Segmenter(loaded.manifest, rate_hz=0.0)
    pictures = [segmenter.prepare(frame).model_picture for frame in frames]
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        runtime(pictures[len(times) % len(pictures)])
        times.append((time.perf_counter() - start) * 1e3)
    return times


def live(
    runtime: Runtime, loaded: Bundle, frames: list[Frame], rate: float, seconds: float, *, viewer: bool
) -> tuple[float, float, float]:
    """Return (frames a second, median age in ms, p99 of the age in ms) of the stream with its sinks."""
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(loaded.manifest.classes, ("memory",))
        specs = ("web:0", f"jsonl:{folder}/results.jsonl")
        sinks = [open_sink(spec, setting) for spec in specs]
        stop = threading.Event()
        if viewer:
            threading.Thread(target=watch, args=(sinks[0].name.split()[-1], stop), daemon=True).start()
        threading.Timer(seconds, stop.set).start()
        with Memory(frames, rate) as camera:
            ports = [
                Port(sink.name, partial(open_sink, spec, setting), sink)
                for spec, sink in zip(specs, sinks, strict=True)
            ]
            totals = stream(camera, runtime, loaded.manifest, ports, stop=stop)
    return totals.inferred / totals.seconds, *totals.latency_ms


def watch(url: str, stop: threading.Event) -> None:
    """Read the page's stream as a browser does."""
    with urllib.request.urlopen(url + "stream") as answer:
        while not stop.is_set() and answer.read(65536):
            pass


def scenes(height: int, width: int) -> list[Frame]:
    """Return radiometric 16-bit frames: smooth warmth, warm bodies, noise."""
    random = np.random.default_rng(SEED)
    y, x = np.mgrid[:height, :width]
    found = []
    for seq in range(PICTURES):
        counts = 29_500 + 400 * np.sin((x + 37 * seq) / 90) * np.cos(y / 70) + random.normal(0, 8, y.shape)
        for _ in range(4):
            top, left = random.integers(0, height - 60), random.integers(0, width - 40)
            counts[top : top + 60, left : left + 40] = 31_000 + random.normal(0, 8, (60, 40))
        found.append(Frame(counts.astype(np.uint16), seq, 0, radiometry=Linear(0.01, -273.15)))
    return found


class Memory:
    """A live camera that costs nothing and never ends: frame ``k`` is exposed ``k`` periods after the start."""

    name, live = "memory", True

    def __init__(self, frames: list[Frame], rate: float) -> None:
        self.rate_hz: float | None = rate
        self._frames = frames

    def __enter__(self) -> Memory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        start = time.monotonic_ns()
        for seq in itertools.count():
            due = start + round(seq * 1e9 / (self.rate_hz or 1.0))
            time.sleep(max(0.0, (due - time.monotonic_ns()) / 1e9))
            frame = self._frames[seq % len(self._frames)]
            yield Frame(frame.counts, seq, due, frame.state, frame.radiometry)


if __name__ == "__main__":
    main()
