"""How fast a bundle runs here: the bare model, and the whole stream around it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgeunip.bundle import Bundle, Manifest
from edgeunip.frame import Frame, Result
from edgeunip.protocols import Runtime
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.overlay import Overlay
from edgeunip.runtimes.plain import plain
from edgeunip.runtimes.segment import Segmenter
from edgeunip.runtimes.stream import stream
from edgeunip.thermal import Linear

_ROUNDS = 5
_PICTURES = 8
_MIN_CALLS = 8


@dataclass(frozen=True)
class Bench:
    """Figures of one bundle on one machine.

    Attributes:
        bundle, runtime, precision: what was measured.
        height, width: of the frames and the model's input, pixels.
        concurrency: requests at once in the throughput figures.
        latency_p50_ms, latency_p99_ms: one call of the bare model, latency hint.
        bare_fps: the bare model, throughput hint, ``concurrency`` calls at all times; median of the rounds.
        stream_fps: the whole loop on the same runtime and frames: AGC, model, class map, temperatures, overlay, JSON.
        ratio: ``stream_fps`` / ``bare_fps``, median of the rounds' ratios.
        rounds: (bare, stream) frames a second, one pair a round, in the order measured.
    """

    bundle: str
    runtime: str
    precision: str
    height: int
    width: int
    concurrency: int
    latency_p50_ms: float
    latency_p99_ms: float
    bare_fps: float
    stream_fps: float
    ratio: float
    rounds: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def bench(bundle: Bundle, *, seconds: float = 20.0, threads: int | None = None) -> Bench:
    """Measure a bundle on this machine.

    The bare model and the stream take turns, round by round, so that a processor that slows down slows both.

    Args:
        bundle: a checked bundle.
        seconds: roughly how long to measure, loading not counted.
        threads: processor threads for the model; None lets the runtime choose.
    """
    manifest = bundle.manifest
    frames = _frames(manifest)
    segmenter = Segmenter(manifest, rate_hz=0.0)
    pictures = [segmenter.prepare(frame).model_picture for frame in frames]
    latencies = _latencies(bundle, pictures, seconds * 0.2, threads)
    runtime = open_runtime(bundle, throughput=True, threads=threads)
    try:
        rounds = _rounds(runtime, manifest, frames, pictures, seconds * 0.8)
    finally:
        runtime.close()
    p50, p99 = np.percentile(latencies, (50, 99)).tolist()
    return Bench(
        bundle=manifest.name,
        runtime=runtime.name,
        precision=manifest.precision,
        height=manifest.height,
        width=manifest.width,
        concurrency=runtime.concurrency,
        latency_p50_ms=p50,
        latency_p99_ms=p99,
        bare_fps=statistics.median(bare for bare, _ in rounds),
        stream_fps=statistics.median(loop for _, loop in rounds),
        ratio=statistics.median(loop / bare for bare, loop in rounds),
        rounds=tuple(rounds),
    )


def describe(found: Bench) -> str:
    """Return the figures in a few lines for people."""
    return "\n".join(
        (
            f"{found.bundle}, {found.precision}, {found.width}x{found.height}, {found.runtime}",
            f"one call          {found.latency_p50_ms:8.1f} ms median, {found.latency_p99_ms:.1f} ms p99",
            f"bare model        {found.bare_fps:8.1f} frames/s, {found.concurrency} calls at once",
            f"the whole stream  {found.stream_fps:8.1f} frames/s, {100 * found.ratio:.0f} % of the bare model",
        )
    )


def _latencies(
    bundle: Bundle, pictures: list[NDArray[np.uint8]], seconds: float, threads: int | None
) -> NDArray[np.float64]:
    """Milliseconds of single calls, one after the other."""
    runtime = open_runtime(bundle, threads=threads)
    try:
        times: list[float] = []
        runtime(pictures[0])
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < _MIN_CALLS:
            start = time.perf_counter()
            runtime(pictures[len(times) % len(pictures)])
            times.append((time.perf_counter() - start) * 1e3)
        return np.array(times)
    finally:
        runtime.close()


def _rounds(
    runtime: Runtime, manifest: Manifest, frames: list[Frame], pictures: list[NDArray[np.uint8]], seconds: float
) -> list[tuple[float, float]]:
    warm = _bare(runtime, pictures, 2 * runtime.concurrency)
    calls = max(_MIN_CALLS, 2 * runtime.concurrency, round(warm * seconds / (2 * _ROUNDS)))
    return [(_bare(runtime, pictures, calls), _loop(runtime, manifest, frames, calls)) for _ in range(_ROUNDS)]


def _bare(runtime: Runtime, pictures: list[NDArray[np.uint8]], calls: int) -> float:
    """Frames a second of ``calls`` calls, as many at once as the runtime takes."""
    with ThreadPoolExecutor(runtime.concurrency) as pool:
        start = time.perf_counter()
        for _ in pool.map(lambda index: runtime(pictures[index % len(pictures)]), range(calls)):
            pass
        return calls / (time.perf_counter() - start)


def _loop(runtime: Runtime, manifest: Manifest, frames: list[Frame], calls: int) -> float:
    with _Memory(frames) as camera:
        totals = stream(camera, runtime, manifest, [Port.of(_Consumer(manifest))], frames=calls)
    return totals.written / totals.seconds


def _frames(manifest: Manifest) -> list[Frame]:
    """Radiometric 16-bit frames: smooth warmth, hot spots, noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[: manifest.height, : manifest.width]
    frames = []
    for seq in range(_PICTURES):
        ground = 2000 * np.sin((x + 37 * seq) / 60) * np.cos(y / 45) + random.normal(0, 20, y.shape)
        frames.append(Frame((29_500 + ground).astype(np.uint16), seq, 0, radiometry=Linear(0.01, -273.15)))
    return frames


class _Memory:
    """A :class:`edgeunip.protocols.Camera` that costs nothing: the same frames for ever, as fast as they are taken."""

    name, live = "memory", False

    def __init__(self, frames: list[Frame]) -> None:
        self.rate_hz: float | None = 30.0
        self._frames = frames

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __iter__(self) -> Iterator[Frame]:
        seq = 0
        while True:
            frame = self._frames[seq % len(self._frames)]
            yield Frame(frame.counts, seq, frame.t_ns, frame.state, frame.radiometry)
            seq += 1


class _Consumer:
    """A :class:`edgeunip.protocols.Sink` that does what a real one does, short of the disk."""

    name = "memory"

    def __init__(self, manifest: Manifest) -> None:
        self._overlay = Overlay(manifest.classes)
        self.last: tuple[dict[str, Any], NDArray[np.uint8]] | None = None

    def write(self, result: Result) -> None:
        self.last = plain(result), self._overlay.draw(result)

    def close(self) -> None:
        return None
