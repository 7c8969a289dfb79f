"""From a bundle to the runtime that runs it."""

from __future__ import annotations

import importlib
from typing import Any

from edgeunip import trust
from edgeunip.bundle import Bundle
from edgeunip.errors import InferenceError, missing_dependency, near
from edgeunip.protocols import Runtime

# The manifest's runtime, which is also its package and its extra, and the class that runs it.
RUNTIMES = {
    "openvino": "edgeunip.runtimes.openvino_cpu:OpenVinoRuntime",
    "onnxruntime": "edgeunip.runtimes.onnx_cpu:OnnxRuntime",
}
STAND_IN, STAND_IN_FILE = "onnxruntime", "model.onnx"


def open_runtime(bundle: Bundle, *, throughput: bool = False, threads: int | None = None) -> Runtime:
    """Load a bundle's model on this machine, if this device's trust admits it.

    Args:
        bundle: a bundle whose files have been checked, from :func:`edgeunip.bundle.load`.
        throughput: most frames a second, by several concurrent requests, instead of the shortest time for each.
        threads: processor threads to use; None lets the engine choose.

    Raises:
        SignatureError: the bundle's signature is bad, or this device asks for one: :func:`edgeunip.trust.admit`.
        InferenceError: this edgeunip has no such runtime, or the engine refuses the model.
        MissingDependencyError: the engine's package is not installed.
    """
    trust.admit(bundle)
    return _load(bundle, bundle.manifest.runtime, throughput=throughput, threads=threads)


def open_to_judge(bundle: Bundle) -> Runtime:
    """Load a bundle's model to check or score it; one for an engine that is not at hand, by ONNX Runtime.

    It runs any ``model.onnx``, slowly; its ``name`` says whom it stands in for.

    Raises:
        as :func:`open_runtime`.
    """
    trust.admit(bundle)
    name = bundle.manifest.runtime
    if name in RUNTIMES or STAND_IN_FILE not in bundle.manifest.files:
        return _load(bundle, name)
    runtime = _load(bundle, STAND_IN)
    runtime.name += f", in place of {name}"
    return runtime


def _load(bundle: Bundle, name: str, **options: Any) -> Runtime:
    if name not in RUNTIMES:
        raise InferenceError(
            f"The bundle is for {bundle.manifest.target}: this edgeunip has no runtime {name!r}",
            where=bundle.path,
            remedy=f"Export the run for this machine. {near(name, RUNTIMES)}",
        )
    module, _, kind = RUNTIMES[name].partition(":")
    try:
        engine = getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        raise missing_dependency(error, name, name) from error
    runtime: Runtime = engine.from_bundle(bundle, **options)
    return runtime
