"""The table of what is shipped: teacher and students, float and int8, beside SegFormer-B0 and YOLO11n-seg.

    python benchmarks/edge.py RUNS [RUNS ...] [--peers FOLDER] [--threads 2] [--out runs/edge]

RUNS is a folder of finished runs of one data set, a sub-folder each: ``teacher`` and the students by name. --peers is a
folder that ``benchmarks/peers.py`` wrote; they are measured for speed alone, their int8 made by NNCF on three pictures.
Pin it to as many processors as threads: ``taskset -c 0,1 python benchmarks/edge.py ...``. All models of a data set are
timed in turns, in one process. A bundle that is newer than its run's weights is not exported again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nncf
import numpy as np
import openvino
from numpy.typing import NDArray

from edgeunip import durable, thermal
from edgeunip.bundle import MANIFEST
from edgeunip.compress import compare_report, external
from edgeunip.compress.compare import Comparison, Row, compare
from edgeunip.compress.export import Int8, export
from edgeunip.compress.search import Budget
from edgeunip.errors import ExportError
from edgeunip.train import log
from edgeunip.train import run as runs
from edgeunip.train.datasets import DataSet
from edgeunip.train.run import RECIPE, WEIGHTS, Run

TARGET = "x86-cpu"
YARDSTICK = "yolo11n-seg-int8"
PICTURES = 3
ADAPTER = 'size = [{height}, {width}]\ndtype = "uint8"\nkind = "none"\n'
HEAD = (
    "model",
    "precision",
    "mIoU, %",
    "int8 drop",
    "ms",
    "p90",
    "x YOLO11n-seg int8",
    "MB",
    "GMACs",
    "int8, %",
    "min",
)


def main() -> None:
    """Export, compare and print one table a data set."""
    options = _options()
    for folder in options.runs:
        found = [_sized(runs.open_run(path), options) for path in _runs(folder)]
        data = found[0].data()
        bundles = [path for run in found for path in _bundles(run, data, options.out / folder.name)]
        peers = _peers(options.peers, data, options.out / "peers") if options.peers else []
        ordered = sorted([*bundles, *peers], key=lambda path: path.stem != YARDSTICK)  # the first is what "x" refers to
        made = compare(ordered, data, threads=options.threads, seconds=options.seconds)
        compare_report.write(options.out / folder.name, made)
        text = table(made, {run.path.name: _minutes(run.path) for run in found})
        durable.write_text(options.out / folder.name / "table.md", text)
        print(f"\n{text}", flush=True)


def table(found: Comparison, minutes: dict[str, float]) -> str:
    """Return a data set's table, Markdown; ``minutes`` of training by run."""
    names = {row.name for row in found.rows}
    rows = [row for row in found.rows if row.kind == "bundle"] + [row for row in found.rows if row.kind != "bundle"]
    body = [_cells(row, found, minutes, ratio=YARDSTICK in names) for row in rows]
    tables = [compare_report.markdown(HEAD, body, 2)]
    if by_class := compare_report.class_cells(rows):
        tables.append(compare_report.markdown(*by_class, texts=1))
    return "\n".join([f"{compare_report.caption(found)}\n", *tables])


def _cells(row: Row, found: Comparison, minutes: dict[str, float], *, ratio: bool) -> list[str]:
    family = row.name.removesuffix(f"-{row.precision}")
    plain = next((one for one in found.rows if one.name == f"{family}-float32"), None)
    drop = 100 * (plain.score["miou"] - row.score["miou"]) if plain and plain.score and row.score else 0.0
    return [
        family,
        row.precision,
        compare_report.percent(row.score["miou"]) if row.score else "speed only",
        f"{drop:.2f}" if row.score and row.precision == "int8" else "",
        f"{row.median_ms:.1f}",
        f"{row.p90_ms:.1f}",
        f"{row.speed:.2f}" if ratio else "",
        f"{row.bytes / 1e6:.2f}",
        f"{row.macs / 1e9:.2f}",
        f"{100 * row.int8_share:.0f}",
        f"{minutes[family]:.1f}" if family in minutes else "",
    ]


def _runs(folder: Path) -> list[Path]:
    """Return the runs in a folder, the teacher first."""
    found = [path.parent for path in folder.glob(f"*/{RECIPE}") if path.parent.name != "latest"]
    return sorted(found, key=lambda path: (path.name != "teacher", path.name))


def _sized(run: Run, options: argparse.Namespace) -> Run:
    """Return the run with the input size of the comparison."""
    return replace(run, recipe=replace(run.recipe, height=options.height, width=options.width))


def _bundles(run: Run, data: DataSet, out: Path) -> Iterable[Path]:
    """Export a run's float and int8 bundles, where they are not there; an int8 that misses its budget is left out."""
    for precision, int8 in (("float32", None), ("int8", Int8(Budget(min_speedup=0.0)))):
        path = out / f"{run.path.name}-{precision}.bundle"
        try:
            if not _is_newer(path / MANIFEST, run.path / WEIGHTS):
                export(run, data, path, target=TARGET, int8=int8)
            yield path
        except ExportError as error:
            print(f"{path.name} is left out: {error}", flush=True)


def _peers(folder: Path, data: DataSet, out: Path) -> list[Path]:
    """Return the peers' files, float and int8; int8 is made of three training pictures where it is not there."""
    found = []
    for path in sorted(folder.glob("*.onnx")):
        small = out / f"{path.stem}-int8.xml"
        if not _is_newer(small, path):
            _quantise(external.load(path), data, small)
        found += [path, small]
    return found


def _quantise(peer: external.External, data: DataSet, out: Path) -> None:
    """Quantise a model for speed, and write it with its normalisation inside and an adapter beside it."""
    height, width = peer.adapter.size
    pictures = [_picture(data, index, peer) for index in range(PICTURES)]
    graph = peer.graph(None)
    attends = any(node.get_type_name() == "Softmax" for node in graph.get_ordered_ops())
    kind = nncf.ModelType.TRANSFORMER if attends and "segformer" in peer.path.stem else None
    dataset = nncf.Dataset(pictures, lambda picture: picture[None, None])
    small = nncf.quantize(graph, dataset, model_type=kind, subset_size=PICTURES)
    out.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(small, out, compress_to_fp16=False)
    durable.write_text(out.with_suffix(".toml"), ADAPTER.format(height=height, width=width))


def _picture(data: DataSet, index: int, peer: external.External) -> NDArray[np.uint8]:
    counts = data.read_image(data.split("train")[index])
    return thermal.fit(peer.adapter.agc.picture(counts, data.radiometry), *peer.adapter.size)


def _is_newer(path: Path, source: Path) -> bool:
    return path.is_file() and path.stat().st_mtime_ns > source.stat().st_mtime_ns


def _minutes(run: Path) -> float:
    """Return the minutes of training, without evaluation."""
    lines = [json.loads(line) for line in (run / log.METRICS).read_text().splitlines()]
    minutes: float = [line["seconds"] for line in lines if "loss" in line][-1] / 60
    return minutes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="a folder of runs a data set")
    parser.add_argument("--peers", type=Path, help="folder of benchmarks/peers.py")
    parser.add_argument("--height", type=int, default=480, help="of the input, pixels (default 480)")
    parser.add_argument("--width", type=int, default=640, help="of the input, pixels (default 640)")
    parser.add_argument("--threads", type=int, default=2, help="processor threads (default 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="roughly, of timing a model (default 10)")
    parser.add_argument("--out", type=Path, default=Path("runs/edge"), help="bundles and tables (default runs/edge)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
