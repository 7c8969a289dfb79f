"""From a bundle to the runtime that runs it."""

from __future__ import annotations

import importlib

from edgeunip.bundle import Bundle
from edgeunip.errors import InferenceError, missing_dependency, near
from edgeunip.protocols import Runtime

# The manifest's runtime, which is also its package and its extra, and the class that runs it.
RUNTIMES = {"openvino": "edgeunip.runtimes.openvino_cpu:OpenVinoRuntime"}


def open_runtime(bundle: Bundle, *, throughput: bool = False, threads: int | None = None) -> Runtime:
    """Load a bundle's model on this machine.

    Args:
        bundle: a bundle whose files have been checked, from :func:`edgeunip.bundle.load`.
        throughput: most frames a second, by several concurrent requests, instead of the shortest time for each.
        threads: processor threads to use; None lets the engine choose.

    Raises:
        InferenceError: this edgeunip has no such runtime, or the engine refuses the model.
        MissingDependencyError: the engine's package is not installed.
    """
    name = bundle.manifest.runtime
    if name not in RUNTIMES:
        raise InferenceError(f"No runtime {name!r} on this edgeunip", where=bundle.path, remedy=near(name, RUNTIMES))
    module, _, kind = RUNTIMES[name].partition(":")
    try:
        engine = getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        raise missing_dependency(error, name, name) from error
    runtime: Runtime = engine.from_bundle(bundle, throughput=throughput, threads=threads)
    return runtime
