"""``export``: a run to a bundle for one target, proven on real pictures before it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeunip import bundle, durable, thermal, trust
from edgeunip.bundle import Bundle, Golden, Manifest
from edgeunip.compress import calibration as calibrating
from edgeunip.compress import graph, parity, search
from edgeunip.compress.calibration import Calibration
from edgeunip.compress.forms import Form, OnnxForm, OpenVinoForm
from edgeunip.compress.half import to_float16
from edgeunip.compress.onnx_int8 import QdqQuantiser
from edgeunip.compress.openvino_int8 import NncfQuantiser
from edgeunip.compress.qdq.layers import find_layers
from edgeunip.compress.search import Budget, Found, Mode, Quantiser
from edgeunip.compress.targets import TARGETS, Target, has_byte_products
from edgeunip.errors import UsageError, near
from edgeunip.protocols import Runtime
from edgeunip.train.datasets import DataSet
from edgeunip.train.evaluate import Predict, Score, evaluate, evaluate_deployed
from edgeunip.train.loader import Pictures
from edgeunip.train.run import Run, TorchModel

GOLDEN_FRAMES = 4
# Another engine rounds int8 and float16 otherwise than the one that made the golden maps.
GOLDEN_AGREEMENT = {"openvino": 0.995, "onnxruntime": 0.995, "tensorrt": 0.98}
PACKAGES = ("openvino", "nncf", "onnx", "onnxruntime")

Say = Callable[[str], None]
OnMiss = Literal["fail", "float"]


@dataclass(frozen=True)
class Int8:
    """What is asked of int8.

    Attributes:
        budget: what it may cost and must bring.
        mode: ``fast`` takes the first variant within the budget, ``accurate`` the best of all.
        on_miss: without one, ``fail``, or export the float model.
        calibration: folder of images to calibrate on instead of the train split.
    """

    budget: Budget = field(default_factory=Budget)
    mode: Mode = "fast"
    on_miss: OnMiss = "fail"
    calibration: Path | None = None


def export(
    run: Run,
    data: DataSet,
    out: Path,
    *,
    target: str,
    int8: Int8 | None = None,
    sign: Path | None = None,
    say: Say = print,
) -> Bundle:
    """Turn a run into a bundle, and write beside it, as ``NAME.export.json``, what was tried and measured.

    Speeds stand in that file alone, so that the same run gives the same bundle, digest and all.

    Args:
        run: a finished training run.
        data: what it was trained on; val is scored, train calibrates.
        out: the bundle's folder.
        target: a key of ``TARGETS``.
        int8: quantise, under this budget.
        sign: a private key to sign the bundle with.
        say: told each stage.

    Raises:
        UsageError: unknown target, one without int8, or the run is nothing for a camera.
        ExportError: the exported graph does not do what the model does, or no int8 is within the budget.
        DataError: the data set or the calibration folder cannot be used.
        StorageError: the bundle cannot be written; an older one at ``out`` stays.
    """
    chosen = _target(target, int8)
    require_deployable(run)
    bundle.require_replaceable(out)
    work = _Work(run, data)
    say(f"Converting {run.path.name} for {target}: {chosen.runtime}, input {run.recipe.height}x{run.recipe.width}")
    exported = graph.to_onnx(run, work.model, opset=chosen.opset)
    engines = parity.check(work.torch, exported, work.golden_pictures())
    say("; ".join(f"{e.engine} agrees with torch on {100 * e.agreement:.2f} % of the pixels" for e in engines))
    made = _plain(chosen, exported, work, say)
    found = None
    if int8:
        calibration = _calibration(run, data, int8.calibration)
        say(f"Quantising to int8 on {len(calibration.pictures)} pictures ({calibration.source})")
        if chosen.is_here and not has_byte_products():
            say("This processor has no byte products (AVX-VNNI, AVX-512 VNNI or AMX): int8 may be no faster than float")
        found = _search(chosen, exported, made, calibration, int8, work, say)
        made = _chosen(made, found, calibration, int8, run, say)
    manifest = _manifest(run, target, made, int8)
    files = {**made.form.files(manifest), bundle.GOLDEN: work.golden(made.form.runtime()).to_bytes()}
    built = bundle.save(out, manifest, files)
    built = trust.sign(out, sign) if sign else built
    report = {"bundle": built.digest, "parity": [e.to_json() for e in engines], **(found.to_json() if found else {})}
    durable.write_json(out.with_name(f"{out.stem}.export.json"), report)
    return built


def require_deployable(run: Run) -> None:
    """Refuse a run that is nothing for a camera.

    Raises:
        UsageError: it is a probe, or was trained on colour images.
    """
    if run.recipe.head == "linear":
        why, remedy = "it is a linear probe, a measurement", "Train a model: edgeunip train --init ENCODER."
        raise UsageError("The run cannot be exported", where=run.path, why=why, remedy=remedy)
    if run.recipe.modality == "rgb":
        why = "it was trained on colour images, and bundles are for cameras of one channel"
        raise UsageError("The run cannot be exported", where=run.path, why=why)


@dataclass(frozen=True)
class _Made:
    """A form of the model, and what the manifest says of it."""

    form: Form
    precision: str
    accuracy: dict[str, Any]
    calibration: dict[str, Any] | None = None
    quantisation: dict[str, Any] | None = None


class _Work:
    """The run's model and the real pictures every stage is held to."""

    def __init__(self, run: Run, data: DataSet) -> None:
        self.run, self.model = run, run.model()
        self.torch = TorchModel(self.model, run.recipe)
        self.pictures = Pictures(data, data.split("val"), run.recipe.agc_parameters())

    def score(self, predict: Predict) -> dict[str, Any]:
        """Score a runtime as the metric does, and as a stream shows it."""
        found, shown = evaluate_deployed(predict, self.pictures, size=self.run.size)
        return {**_rounded(found), "miou_streamed": round(shown.miou, 6)}

    def golden_pictures(self) -> list[NDArray[np.uint8]]:
        """Return pictures of the model's input size, spread over the val split."""
        return [thermal.fit(self.pictures.read(index)[0], *self.run.size) for index in self._spread()]

    def golden(self, runtime: Runtime) -> Golden:
        """Pass real frames of one geometry through the very chain a device uses."""
        frames = [self.pictures.data.read_image(self.pictures.samples[index]) for index in self._spread()]
        alike = [frame for frame in frames if (frame.shape, frame.dtype) == (frames[0].shape, frames[0].dtype)]
        agc, run = self.run.recipe.agc_parameters(), self.run
        maps = [runtime(thermal.fit(agc.picture(frame, run.radiometry), *run.size)).argmax(0) for frame in alike]
        counts: thermal.Counts = np.stack(alike)  # type: ignore[assignment]  # all of one depth
        return Golden(counts, np.stack(maps).astype(np.uint8))

    def _spread(self) -> list[int]:
        count = len(self.pictures)
        return [int(index) for index in np.linspace(0, count - 1, min(GOLDEN_FRAMES, count))]


