"""Does a stream's memory grow? A fake camera process, real OpenVINO inference, page and JSON lines on.

    taskset -c 0,1 python benchmarks/soak.py BUNDLE [--frames 60000] [--size 160x120] [--leak 1024]

The memory the process holds is read about once a second; a straight line is fitted to its second half. Bound: less
than 1 MiB per 100,000 frames. ``--leak`` keeps so many bytes of every result: the negative control, which must miss the
bound. The frames are counted at both ends: those the camera made must be those that came out and those counted as
given up. Exit code 0 where both hold.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgeunip import bundle, durable
from edgeunip.devices.open import open_guarded
from edgeunip.frame import Result
from edgeunip.health import Board, Totals
from edgeunip.runtimes.memory import rss_mib
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.outlet import Port
from edgeunip.runtimes.sinks import Setting, open_sink
from edgeunip.runtimes.stream import stream

BOUND_MIB = 1.0
PER = 100_000


def main() -> None:
    """Print the course and the slope."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=int, default=60_000, help="results to soak for; at least 30000 say something")
    parser.add_argument("--size", default="160x120", help="of the camera's frames")
    parser.add_argument("--rate", default="150", help="frames a second of the camera")
    parser.add_argument("--course", type=Path, help="write every reading to this CSV file")
    parser.add_argument("--leak", type=int, default=0, help="bytes to keep of every result")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if soak(Path(folder), options) else 1)


def soak(folder: Path, options: argparse.Namespace) -> bool:
    """Stream for so many results; return whether memory and counts hold."""
    loaded = bundle.load(options.bundle)
    runtime = open_runtime(loaded)
    leaked: list[bytes] = []
    course: list[tuple[int, float]] = []

    def keep(result: Result) -> None:
        if options.leak:
            leaked.append(os.urandom(options.leak))

    def report(totals: Totals) -> None:
        gc.collect()
        course.append((totals.inferred, rss_mib()))
        if len(course) % 30 == 0:
            print(f"{totals.inferred:8} frames {totals.seconds:7.0f} s {course[-1][1]:8.1f} MiB", flush=True)

    manifest = loaded.manifest
    print(f"{manifest.name}, {manifest.precision}, {runtime.name}, camera {options.size}, leak {options.leak}")
    with Fakecam(folder, options.size, options.rate) as fake:
        camera = open_guarded(f"unix:{fake.socket}")
        setting = Setting(loaded.manifest.classes, (camera.name,), None, Board())
        specs = ("web:0", f"jsonl:{folder}/results.jsonl?mb=20&keep=2")
        ports = [Port(spec, partial(open_sink, spec, setting)) for spec in specs]
        with camera:
            totals = stream(camera, runtime, loaded.manifest, ports, frames=options.frames, report=report, watch=keep)
    if options.course:
        rows = "".join(f"{frames},{mib:.3f}\n" for frames, mib in course)
        durable.write_text(options.course, f"frames,mib\n{rows}")
    found = slope(course)
    closes = totals.captured == totals.written + totals.skipped
    print(f"{totals.written} written + {totals.skipped} skipped = {totals.captured} captured: {closes}")
    print(f"{totals.lost} lost at the source, {totals.inferred} inferred, {totals.held} of them held")
    print(f"{totals.inferred / totals.seconds:.0f} frames a second, {len(course)} readings")
    print(f"slope {found:.2f} MiB per {PER} frames (bound {BOUND_MIB}): {'holds' if found < BOUND_MIB else 'MISSED'}")
    return closes and found < BOUND_MIB


def slope(course: Sequence[tuple[int, float]]) -> float:
    """Return MiB per 100,000 frames, by least squares over the second half of (frames, MiB) readings."""
    half = np.asarray([entry for entry in course if entry[0] >= course[-1][0] / 2], np.float64)
    return float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) * PER


class Fakecam:
    """The fake camera in a process of its own, as fast as its frames are taken."""

    def __init__(self, folder: Path, size: str, rate: str) -> None:
        self.socket = folder / "camera.sock"
        self._size, self._rate = size, rate

    def __enter__(self) -> Fakecam:
        size = self._size.split("x")
        command = [
            sys.executable,
            "-m",
            "edgeunip.devices.fakecam",
            str(self.socket),
            "--rate",
            self._rate,
            "--size",
            *size,
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)


if __name__ == "__main__":
    main()
