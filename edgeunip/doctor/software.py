"""What is installed: packages, engines, the newest bundle.

Engines are asked in a process of their own, since a broken library may take its process with it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator

from edgeunip import __version__, machine
from edgeunip.doctor.finding import Finding, Place, ask, bad, ok, warn

_PROBE_S = 60.0  # for an engine to tell its devices; the first start on a slow disk takes long
_NEEDED = ("numpy", "av", "typer", "starlette", "uvicorn", "prometheus-client")
_OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
_OPTIONAL = (("paho-mqtt", "mqtt", "no MQTT results"), ("cryptography", "sign", "no signed bundles"))
_PROBES = {
    "openvino": "import openvino as v; core = v.Core(); print(v.__version__.split('-')[0], "
    "*(d + ' ' + core.get_property(d, 'FULL_DEVICE_NAME') for d in core.available_devices), sep='; ')",
    "onnxruntime": "import onnxruntime as v; print(v.__version__, *v.get_available_providers(), sep='; ')",
    "tensorrt": "import tensorrt as v; print(v.__version__)",
    "pycuda": "import pycuda, pycuda.driver as d; d.init(); "
    "print(pycuda.VERSION_TEXT, *(d.Device(i).name() for i in range(d.Device.count())), sep='; ')",
}


def packages(place: Place) -> Iterator[Finding]:
    """Look at Python and what a stream needs of its packages."""
    yield ok(f"edgeunip {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}")
    opencv = next((name for name in _OPENCV if _version(name)), _OPENCV[0])
    versions = {name: _version(name) for name in (*_NEEDED, opencv)}
    if opencv != _OPENCV[0] or importlib.util.find_spec("cv2"):
        versions[opencv] = versions[opencv] or "of the system"
    yield ok(", ".join(f"{name} {version}" for name, version in versions.items() if version))
    for name in (name for name, version in versions.items() if version is None):
        yield bad(f"{name} is not installed", f"Run: pip install {name}")
    for name, extra, lack in _OPTIONAL:
        if _version(name) is None:
            yield warn(f"{name} is not installed: {lack}", f"Run: pip install 'edgeunip[{extra}]'")


def engines(place: Place) -> Iterator[Finding]:
    """Ask every engine that is installed what it can run on."""
    present = [name for name in _PROBES if _is_installed(name)]
    yield from (_engine(name) for name in present)
    if "tensorrt" in present and "pycuda" not in present:
        yield warn("TensorRT cannot run without pycuda", "Run: pip install 'edgeunip[tensorrt]'")
    if machine.jetson(place.root) and "tensorrt" not in present:
        yield warn("a Jetson without TensorRT", "Install JetPack's packages: sudo apt install nvidia-jetpack")
    if not present:
        remedy = "Run: pip install 'edgeunip[openvino]'; on a Jetson take TensorRT from JetPack."
        yield bad("no engine is installed: nothing can run a model here", remedy)


def newest_bundle(place: Place) -> Iterator[Finding]:
    """Look at the bundle that a stream would take."""
    from edgeunip import bundle, trust  # here, since without numpy this page must still come

    folder = place.folder / "bundles"
    if not folder.is_dir() or not any(folder.iterdir()):
        yield warn(f"none in {folder}", "Export one: edgeunip export; or unpack one: edgeunip unpack.")
        return
    loaded = bundle.load(bundle.newest(folder))
    manifest = loaded.manifest
    yield ok(f"{loaded.path} is sound: {manifest.name}, {manifest.width}x{manifest.height}, {manifest.precision}")
    yield _fits(manifest.target, str(manifest.capability.get("machine", "any")), manifest.runtime)
    state = trust.inspect(manifest, loaded.signature())
    refused = trust.is_required() and state.standing is not trust.Standing.VALID
    if refused or state.standing is trust.Standing.BAD:
        yield bad(
            f"this device will not run it: {state}", "Get it signed, or trust its key: edgeunip trust add KEY.pub"
        )
    else:
        yield ok(str(state))


def _fits(target: str, wanted: str, runtime: str) -> Finding:
    here = platform.machine()
    if wanted not in ("any", here):
        return bad(f"it is for {target} ({wanted}), and this machine is {here}", "Export the run for this machine.")
    if not _is_installed(runtime):
        return bad(f"it needs {runtime}, which is not installed", f"Run: pip install 'edgeunip[{runtime}]'")
    return ok(f"it is for {target}, and {runtime} is installed")


def _engine(name: str) -> Finding:
    probe = f"import edgeunip; {_PROBES[name]}"  # which keeps OpenVINO from reporting to its maker
    code, out, errors = ask([sys.executable, "-c", probe], limit_s=_PROBE_S)
    if code == 0 and out.strip():
        return ok(f"{name} {out.strip().splitlines()[-1]}")
    why = "it took too long" if code is None else (errors.strip().splitlines() or [f"it ended with {code}"])[-1]
    return warn(f"{name} is installed and does not work: {why}", f"Install {name} again, or remove it.")


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
