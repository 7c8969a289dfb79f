"""How long the picture takes: counts of one 640 x 512 frame to the 8 bits the model sees, on one core.

    python benchmarks/picture.py

The floor is a plain copy of the same frame: no method can touch every pixel faster. Goal: ``percentile`` below 1.5 ms.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import cv2
import numpy as np

from edgeunip.thermal import Agc, Linear, Mode

SEED = 0
HEIGHT, WIDTH = 512, 640
ROUNDS, WARM_UP = 300, 20
GOAL_MS = 1.5


def main() -> None:
    """Print one line a mode."""
    cv2.setNumThreads(1)
    counts = scene()
    target = np.empty_like(counts)
    radiometry = Linear(0.01, -273.15)
    print(f"machine: {processor()}, {os.cpu_count()} cores, one used; numpy {np.__version__}, OpenCV {cv2.__version__}")
    print(f"frame: {WIDTH} x {HEIGHT} uint16, seed {SEED}; {ROUNDS} rounds after {WARM_UP} to warm up")
    print(f"{'':12}{'median ms':>10}{'p99 ms':>10}{'x copy':>8}")
    floor, _ = line("copy", lambda: np.copyto(target, counts))
    for mode in get_args(Mode):
        agc = Agc(mode=mode, window_c=(10.0, 40.0))
        median, _ = line(mode, lambda agc=agc: agc.picture(counts, radiometry), floor)
        if mode == "percentile":
            verdict = f"goal: percentile < {GOAL_MS} ms: {'met' if median < GOAL_MS else 'MISSED'}"
    print(verdict)


def scene() -> np.ndarray:
    """Return a frame of a TLinear camera: a warm object before a cool, uneven, noisy background; (H, W), uint16."""
    rng = np.random.default_rng(SEED)
    counts = 29400 + np.linspace(0, 300, WIDTH)[None, :] + rng.normal(0, 8, (HEIGHT, WIDTH))
    counts[HEIGHT // 3 : HEIGHT // 2, WIDTH // 3 : WIDTH // 2] += 1200
    return counts.round().astype(np.uint16)


def line(name: str, call: Callable[[], object], floor: float | None = None) -> tuple[float, float]:
    """Time ``call``, print its line, return (median, p99) in milliseconds."""
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e6)
    median, p99 = np.percentile(times, [50, 99])
    print(f"{name:12}{median:10.3f}{p99:10.3f}{median / (floor or median):8.1f}")
    return float(median), float(p99)


def processor() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
