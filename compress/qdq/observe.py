"""One pass of real pictures through a graph in ONNX Runtime; tensors are looked at and let go, picture by picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgeunip.compress.qdq.ranges import Histogram
from edgeunip.errors import DataError, ExportError

Pictures = Sequence[NDArray[np.uint8]]
ERRORS = 3  # ONNX Runtime's level of logging above warnings


def open_session(model: ModelProto, *, fused: bool = False) -> onnxruntime.InferenceSession:
    """Open a graph in ONNX Runtime on the CPU.

    Args:
        model: the graph.
        fused: turn Q/DQ into integer kernels; without, they round as written and the products stay float.
    """
    options = onnxruntime.SessionOptions()
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(wanted) if wanted.isdecimal() else 0  # 0: one a core
    options.log_severity_level = ERRORS
    options.add_session_config_entry("session.disable_quant_qdq", "0" if fused else "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def logits(model: ModelProto, pictures: Pictures, *, fused: bool = False) -> Iterator[NDArray[np.float32]]:
    """Yield the logits [1, classes, h, w] of each picture."""
    session = open_session(model, fused=fused)
    for picture in pictures:
        yield session.run(None, _feed(session, picture))[0]


def watch(
    model: ModelProto, pictures: Pictures, tensors: Sequence[str], look: Callable[[str, NDArray[np.float32]], None]
) -> None:
    """Show every picture's value of some tensors to ``look``; one picture's tensors are in memory at a time.

    Raises:
        DataError: there is no picture, or one is not of the input's size.
    """
    if not len(pictures):
        raise DataError("There are no pictures to calibrate on")
    session = open_session(_with_outputs(model, tensors))
    for picture in pictures:
        for name, value in zip(tensors, session.run(list(tensors), _feed(session, picture)), strict=True):
            look(name, value)


def histograms(model: ModelProto, pictures: Pictures, tensors: Sequence[str]) -> dict[str, Histogram]:
    """Count |x| of some tensors over all pictures.

    Raises:
        ExportError: a tensor has a value that is not finite.
    """
    found = {name: Histogram() for name in tensors}

    def count(name: str, value: NDArray[np.float32]) -> None:
        try:
            found[name].add(value)
        except ValueError as error:
            raise ExportError("The model computes values that are not finite", where=name) from error

    watch(model, pictures, tensors, count)
    return found


def channel_peaks(model: ModelProto, pictures: Pictures, tensors: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Return the largest |x| of each channel, float32 [channels]; channels are the last axis."""
    found: dict[str, NDArray[np.float32]] = {}

    def largest(name: str, value: NDArray[np.float32]) -> None:
        peaks = np.abs(value).reshape(-1, value.shape[-1]).max(0)
        found[name] = np.maximum(found[name], peaks) if name in found else peaks

    watch(model, pictures, tensors, largest)
    return found


def _feed(session: onnxruntime.InferenceSession, picture: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    expected = session.get_inputs()[0]
    if [1, 1, *picture.shape] != expected.shape or picture.dtype != np.uint8:
        why = f"{picture.dtype} {list(picture.shape)}, the model takes uint8 {expected.shape[2:]}"
        raise DataError("A picture does not fit the model", why=why)
    return {expected.name: picture[None, None]}


def _with_outputs(model: ModelProto, tensors: Sequence[str]) -> ModelProto:
    opened = ModelProto()
    opened.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    extra = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors if name not in known]
    opened.graph.output.extend(extra)
    return opened
