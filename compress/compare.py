"""``compare``: runs, bundles and models from elsewhere, in accuracy, latency, size and work, all on one engine.

Every model is an OpenVINO graph here: a bundle's own file, a run's float export, a model file behind its adapter. So
one metric scores all, and one harness times all, in turns, so that a processor that slows down slows every model.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from edgeunip import bundle, pack, trust
from edgeunip.bundle import Bundle
from edgeunip.compress import external, graph, macs
from edgeunip.compress.export import require_deployable
from edgeunip.compress.external import External
from edgeunip.errors import InferenceError, UsageError
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime, properties
from edgeunip.thermal import Agc
from edgeunip.train import run as runs
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.evaluate import Score, evaluate
from edgeunip.train.loader import Pictures
from edgeunip.train.run import WEIGHTS, Run

ROUNDS = 10
_MIN_CALLS = 3

Opened = Run | Bundle | External
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One model's figures.

    Attributes:
        name: of the run, bundle or file.
        kind: ``run``, ``bundle`` or ``external``.
        target: what a bundle was exported for; empty for the others.
        precision: ``float32``, ``int8``, or what else its manifest says.
        height, width: of its input, pixels.
        score: over the split (miou, iou by class, accuracy: shares 0..1; images); None for one measured for speed only.
        median_ms, p90_ms: of one call.
        speed: how many times as fast as the first model: median over the rounds.
        behind: how many times as long as the fastest model it takes: median over the rounds.
        bytes: on disk: what a device loads of a bundle, a run's weights, a model file.
        macs: multiply-accumulates for one picture.
        int8_share: share of those done on 8-bit values, 0..1.
        engine: what ran it here.
    """

    name: str
    kind: str
    target: str
    precision: str
    height: int
    width: int
    score: dict[str, Any] | None
    median_ms: float
    p90_ms: float
    speed: float
    behind: float
    bytes: int
    macs: int
    int8_share: float
    engine: str


@dataclass(frozen=True)
class Comparison:
    """The figures of all models, in the order they were named, and what they were measured on.

    Attributes:
        rows: one a model.
        data: source of the pictures; empty where all are for speed only.
        split: that was scored.
        threads: processor threads of each model.
        processor: that ran them.
    """

    rows: tuple[Row, ...]
    data: str
    split: str
    threads: int
    processor: str

    def to_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """A model ready to be measured.

    Attributes:
        row: its figures as far as they are known without running it.
        graph: picture in, uint8 [1, 1, H, W].
        agc: how counts become its picture; None where it is for speed only.
    """

    row: Row
    graph: openvino.Model
    agc: Agc | None


def compare(
    models: Sequence[Path],
    data: DataSet | None = None,
    *,
    split: str = "test",
    threads: int = 2,
    seconds: float = 5.0,
    adapter: Path | None = None,
    say: Say = print,
) -> Comparison:
    """Measure models against each other.

    Args:
        models: folders of runs or bundles, packed bundles, ONNX or OpenVINO files with an adapter.
        data: what they are scored on; None for the data set that the first run or bundle was trained on.
        split: of the data set.
        threads: processor threads of each model.
        seconds: roughly how long to time each.
        adapter: of the model files that have none beside them.
        say: told each stage.

    Raises:
        UsageError: a model cannot be compared, or the data set has other classes.
        RunError, BundleError, DataError: a run, a bundle or the data set cannot be read.
        InferenceError: OpenVINO does not run a model here.
    """
    with contextlib.ExitStack() as held:
        folders = [held.enter_context(pack.unpacked(path)) if is_packed(path) else path for path in models]
        opened = [open_model(path, adapter) for path in folders]
        data = data or _own_data(opened)
        candidates = [_candidate(one, data, name) for one, name in zip(opened, short_names(models), strict=True)]
        say(f"Timing {len(candidates)} models in {ROUNDS} rounds, about {len(candidates) * seconds:.0f} s")
        rounds = measure([one.graph for one in candidates], threads=threads, seconds=seconds)
        rows = []
        for index, one in enumerate(candidates):
            row = replace(one.row, **_timed(rounds, index))
            if one.agc and data:
                say(f"Scoring {row.name} on {len(data.split(split))} pictures")
                row = replace(row, score=_score(one, data, split, threads).to_json())
            rows.append(row)
    return Comparison(tuple(rows), data.source if data else "", split, threads, runs.processor())


def is_packed(path: Path) -> bool:
    """Tell a packed bundle from the folder of one."""
    return path.suffix == pack.SUFFIX


def open_model(path: Path, adapter: Path | None = None) -> Opened:
    """Open what a path names: a bundle, a model file, else a run."""
    if external.is_external(path):
        return external.load(path, adapter)
    if (path / bundle.MANIFEST).is_file():
        loaded = bundle.load(path)
        trust.admit(loaded)  # its graph runs here without a runtime, whose opening is where trust is asked else
        return loaded
    return runs.open_run(path)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return each path's last name, with as many of its folders as tell it from the others."""
    endings = (".bundle", pack.SUFFIX, *external.SUFFIXES)
    whole = [path.resolve() for path in paths]
    parts = [path.with_suffix("").parts if path.suffix in endings else path.parts for path in whole]

    def shortest(own: tuple[str, ...]) -> str:
        lengths = range(1, len(own))
        unique = (n for n in lengths if sum(other[-n:] == own[-n:] for other in parts) == 1)
        return "/".join(own[-next(unique, 1) :])

    return [shortest(own) for own in parts]


