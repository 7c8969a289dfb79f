"""OpenVINO on the processor."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from typing_extensions import Self

from edgeunip.bundle import Bundle
from edgeunip.errors import InferenceError
from edgeunip.runtimes.contract import require_picture, require_promised, shapes


class OpenVinoRuntime:
    """An :class:`edgeunip.protocols.Runtime`: one compiled model and a pool of its inference requests.

    The model is compiled anew each time: a cache would be one more file that can go stale or be tampered with, and
    compiling takes about a second.
    """

    def __init__(self, model: ov.Model | Path, *, throughput: bool = False, threads: int | None = None) -> None:
        """Compile ``model``, or the one in a ``model.xml`` file with its ``model.bin`` beside it.

        Args:
            model: takes uint8 [1, 1, H, W], gives float32 [1, classes, h, w].
            throughput: several concurrent requests instead of the shortest time for each.
            threads: processor threads to use; None leaves it to OpenVINO.

        Raises:
            InferenceError: OpenVINO cannot read or compile it, or its shapes are others.
        """
        where = model if isinstance(model, Path) else model.friendly_name
        try:
            core = ov.Core()
            compiled = core.compile_model(model, "CPU", properties(throughput=throughput, threads=threads))
            self.concurrency = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if throughput else 1
            requests = [compiled.create_infer_request() for _ in range(self.concurrency)]
        except RuntimeError as error:
            raise InferenceError("OpenVINO cannot load the model", where=where, why=_first_line(error)) from error
        self.name = f"openvino {ov.__version__.split('-')[0]} CPU"
        self.input_shape, self.output_shape = _shapes(compiled, where)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for request in requests:
            self._requests.put(request)
        # Two threads that make OpenVINO's binding meet numpy for the first time may wait for each other for ever, the
        # interpreter's lock in their hands. One thread makes it here.
        self(np.zeros(self.input_shape, np.uint8))

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, throughput: bool = False, threads: int | None = None) -> Self:
        """Load ``model.xml`` of a bundle whose files have been checked, and hold it to the manifest's shapes."""
        runtime = cls(bundle.path / "model.xml", throughput=throughput, threads=threads)
        require_promised((runtime.input_shape, runtime.output_shape), bundle)
        return runtime

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Segment one picture (H, W), uint8; returns logits (classes, h, w), float32, the caller's own copy.

        Up to ``concurrency`` threads may call it at once; one more waits for a free request.

        Raises:
            InferenceError: the shape or type does not fit, or OpenVINO failed.
        """
        require_picture(picture, self.input_shape)
        request = self._requests.get()
        try:
            request.infer([picture[None, None]], share_inputs=True)
            logits = np.array(request.get_output_tensor(0).data[0], np.float32)
        except RuntimeError as error:
            raise InferenceError("OpenVINO failed", why=_first_line(error)) from error
        finally:
            self._requests.put(request)
        return logits

    def close(self) -> None:
        """Free the requests. No call may be running. May be called twice."""
        while not self._requests.empty():
            self._requests.get()


def properties(*, throughput: bool = False, threads: int | None = None) -> dict[str, Any]:
    """Return what a model is compiled with: one request at a time at its shortest, or ``throughput``."""
    chosen: dict[str, Any] = {
        "PERFORMANCE_HINT": "THROUGHPUT" if throughput else "LATENCY",
        # Without it some processors run bfloat16, which is slower where AMX is missing and differs from the golden map.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return chosen if threads is None else {**chosen, "INFERENCE_NUM_THREADS": threads}


def _shapes(compiled: Any, where: object) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Return ((H, W), (classes, h, w)) of a model of one uint8 input and one float32 output."""
    ports = (*compiled.inputs, *compiled.outputs)
    types = [port.element_type.get_type_name() for port in ports]
    if types != ["u8", "f32"] or any(port.partial_shape.is_dynamic for port in ports):
        raise InferenceError("The model must have one fixed uint8 input and one float32 output", where=where, why=types)
    source, logits = (tuple(int(side) for side in port.shape) for port in ports)
    return shapes(source, logits, where)


def _first_line(error: Exception) -> str:
    """OpenVINO tells its source file first and the reason last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
