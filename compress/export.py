"""``export``: a run to a bundle for one target, proven on real pictures before it is written."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from edgeunip import bundle, thermal
from edgeunip.bundle import Bundle, Golden, Manifest
from edgeunip.compress import graph, quantise
from edgeunip.errors import ExportError, UsageError, near
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime
from edgeunip.train.datasets import DataSet
from edgeunip.train.evaluate import Predict, Score, evaluate, evaluate_streamed
from edgeunip.train.loader import Pictures
from edgeunip.train.run import Run, TorchModel

TARGETS = {"x86-cpu": "openvino"}
GOLDEN_FRAMES = 4
GOLDEN_AGREEMENT = 0.995
PARITY = 0.999

Say = Callable[[str], None]


def export(
    run: Run,
    data: DataSet,
    out: Path,
    *,
    target: str,
    int8: bool = False,
    calibration: Path | None = None,
    say: Say = print,
) -> Bundle:
    """Turn a run into a bundle.

    Args:
        run: a finished training run.
        data: what it was trained on; val is scored, train calibrates.
        out: the bundle's folder.
        target: a key of ``TARGETS``.
        int8: quantise.
        calibration: folder of images to calibrate on instead of the train split.
        say: told each stage.

    Raises:
        UsageError: unknown target, or the run is nothing for a camera: a linear probe, or trained on colour images.
        ExportError: the exported graph does not do what the model does.
        DataError: the data set or the calibration folder cannot be used.
        StorageError: the bundle cannot be written; an older one at ``out`` stays.
    """
    if target not in TARGETS:
        raise UsageError("Unknown target", where=target, remedy=near(target, TARGETS))
    _require_deployable(run)
    model = run.model()
    pictures = Pictures(data, data.split("val"), run.recipe.agc_parameters())
    say(f"Converting {run.path.name} to {TARGETS[target]}, input {run.recipe.height}x{run.recipe.width}")
    exported = graph.to_openvino(run, model)
    accuracy = {"torch": _score(TorchModel(model, run.recipe), pictures, run.size)}
    accuracy["float32"] = _scored(exported, pictures, run.size)
    say(f"val mIoU: torch {_percent(accuracy['torch'])}, exported float32 {_percent(accuracy['float32'])}")
    _check_parity(TorchModel(model, run.recipe), exported, pictures, run.size)
    facts = None
    if int8:
        chosen = quantise.from_folder(run, calibration) if calibration else quantise.from_training_split(run, data)
        say(f"Quantising to int8 on {len(chosen.pictures)} pictures ({chosen.source})")
        exported, facts = quantise.int8(exported, chosen), chosen.to_json()
        accuracy["int8"] = _scored(exported, pictures, run.size)
        say(f"val mIoU: int8 {_percent(accuracy['int8'])}")
    manifest = _manifest(run, target, "int8" if int8 else "float32", accuracy, facts)
    files = {**_files(exported), bundle.GOLDEN: _golden(exported, run, pictures).to_bytes()}
    return bundle.save(out, manifest, files)


def _require_deployable(run: Run) -> None:
    if run.recipe.head == "linear":
        why, remedy = "it is a linear probe, a measurement", "Train a model: edgeunip train --init ENCODER."
        raise UsageError("The run cannot be exported", where=run.path, why=why, remedy=remedy)
    if run.recipe.modality == "rgb":
        why = "it was trained on colour images, and bundles are for cameras of one channel"
        raise UsageError("The run cannot be exported", where=run.path, why=why)


def _manifest(
    run: Run, target: str, precision: str, accuracy: dict[str, Any], calibration: dict[str, Any] | None
) -> Manifest:
    return Manifest(
        name=run.path.name,
        target=target,
        runtime=TARGETS[target],
        precision=precision,
        height=run.recipe.height,
        width=run.recipe.width,
        agc=run.recipe.agc_parameters(),
        mean=run.recipe.mean,
        std=run.recipe.std,
        classes=run.classes,
        radiometry=run.radiometry,
        accuracy={"split": "val", **accuracy},
        calibration=calibration,
        golden_agreement=GOLDEN_AGREEMENT,
        provenance={**run.provenance, "recipe": run.recipe.to_toml(), "openvino": openvino.__version__},
    )


def _score(predict: Predict, pictures: Pictures, size: tuple[int, int]) -> dict[str, Any]:
    return _rounded(evaluate(predict, pictures, size=size))


def _scored(exported: openvino.Model, pictures: Pictures, size: tuple[int, int]) -> dict[str, Any]:
    """Score an exported graph as the metric does, and as a stream shows it."""
    runtime = OpenVinoRuntime(exported)
    shown = evaluate_streamed(runtime, pictures, size=size)
    return {**_score(runtime, pictures, size), "miou_streamed": round(shown.miou, 6)}


def _rounded(score: Score) -> dict[str, Any]:
    iou = {name: None if value is None else round(value, 6) for name, value in score.iou.items()}
    return {"miou": round(score.miou, 6), "iou": iou, "accuracy": round(score.accuracy, 6), "images": score.images}


def _percent(accuracy: dict[str, Any]) -> str:
    return f"{100 * accuracy['miou']:.2f} %"


def _check_parity(predict: Predict, exported: openvino.Model, pictures: Pictures, size: tuple[int, int]) -> None:
    """Hold the exported graph to the model's own class maps.

    Raises:
        ExportError: they agree on less than 99.9 % of the pixels.
    """
    runtime = OpenVinoRuntime(exported)
    frames = [thermal.fit(pictures.read(index)[0], *size) for index in _golden_indices(pictures)]
    agreement = np.mean([predict(frame).argmax(0) == runtime(frame).argmax(0) for frame in frames])
    if agreement < PARITY:
        raise ExportError(
            f"The exported graph agrees with the model on {100 * agreement:.2f} % of the pixels, less than 99.9 %",
            remedy="This is a fault of the conversion, please report it with the versions in provenance.json.",
        )


def _golden(exported: openvino.Model, run: Run, pictures: Pictures) -> Golden:
    """Pass real frames of one geometry through the very chain a device uses."""
    frames = [pictures.data.read_image(pictures.samples[index]) for index in _golden_indices(pictures)]
    alike = [frame for frame in frames if (frame.shape, frame.dtype) == (frames[0].shape, frames[0].dtype)]
    runtime, agc = OpenVinoRuntime(exported), run.recipe.agc_parameters()
    maps = [runtime(thermal.fit(agc.picture(frame, run.radiometry), *run.size)).argmax(0) for frame in alike]
    counts: thermal.Counts = np.stack(alike)  # type: ignore[assignment]  # all of one depth
    return Golden(counts, np.stack(maps).astype(np.uint8))


def _golden_indices(pictures: Pictures) -> list[int]:
    """Pick samples spread over the set."""
    return [int(index) for index in np.linspace(0, len(pictures) - 1, min(GOLDEN_FRAMES, len(pictures)))]


def _name_alike(exported: openvino.Model) -> None:
    """Number the nodes that OpenVINO names by a counter of the process: the same run shall give the same bytes."""
    exported.set_friendly_name("edgeunip")
    for index, node in enumerate(exported.get_ordered_ops()):
        if re.fullmatch(r"[A-Za-z]+_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")


def _files(exported: openvino.Model) -> dict[str, bytes]:
    """Serialise a graph to the two files of OpenVINO IR, by way of a scratch folder."""
    _name_alike(exported)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.xml"
        openvino.save_model(exported, path, compress_to_fp16=False)
        return {name: path.with_name(name).read_bytes() for name in ("model.xml", "model.bin")}
