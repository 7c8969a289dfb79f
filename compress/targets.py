"""What a bundle can be exported for, and what each of them can do."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Precision = Literal["float32", "float16", "int8"]


@dataclass(frozen=True)
class Target:
    """A kind of device.

    Attributes:
        runtime: what runs the bundle, the manifest's ``runtime``.
        machine: ``platform.machine()`` of it; empty where any will do.
        opset: of the ONNX graph it starts from.
        plain: the precision without ``--int8``.
        int8: how int8 is made for it: NNCF on the OpenVINO graph, Q/DQ in the ONNX file, or not at all.
        note: what a user must know of it.
    """

    runtime: str
    machine: str
    opset: int
    plain: Precision
    int8: Literal["nncf", "qdq", "no"]
    note: str

    @property
    def is_here(self) -> bool:
        """Whether this machine is one, so that its speed can be measured now."""
        return self.runtime == "openvino" and platform.machine() == self.machine

    def capability(self, *, speed: str) -> dict[str, Any]:
        """Return what the manifest says of the target; ``speed``: where int8's gain was held to its bound."""
        precisions = [self.plain, *(["int8"] if self.int8 != "no" else [])]
        return {"precisions": precisions, "machine": self.machine or "any", "note": self.note, "speed": speed}


TARGETS = {
    "onnx": Target("onnxruntime", "", 17, "float32", "qdq", "Any ONNX engine; ONNX Runtime's int8 is slow on CPUs."),
    "x86-cpu": Target("openvino", "x86_64", 17, "float32", "nncf", "int8 pays most with AVX-512 VNNI or AMX."),
    "arm-cpu": Target("openvino", "aarch64", 17, "float16", "no", "OpenVINO runs float16; int8 would gain nothing."),
    "jetson-orin": Target(
        "tensorrt", "aarch64", 19, "float16", "qdq",
        "TensorRT 10.3 (JetPack 6) or later, strongly typed: precisions are those of the file. "
        "The engine is built on the device. Not yet run on one.",
    ),
    "jetson-xavier": Target(
        "tensorrt", "aarch64", 16, "float32", "no",
        "TensorRT 8.5 (JetPack 5) has no strongly typed networks and no LayerNormalization: the norm is spelled out, "
        "and float16 is the builder's choice. Not yet run on one.",
    ),
}  # fmt: skip


def has_byte_products() -> bool:
    """Tell whether this processor multiplies bytes faster than floats, from what Linux says of it."""
    words = set(Path("/proc/cpuinfo").read_text().split())
    return not words.isdisjoint({"avx_vnni", "avx512_vnni", "amx_int8"})