def _target(name: str, int8: Int8 | None) -> Target:
    if name not in TARGETS:
        raise UsageError("Unknown target", where=name, remedy=near(name, TARGETS))
    target = TARGETS[name]
    if int8 and target.int8 == "no":
        raise UsageError(f"{name} has no int8", why=target.note, remedy="Leave out --int8.")
    return target


def _plain(target: Target, exported: onnx.ModelProto, work: _Work, say: Say) -> _Made:
    """Make the form without int8, and score it and the model itself."""
    layers = {layer.name: target.plain for layer in find_layers(exported)}
    half = target.plain == "float16"
    if target.runtime == "openvino":
        form: Form = OpenVinoForm(graph.to_openvino(exported), layers, half=half)
    else:
        form = OnnxForm(to_float16(exported) if half else exported, layers)
    accuracy = {"torch": _rounded(evaluate(work.torch, work.pictures, size=work.run.size))}
    accuracy[target.plain] = work.score(form.runtime())
    torch, plain = (f"{100 * accuracy[name]['miou']:.2f} %" for name in ("torch", target.plain))
    say(f"val mIoU: torch {torch}, exported {target.plain} {plain}")
    return _Made(form, target.plain, accuracy)


def _calibration(run: Run, data: DataSet, folder: Path | None) -> Calibration:
    return calibrating.from_folder(run, folder) if folder else calibrating.from_training_split(run, data)


def _search(
    target: Target,
    exported: onnx.ModelProto,
    plain: _Made,
    calibration: Calibration,
    asked: Int8,
    work: _Work,
    say: Say,
) -> Found:
    qdq = QdqQuantiser(exported, calibration, half=target.plain == "float16")
    quantiser: Quantiser = qdq
    if target.int8 == "nncf":
        quantiser = NncfQuantiser(lambda: graph.to_openvino(exported), calibration, qdq.cost_by_layer)
    return search.search(
        quantiser,
        plain.form,
        plain.accuracy[plain.precision],
        work.score,
        calibration.pictures,
        budget=asked.budget,
        mode=asked.mode,
        timed=target.is_here,
        say=say,
    )


def _chosen(plain: _Made, found: Found, calibration: Calibration, asked: Int8, run: Run, say: Say) -> _Made:
    """Return the int8 form, or the float one where the user would have that.

    Raises:
        ExportError: no int8 is within the budget, and the user would have nothing else.
    """
    if asked.on_miss == "fail":
        search.require(found, asked.budget, run.path)
    if found.form is None or found.chosen is None:
        say(f"No int8 within the budget: exporting {plain.precision}{search.costliest(found)}")
        return plain
    quantisation = {
        "method": found.method,
        "variant": found.chosen.variant.to_json(),
        "max_drop": asked.budget.max_drop,
        "drop": round(found.chosen.drop, 4),
        "layers": dict(found.form.layers),
    }
    accuracy = {**plain.accuracy, "int8": found.chosen.accuracy}
    return _Made(found.form, "int8", accuracy, calibration.to_json(), quantisation)


def _manifest(run: Run, name: str, made: _Made, asked: Int8 | None) -> Manifest:
    target, held = TARGETS[name], "not asked for"
    if asked:
        held = f"{asked.budget.min_speedup:g} times float's, held where it was exported"
        held = held if target.is_here else "int8 against float: left to the device"
    return Manifest(
        name=run.path.name,
        target=name,
        runtime=target.runtime,
        precision=made.precision,
        capability=target.capability(speed=held),
        height=run.recipe.height,
        width=run.recipe.width,
        agc=run.recipe.agc_parameters(),
        mean=run.recipe.mean,
        std=run.recipe.std,
        classes=run.classes,
        radiometry=run.radiometry,
        accuracy={"split": "val", **made.accuracy},
        calibration=made.calibration,
        quantisation=made.quantisation,
        golden_agreement=GOLDEN_AGREEMENT[target.runtime],
        provenance={
            **run.provenance,
            "recipe": run.recipe.to_toml(),
            "exporters": {package: metadata.version(package) for package in PACKAGES},
        },
    )


def _rounded(score: Score) -> dict[str, Any]:
    iou = {name: None if value is None else round(value, 6) for name, value in score.iou.items()}
    return {"miou": round(score.miou, 6), "iou": iou, "accuracy": round(score.accuracy, 6), "images": score.images}
