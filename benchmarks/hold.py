"""What `stream --hold` saves and costs: frames that need no inference, and how far their held maps are from fresh ones.

    python benchmarks/hold.py BUNDLE SOURCE [SOURCE ..] [--profile lepton-raw] [--rate 9] [--hold 0.5 1 2]

Every frame of a source is taken at the given rate and also inferred, so that each held class map can be compared with
the one the model gives for that very frame: the share of equal pixels, mean and least. Between two frames that are
both inferred, one apart, the model's own maps differ as well; that agreement stands beside it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeunip import bundle
from edgeunip.devices.open import open_camera
from edgeunip.frame import Frame
from edgeunip.runtimes.gate import Gate
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.segment import Segmenter, class_map


def main() -> None:
    """Print a line for each source and limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--profile", default=None)
    parser.add_argument("--rate", type=float, default=9.0, help="frames a second")
    parser.add_argument("--hold", type=float, nargs="+", default=[0.5, 1.0, 2.0], help="seconds")
    parser.add_argument("--frames", type=int, default=200, help="at most, of each source")
    options = parser.parse_args()
    loaded = bundle.load(options.bundle)
    runtime = open_runtime(loaded)
    print(f"{loaded.manifest.name}, {loaded.manifest.precision}, {options.rate:g} frames a second")
    print(f"{'source':28}{'hold s':>7}{'frames':>8}{'held':>7}{'equal px mean':>15}{'least':>8}{'one apart':>11}")
    for source in options.sources:
        frames = read(source, options.profile, options.rate, options.frames)
        segmenter = Segmenter(loaded.manifest)
        prepared = [segmenter.prepare(frame) for frame in frames]
        maps = [class_map(runtime(one.model_picture), one.frame.counts.shape) for one in prepared]
        apart = np.mean([equal(one, other) for one, other in zip(maps[1:], maps[:-1], strict=True)])
        for hold in options.hold:
            gate, current, agreements = Gate(hold), maps[0], []
            for one, fresh in zip(prepared, maps, strict=True):
                if gate.is_still(one.frame):
                    agreements.append(equal(current, fresh))
                else:
                    current = fresh
            held = len(agreements) / len(frames)
            mean, least = (np.mean(agreements), min(agreements)) if agreements else (float("nan"),) * 2
            name = source if len(source) < 28 else f"..{source[-25:]}"
            print(f"{name:28}{hold:7g}{len(frames):8}{held:7.0%}{mean:15.2%}{least:8.2%}{apart:11.2%}")


def read(source: str, profile: str | None, rate: float, most: int) -> list[Frame]:
    """Return a source's frames, the k-th at k / rate seconds."""
    found = []
    with open_camera(source, profile=profile) as camera:
        for frame in camera:
            found.append(replace(frame, t_ns=round(len(found) / rate * 1e9)))
            if len(found) == most:
                break
    return found


def equal(one: np.ndarray, other: np.ndarray) -> float:
    """Return the share of equal pixels."""
    return float((one == other).mean())


if __name__ == "__main__":
    main()
