"""The two forms a model travels in, OpenVINO's graph and ONNX: each can be run here, packed, asked its precisions."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx
import openvino

from edgeunip.bundle import Manifest
from edgeunip.protocols import Runtime
from edgeunip.runtimes.onnx_cpu import OnnxRuntime
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime

METADATA = "edgeunip"


class Form(Protocol):
    """A model as it is packed."""

    @property
    def layers(self) -> Mapping[str, str]:
        """Precision by layer with weights, in the graph's order."""
        ...

    def runtime(self, *, threads: int | None = None) -> Runtime:
        """Load it on this machine."""
        ...

    def files(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the bundle's model files; the manifest is without its table of files."""
        ...


@dataclass(frozen=True)
class OpenVinoForm:
    """OpenVINO IR.

    Attributes:
        model: the graph.
        layers: precision by layer.
        half: weights are stored in float16.
    """

    model: openvino.Model
    layers: Mapping[str, str]
    half: bool = False

    def runtime(self, *, threads: int | None = None) -> Runtime:
        """Compile it."""
        return OpenVinoRuntime(self.model, threads=threads)

    def files(self, manifest: Manifest) -> dict[str, bytes]:
        """Serialise the graph, by way of a scratch folder."""
        _name_alike(self.model)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.xml"
            openvino.save_model(self.model, path, compress_to_fp16=self.half)
            return {name: path.with_name(name).read_bytes() for name in ("model.xml", "model.bin")}


@dataclass(frozen=True)
class OnnxForm:
    """One ONNX file.

    Attributes:
        model: the graph.
        layers: precision by layer.
    """

    model: onnx.ModelProto
    layers: Mapping[str, str]

    def runtime(self, *, threads: int | None = None) -> Runtime:
        """Load it in ONNX Runtime."""
        return OnnxRuntime(serialise(self.model), threads=threads)

    def files(self, manifest: Manifest) -> dict[str, bytes]:
        """Return the file, with the manifest in its metadata for whoever finds it alone."""
        told = onnx.ModelProto()
        told.CopyFrom(self.model)
        content = {key: value for key, value in manifest.to_json().items() if key != "files"}
        onnx.helper.set_model_props(told, {METADATA: json.dumps(content, sort_keys=True)})
        return {"model.onnx": serialise(told)}


def _name_alike(model: openvino.Model) -> None:
    """Number the nodes that OpenVINO names by a counter of the process: the same run shall give the same bytes."""
    for index, node in enumerate(model.get_ordered_ops()):
        if re.fullmatch(r"[A-Za-z]+_\d+", node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")


def serialise(model: onnx.ModelProto) -> bytes:
    """Return a model's bytes, the same for the same model."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data