def measure(graphs: Sequence[openvino.Model], *, threads: int, seconds: float) -> list[list[list[float]]]:
    """Time single calls of every graph, in turns.

    Returns:
        Milliseconds by round, graph and call. The first of a round changes, so that none always follows the same one.
    """
    requests = [_request(one, threads) for one in graphs]
    calls = [max(_MIN_CALLS, round(seconds * 1e3 / ROUNDS / min(_calls(one, _MIN_CALLS)))) for one in requests]
    rounds = []
    for number in range(ROUNDS):
        times: dict[int, list[float]] = {}
        for step in range(len(requests)):
            index = (number + step) % len(requests)
            times[index] = _calls(requests[index], calls[index])
        rounds.append([times[index] for index in range(len(requests))])
    return rounds


def _request(model: openvino.Model, threads: int) -> Any:
    try:
        request = openvino.Core().compile_model(model, "CPU", properties(threads=threads)).create_infer_request()
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1]
        raise InferenceError("OpenVINO cannot load the model", where=model.friendly_name, why=why) from error
    tensor = request.get_input_tensor()
    tensor.data[...] = np.random.default_rng(0).integers(0, 256, tuple(tensor.shape), np.uint8)
    return request


def _calls(request: Any, count: int) -> list[float]:
    """Milliseconds of ``count`` calls; one before them, not counted, brings the model back into the caches."""
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        request.infer()
        times.append((time.perf_counter() - start) * 1e3)
    return times[1:]


def _timed(rounds: list[list[list[float]]], index: int) -> dict[str, Any]:
    medians = np.array([[statistics.median(calls) for calls in one] for one in rounds])
    fastest = int(np.median(medians, axis=0).argmin())
    own = np.concatenate([one[index] for one in rounds])
    return {
        "median_ms": float(np.median(own)),
        "p90_ms": float(np.percentile(own, 90)),
        "speed": float(np.median(medians[:, 0] / medians[:, index])),
        "behind": float(np.median(medians[:, index] / medians[:, fastest])),
    }


def _own_data(opened: Sequence[Opened]) -> DataSet | None:
    """Open what the first run or bundle was trained on; None where there are model files only."""
    for one in opened:
        if isinstance(one, Run):
            return one.data()
        if isinstance(one, Bundle):
            recorded = one.manifest.provenance["data"]
            return open_data(recorded["source"], splits=recorded["lists"])
    return None


def _candidate(one: Opened, data: DataSet | None, name: str) -> Candidate:
    if isinstance(one, External):
        return _external(one, data, name)
    classes = one.classes.names if isinstance(one, Run) else one.manifest.classes.names
    if data and data.classes.names != classes:
        why = f"it knows {', '.join(classes)}; the data set has {', '.join(data.classes.names)}"
        raise UsageError("The model has other classes than the data set", where=one.path, why=why)
    return _run(one, name) if isinstance(one, Run) else _bundle(one, name)


def _run(run: Run, name: str) -> Candidate:
    require_deployable(run)
    made = graph.to_openvino(graph.to_onnx(run, run.model()))
    row = _row(made, name, "run", "float32", (run.path / WEIGHTS).stat().st_size)
    return Candidate(row, made, run.recipe.agc_parameters())


def _bundle(built: Bundle, name: str) -> Candidate:
    manifest = built.manifest
    files = [file for file in manifest.files if external.is_external(Path(file))]
    if not files:
        raise UsageError("The bundle holds no graph that OpenVINO reads", where=built.path)
    made = openvino.Core().read_model(built.path / files[0])
    size = sum(entry["size"] for file, entry in manifest.files.items() if file != bundle.GOLDEN)
    row = replace(_row(made, name, "bundle", manifest.precision, size), target=manifest.target)
    return Candidate(row, made, manifest.agc)


def _external(one: External, data: DataSet | None, name: str) -> Candidate:
    made = one.graph(data.classes.names if data else None)
    row = _row(made, name, "external", "float32", one.bytes)
    scored = data is not None and one.adapter.kind != "none"
    precision = "int8" if row.int8_share else "float32"
    return Candidate(replace(row, precision=precision), made, one.adapter.agc if scored else None)


def _row(made: openvino.Model, name: str, kind: str, precision: str, size: int) -> Row:
    height, width = (int(side) for side in made.inputs[0].get_shape()[2:])
    work = macs.count(made)
    return Row(
        name=name,
        kind=kind,
        target="",
        precision=precision,
        height=height,
        width=width,
        score=None,
        median_ms=0.0,
        p90_ms=0.0,
        speed=0.0,
        behind=0.0,
        bytes=size,
        macs=work.total,
        int8_share=work.int8_share,
        engine=f"OpenVINO {openvino.__version__.split('-')[0]} CPU",
    )


def _score(one: Candidate, data: DataSet, split: str, threads: int) -> Score:
    runtime = OpenVinoRuntime(one.graph, threads=threads)
    try:
        assert one.agc is not None
        pictures = Pictures(data, data.split(split), one.agc, cache=0)
        return evaluate(runtime, pictures, size=(one.row.height, one.row.width))
    finally:
        runtime.close()
