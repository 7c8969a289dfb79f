"""ONNX Runtime on the processor: runs a bundle's ``model.onnx`` anywhere, for which other engines are faster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state
from typing_extensions import Self

from edgeunip.bundle import Bundle
from edgeunip.errors import InferenceError
from edgeunip.runtimes.contract import require_picture, require_promised, shapes

MODEL = "model.onnx"

# ONNX Runtime has a class of its own for each kind of failure, and no common base but Exception.
_OWN = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
_FAILURES: tuple[type[Exception], ...] = (RuntimeError, ValueError, *_OWN)


class OnnxRuntime:
    """An :class:`edgeunip.protocols.Runtime`: one session, which several threads may call at once."""

    def __init__(self, model: bytes | Path, *, throughput: bool = False, threads: int | None = None) -> None:
        """Load ``model``.

        Args:
            model: takes uint8 [1, 1, H, W], gives float32 [1, classes, h, w]; a file or its content.
            throughput: two concurrent calls, which share the threads, instead of the shortest time for each.
            threads: processor threads to use; None leaves it to ONNX Runtime.

        Raises:
            InferenceError: ONNX Runtime cannot read it, or its shapes are others.
        """
        where = model if isinstance(model, Path) else "model.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            content = model if isinstance(model, bytes) else model.read_bytes()
            self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _FAILURES as error:
            raise InferenceError("ONNX Runtime cannot load the model", where=where, why=_first_line(error)) from error
        self.name = f"onnxruntime {ort.__version__} CPU"
        self.concurrency = 2 if throughput else 1
        self.input_shape, self.output_shape = _shapes(self._session, where)
        self._input = self._session.get_inputs()[0].name

    @classmethod
    def from_bundle(cls, bundle: Bundle, *, throughput: bool = False, threads: int | None = None) -> Self:
        """Load ``model.onnx`` of a bundle whose files have been checked, and hold it to the manifest's shapes."""
        runtime = cls(bundle.path / MODEL, throughput=throughput, threads=threads)
        require_promised((runtime.input_shape, runtime.output_shape), bundle)
        return runtime

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Segment one picture (H, W), uint8; returns logits (classes, h, w), float32, the caller's own.

        Raises:
            InferenceError: the shape or type does not fit, or ONNX Runtime failed.
        """
        require_picture(picture, self.input_shape)
        try:
            (logits,) = self._session.run(None, {self._input: picture[None, None]})
        except _FAILURES as error:
            raise InferenceError("ONNX Runtime failed", why=_first_line(error)) from error
        result: NDArray[np.float32] = logits[0]
        return result

    def close(self) -> None:
        """Nothing is held that the session does not free itself. May be called twice."""


def _shapes(session: ort.InferenceSession, where: object) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """Return ((H, W), (classes, h, w)) of a model of one uint8 input and one float32 output."""
    ports = [*session.get_inputs(), *session.get_outputs()]
    types = [port.type for port in ports]
    if types != ["tensor(uint8)", "tensor(float)"] or not all(isinstance(n, int) for p in ports for n in p.shape):
        raise InferenceError("The model must have one fixed uint8 input and one float32 output", where=where, why=types)
    source, logits = (tuple(port.shape) for port in ports)
    return shapes(source, logits, where)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
