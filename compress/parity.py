"""Does the exported graph compute what the model does? torch, ONNX Runtime and OpenVINO on the same real pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgeunip.compress import graph
from edgeunip.compress.forms import serialise
from edgeunip.errors import ExportError
from edgeunip.runtimes.onnx_cpu import OnnxRuntime
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime
from edgeunip.train.evaluate import Predict

AGREEMENT = 0.999  # of the pixels' classes
DIFFERENCE = 0.01  # of a logit, as a share of the largest


@dataclass(frozen=True)
class Parity:
    """How far an engine is from the model.

    Attributes:
        engine: its name.
        agreement: share of pixels, 0..1, of the same class; the smallest over the pictures.
        difference: largest difference of a logit, as a share of the largest logit.
    """

    engine: str
    agreement: float
    difference: float

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def check(predict: Predict, exported: onnx.ModelProto, pictures: Sequence[NDArray[np.uint8]]) -> list[Parity]:
    """Hold the exported float graph to the model's own logits and class maps, on both engines.

    Raises:
        ExportError: on one of them it is another model.
    """
    wanted = [predict(picture) for picture in pictures]
    engines: dict[str, Predict] = {
        "onnxruntime": OnnxRuntime(serialise(exported)),
        "openvino": OpenVinoRuntime(graph.to_openvino(exported)),
    }
    found = [compare(name, wanted, [engine(picture) for picture in pictures]) for name, engine in engines.items()]
    for parity in found:
        if parity.agreement < AGREEMENT or parity.difference > DIFFERENCE:
            raise ExportError(
                f"The exported graph is not the model on {parity.engine}: "
                f"{100 * parity.agreement:.2f} % of the pixels agree, less than {100 * AGREEMENT:g} %, "
                f"or a logit differs by {100 * parity.difference:.2f} %, more than {100 * DIFFERENCE:g} %",
                remedy=graph.FAULT,
            )
    return found


def compare(engine: str, wanted: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]) -> Parity:
    """Measure one engine's logits, [classes, h, w] each, against those that are wanted."""
    pairs = list(zip(wanted, found, strict=True))
    agreement = min(float(np.mean(a.argmax(0) == b.argmax(0))) for a, b in pairs)
    difference = max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)
    return Parity(engine, agreement, difference)
