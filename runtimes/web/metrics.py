"""What the stream does, as Prometheus reads it: the health board, what the cameras show, and this process."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edgeunip.address import redact
from edgeunip.budget import BUDGET
from edgeunip.frame import Result, State
from edgeunip.health import Health
from edgeunip.runtimes import memory

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Each with its labels and its value.
_Samples = Sequence[tuple[tuple[str, ...], float]]

_FRAMES = {
    "captured": "Frames the camera gave",
    "skipped": "Frames passed over because newer ones had come",
    "lost": "Frames missing in the camera's own numbering",
    "inferred": "Frames with a result",
    "held": "Results whose class map is an earlier frame's",
    "written": "Results that at least one sink took",
}


class Exporter(Collector):
    """Collects at the moment it is asked."""

    def __init__(
        self, health: Callable[[], Iterable[Health]], results: Callable[[], Iterable[Result]],
        web: Callable[[], Mapping[str, float]],
    ) -> None:  # fmt: skip
        """Remember where the figures are.

        Args:
            health: returns every camera's health.
            results: returns every camera's newest result.
            web: returns the page's own figures by name, viewers and refusals.
        """
        self._health, self._results, self._web = health, results, web
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the text exposition format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        health, results = list(self._health()), [result for result in self._results() if _is_new(result)]
        yield from _frames(health)
        yield from _camera(health)
        yield from _sinks(health)
        yield from _scene(results)
        yield from _process()
        for name, value in self._web().items():
            yield _gauge(f"web_{name}", f"The page's {name.replace('_', ' ')}", (), [((), value)])


def _frames(health: list[Health]) -> Iterator[Metric]:
    for name, meaning in _FRAMES.items():
        samples = [((redact(one.camera),), float(getattr(one.totals, name))) for one in health]
        yield _counter(f"frames_{name}", meaning, ("camera",), samples)
    latencies = [
        ((redact(one.camera), quantile), value / 1e3)
        for one in health
        for quantile, value in zip(("0.5", "0.99"), one.totals.latency_ms, strict=True)
    ]
    yield _gauge("latency_seconds", "From capture to result", ("camera", "quantile"), latencies)


def _camera(health: list[Health]) -> Iterator[Metric]:
    cameras = [(redact(one.camera), one) for one in health]
    states = [((name, state.value), float(one.status.state is state)) for name, one in cameras for state in State]
    yield _gauge("camera_state", "1 for the state the camera is in", ("camera", "state"), states)
    faults = [((name, reason), float(n)) for name, one in cameras for reason, n in one.status.faults.items()]
    yield _counter("camera_faults", "How often the camera failed", ("camera", "reason"), faults)
    opened = [((name,), float(one.status.opened)) for name, one in cameras]
    yield _counter("camera_opened", "How often the camera was opened", ("camera",), opened)
    warnings = [((name, code), 1.0) for name, one in cameras for code in one.warnings]
    yield _gauge("warning", "What the operator should look at", ("camera", "code"), warnings)


def _sinks(health: list[Health]) -> Iterator[Metric]:
    sinks = [((redact(one.camera), redact(sink.name)), sink) for one in health for sink in one.totals.sinks]
    labels = ("camera", "sink")
    yield _gauge("sink_running", "Whether the sink takes results", labels, [(k, float(s.running)) for k, s in sinks])
    troubled = [(k, float(bool(s.message))) for k, s in sinks]
    yield _gauge("sink_troubled", "Whether something keeps the sink, or its receiver, from its work", labels, troubled)
    yield _counter("sink_written", "Results the sink took", labels, [(k, float(s.written)) for k, s in sinks])
    yield _counter("sink_dropped", "Results the sink missed", labels, [(k, float(s.dropped)) for k, s in sinks])
    yield _counter("sink_failures", "How often the sink failed", labels, [(k, float(s.failures)) for k, s in sinks])


def _scene(results: list[Result]) -> Iterator[Metric]:
    classes = [(redact(result.camera), name, found) for result in results for name, found in result.classes.items()]
    heat = [
        ((camera, name, statistic), value)
        for camera, name, found in classes
        for statistic, value in (("min", found.min_c), ("mean", found.mean_c), ("max", found.max_c))
        if value is not None and math.isfinite(value)
    ]
    yield _gauge("class_celsius", "Temperature of a class now", ("camera", "class", "statistic"), heat)
    areas = [((camera, name), found.area) for camera, name, found in classes]
    yield _gauge("class_area_ratio", "Share of the frame", ("camera", "class"), areas)
    raised: dict[tuple[str, ...], float] = {}
    for result in results:
        for alarm in result.alarms:
            key = redact(result.camera), alarm.name
            raised[key] = raised.get(key, 0.0) + 1
    yield _gauge("alarms", "How often the alarm is raised now", ("camera", "alarm"), list(raised.items()))


def _process() -> Iterator[Metric]:
    yield _gauge("resident_memory_bytes", "Memory of the process", (), [((), memory.rss_mib() * 2**20)])
    descriptors = float(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - a listing needs no paths
    yield _gauge("open_files", "File descriptors of the process", (), [((), descriptors)])


def _is_new(result: Result) -> bool:
    """An old temperature must not pass for one of now: beyond the longest shutter correction it is left out."""
    return time.monotonic_ns() - result.done_ns < (BUDGET.shutter_s + BUDGET.slack_s) * 1e9


def _gauge(name: str, meaning: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    return _filled(GaugeMetricFamily(f"edgeunip_{name}", f"{meaning}.", labels=labels), samples)


def _counter(name: str, meaning: str, labels: tuple[str, ...], samples: _Samples) -> Metric:
    return _filled(CounterMetricFamily(f"edgeunip_{name}", f"{meaning}.", labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: _Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(labels, value)
    return family
