"""A tiny real OpenVINO model, a real bundle around it, and cameras and sinks that live in memory."""

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from edgeunip import bundle as bundles
from edgeunip.bundle import Golden, Manifest
from edgeunip.classes import Classes
from edgeunip.errors import SinkError
from edgeunip.frame import Frame
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime
from edgeunip.runtimes.segment import decide
from edgeunip.thermal import Agc, Linear, fit

HEIGHT, WIDTH = 64, 96
CENTRES = (0, 85, 170, 255)
CLASSES = Classes(("background", "cool", "warm", "hot"), ((0, 0, 0), (0, 0, 255), (255, 160, 0), (255, 0, 0)))
LINEAR = Linear(0.01, -273.15)


def tiny_model(height=HEIGHT, width=WIDTH, centres=CENTRES):
    """The class of a pixel is the centre nearest to the mean gray of its 4x4 block."""
    picture = ops.parameter([1, 1, height, width], np.uint8, name="picture")
    mean = ops.avg_pool(ops.convert(picture, "f32"), [4, 4], [0, 0], [0, 0], [4, 4], True)
    offset = ops.subtract(mean, ops.constant(np.array(centres, np.float32).reshape(1, -1, 1, 1)))
    return ov.Model([ops.negative(ops.abs(offset))], [picture], "tiny")


def tiny_manifest(**changes):
    manifest = Manifest(
        name="tiny",
        target="x86-cpu",
        runtime="openvino",
        precision="float32",
        capability={},
        height=HEIGHT,
        width=WIDTH,
        agc=Agc(mode="percentile", low=0, high=100),
        mean=127.5,
        std=60.0,
        classes=CLASSES,
        radiometry=LINEAR,
        accuracy={},
        calibration=None,
        quantisation=None,
        golden_agreement=0.995,
        provenance={},
    )
    return replace(manifest, **changes)


def scene(seq=0, height=120, width=160):
    """A ramp from 20 to 40 degC that moves with ``seq``."""
    y, x = np.mgrid[:height, :width]
    return (29315 + 2000 * ((x + y + 7 * seq) % (height + width)) / (height + width)).astype(np.uint16)


def frames(number, start=0):
    return [Frame(scene(seq), seq, time.monotonic_ns(), radiometry=LINEAR) for seq in range(start, start + number)]


def save_tiny(path, manifest=None, golden=None):
    manifest = manifest or tiny_manifest()
    model = path.parent / "model.xml"
    ov.save_model(tiny_model(), model, compress_to_fp16=False)
    if golden is None:
        runtime = OpenVinoRuntime(tiny_model())
        counts = np.stack([scene(seq) for seq in range(3)])
        pictures = [fit(manifest.agc.picture(one, manifest.radiometry), HEIGHT, WIDTH) for one in counts]
        golden = Golden(counts, np.stack([decide(runtime(picture)) for picture in pictures]))
    files = {name: model.with_name(name).read_bytes() for name in ("model.xml", "model.bin")}
    return bundles.save(path, manifest, {**files, "golden.npz": golden.to_bytes()})


class MemoryCamera:
    """Frames from memory, at their own time or as fast as they are taken; ``error`` comes after the last."""

    def __init__(self, frames, *, live=False, rate_hz=None, period_s=0.0, error=None):
        self.name, self.live, self.rate_hz = "memory", live, rate_hz
        self._frames, self._period_s, self._error = frames, period_s, error

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        return None

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            if self._period_s:
                time.sleep(self._period_s)
            yield replace(frame, t_ns=time.monotonic_ns())
        if self._error is not None:
            raise self._error


class SlowRuntime:
    """A runtime that takes its time before it runs another; call number ``fail_at`` (from 0) raises ``error``."""

    name = "slow"

    def __init__(self, runtime, *, seconds=0.0, concurrency=1, jitter=None, error=None, fail_at=None):
        self.concurrency = concurrency
        self.running = self.most = self.calls = 0
        self._runtime, self._seconds, self._jitter = runtime, seconds, jitter
        self._error, self._fail_at = error, fail_at

    def __call__(self, picture):
        number, self.calls = self.calls, self.calls + 1
        if number == self._fail_at:
            raise self._error
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(self._seconds + (self._jitter.random() * self._seconds if self._jitter else 0))
        logits = self._runtime(picture)
        self.running -= 1
        return logits

    def close(self):
        self._runtime.close()


class MemorySink:
    """Keeps results. Write number ``fail_at`` (from 0) raises."""

    def __init__(self, name="memory", *, seconds=0.0, fail_at=None, error=None):
        self.name, self.results, self.closed = name, [], 0
        self._seconds, self._fail_at, self._error = seconds, fail_at, error or SinkError("Worn out", where=name)

    def write(self, result):
        if len(self.results) == self._fail_at:
            raise self._error
        time.sleep(self._seconds)
        self.results.append(result)

    def close(self):
        self.closed += 1

    @property
    def seqs(self):
        return [result.frame.seq for result in self.results]
