import json

import numpy as np
import pytest
from tiny_runtime import save_tiny, tiny_manifest

from edgeunip.bundle import Golden, save
from edgeunip.errors import BundleError
from edgeunip.runtimes.bench import bench, describe
from edgeunip.runtimes.verify import verify


def files_of(bundle):
    return {name: (bundle.path / name).read_bytes() for name in bundle.manifest.files}


def test_a_good_bundle_agrees_everywhere(tiny):
    found = verify(tiny.path)
    assert found.agreement == (1.0, 1.0, 1.0)
    assert found.required == 0.995
    assert found.runtime.startswith("openvino")


def test_a_golden_map_that_differs_fails(tiny, tmp_path):
    golden = tiny.golden()
    maps = golden.class_maps.copy()
    maps[1, 0, :4] = (maps[1, 0, :4] + 1) % 4
    wrong = save_tiny(tmp_path / "wrong.bundle", golden=Golden(golden.counts, maps))
    share = 1 - 4 / maps[1].size
    with pytest.raises(BundleError, match=f"agreement {share:.4f}, 0.9950 asked for"):
        verify(wrong.path)
    # Negative control: the same map passes where the manifest asks for less.
    lenient = save(tmp_path / "lenient.bundle", tiny_manifest(golden_agreement=share), files_of(wrong))
    assert min(verify(lenient.path).agreement) == pytest.approx(share)


def test_another_preprocessing_fails(tiny, tmp_path):
    agc = tiny_manifest(agc=type(tiny.manifest.agc)(mode="plateau"))
    with pytest.raises(BundleError, match="golden class maps"):
        verify(save(tmp_path / "agc.bundle", agc, files_of(tiny)).path)


def test_no_golden_frame_fails(tiny, tmp_path):
    golden = tiny.golden()
    empty = save_tiny(tmp_path / "empty.bundle", golden=Golden(golden.counts[:0], golden.class_maps[:0]))
    with pytest.raises(BundleError, match="The golden sample"):
        verify(empty.path)


@pytest.mark.parametrize("name", ["model.xml", "model.bin", "golden.npz", "manifest.json"])
def test_one_changed_byte_fails(tiny, tmp_path, name):
    copy = save(tmp_path / "copy.bundle", tiny_manifest(), files_of(tiny))
    data = bytearray((copy.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy.path / name).write_bytes(bytes(data))
    with pytest.raises(BundleError):
        verify(copy.path)


def test_bench_measures_the_same_calls_bare_and_in_the_stream(tiny):
    found = bench(tiny, seconds=0.5, threads=1)
    assert found.latency_p50_ms <= found.latency_p99_ms
    assert len(found.rounds) == 5
    assert found.bare_fps == pytest.approx(np.median([bare for bare, _ in found.rounds]))
    assert found.ratio == pytest.approx(np.median([loop / bare for bare, loop in found.rounds]))
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert set(value) == set(found.__dataclass_fields__)
    lines = describe(found).splitlines()
    assert lines[0].startswith("tiny, float32, 96x64, openvino")
    assert f"{100 * found.ratio:.0f} % of the bare model" in lines[3]
    assert (value["height"], value["width"], value["precision"]) == (64, 96, "float32")
