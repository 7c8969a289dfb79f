import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from tiny_runtime import CENTRES, CLASSES, HEIGHT, WIDTH, tiny_manifest, tiny_model

from edgeunip.bundle import Bundle
from edgeunip.errors import InferenceError, MissingDependencyError
from edgeunip.runtimes.open import open_runtime
from edgeunip.runtimes.openvino_cpu import OpenVinoRuntime

MODULES = (
    *("edgeunip.runtimes", "edgeunip.runtimes.open", "edgeunip.runtimes.openvino_cpu", "edgeunip.runtimes.segment"),
    *("edgeunip.runtimes.overlay", "edgeunip.runtimes.handover", "edgeunip.runtimes.outlet"),
    *("edgeunip.runtimes.stream", "edgeunip.runtimes.sinks", "edgeunip.runtimes.video", "edgeunip.runtimes.jsonl"),
    *("edgeunip.runtimes.verify", "edgeunip.runtimes.bench"),
)


def pictures(number):
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8) for _ in range(number)]


def expected(picture):
    mean = picture.astype(np.float32).reshape(HEIGHT // 4, 4, WIDTH // 4, 4).mean((1, 3))
    return -np.abs(mean[None] - np.array(CENTRES, np.float32)[:, None, None])


def test_logits_are_the_models_and_the_callers_own(runtime):
    first, second = pictures(2)
    one = runtime(first)
    kept = one.copy()
    runtime(second)
    assert one.dtype == np.float32
    assert one.shape == (4, HEIGHT // 4, WIDTH // 4)
    np.testing.assert_allclose(one, expected(first), atol=1e-3)
    assert np.array_equal(one, kept)
    assert one.flags.owndata


def test_a_picture_that_is_no_contiguous_block(runtime):
    picture = pictures(1)[0]
    assert np.array_equal(runtime(np.asfortranarray(picture)), runtime(picture))


def test_the_first_call_is_made_before_threads_can_make_it_together(tiny, monkeypatch):
    """Two of them may wait for each other for ever inside OpenVINO's binding."""
    calls, call = [], OpenVinoRuntime.__call__

    def counted(self, picture):
        calls.append(threading.current_thread())
        return call(self, picture)

    monkeypatch.setattr(OpenVinoRuntime, "__call__", counted)
    OpenVinoRuntime.from_bundle(tiny, throughput=True).close()
    assert calls == [threading.current_thread()]


def test_concurrent_calls_do_not_mix(tiny):
    runtime = open_runtime(tiny, throughput=True, threads=2)
    assert runtime.concurrency >= 1
    asked = pictures(64)
    with ThreadPoolExecutor(runtime.concurrency + 2) as pool:
        for picture, logits in zip(asked, pool.map(runtime, asked), strict=True):
            np.testing.assert_allclose(logits, expected(picture), atol=1e-3)
    runtime.close()
    runtime.close()


def test_latency_runs_one_call_at_a_time(tiny):
    runtime = open_runtime(tiny)
    assert runtime.concurrency == 1
    assert runtime.name.startswith("openvino 20")


@pytest.mark.parametrize("wrong", [np.zeros((HEIGHT, WIDTH + 4), np.uint8), np.zeros((HEIGHT, WIDTH), np.uint16)])
def test_a_picture_that_does_not_fit(runtime, wrong):
    with pytest.raises(InferenceError, match=r"The model takes uint8 \(64, 96\), the picture is uint"):
        runtime(wrong)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "model.xml").write_text("<net></net>")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(InferenceError, match=r"OpenVINO cannot load the model: .*model\.xml \("):
        OpenVinoRuntime(tmp_path / "model.xml")


def test_a_model_of_other_types_or_shapes():
    source = ops.parameter([1, 1, 8, 8], np.float32)
    with pytest.raises(InferenceError, match="one fixed uint8 input"):
        OpenVinoRuntime(ov.Model([ops.relu(source)], [source], "float"))
    source = ops.parameter([2, 1, 8, 8], np.uint8)
    with pytest.raises(InferenceError, match=r"must take \[1, 1, H, W\]"):
        OpenVinoRuntime(ov.Model([ops.convert(source, "f32")], [source], "batch"))


def test_a_model_that_contradicts_its_manifest(tiny):
    lying = Bundle(tiny.path, replace(tiny.manifest, width=WIDTH + 32))
    with pytest.raises(InferenceError, match=r"\(64, 96\) -> \(4, 16, 24\), its manifest says \(64, 128\)"):
        open_runtime(lying)


def test_an_unknown_runtime(tiny):
    with pytest.raises(InferenceError, match=r"this edgeunip has no runtime 'openvin': .* Did you mean openvino\?"):
        open_runtime(Bundle(tiny.path, tiny_manifest(runtime="openvin")))


def test_openvino_is_missing(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "edgeunip.runtimes.openvino_cpu")
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgeunip\[openvino\]'"):
        open_runtime(tiny)


@pytest.mark.parametrize("block", ["torch", "openvino"])
def test_no_module_needs_torch_and_only_one_openvino(block):
    names = [name for name in MODULES if block == "torch" or name != "edgeunip.runtimes.openvino_cpu"]
    code = f"import sys; sys.modules[{block!r}] = None\n" + "\n".join(f"import {name}" for name in names)
    code += "\nfor name in ('torch', 'timm', 'nncf', 'edgeunip.train'): assert not sys.modules.get(name), name"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_tiny_model_is_what_it_claims():
    assert len(CLASSES) == tiny_model().output().shape[1]
