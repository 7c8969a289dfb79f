"""The card shows what the manifest says, whatever its author put there, and never steers the terminal."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bundle import FILES, PLAIN

from edgeunip import bundle, card, pack, trust
from edgeunip.bundle import Manifest
from edgeunip.errors import BundleError
from edgeunip.trust import Standing, State

LAYERS = {f"blocks.{block}.{name}": "int8" for block in range(12) for name in ("attn.qkv", "mlp.fc1")}
LAYERS |= {"blocks.3.mlp.fc1": "float32", "head.classify": "float32"}
FULL = replace(
    PLAIN,
    accuracy={
        "split": "val",
        "float32": {"miou": 0.71, "iou": {"background": 0.99, "person": 0.43}, "images": 39},
        "int8": {"miou": 0.704, "iou": {"background": 0.99, "person": None}, "images": 39},
    },
    calibration={"source": "train split", "images": 128, "sha256": "ab" * 32, "histogram": [0.1] * 16},
    quantisation={"method": "nncf", "options": {"smooth_quant": 0.5}, "layers": LAYERS},
    capability={"int8": "yes"},
    provenance={
        "versions": {"edgeunip": "0.1.0", "torch": "2.15"},
        "data": {"source": "hit-uav", "lists": "bydate", "class_pixels": {"train": {"person": 1}}},
        "recipe": 'size = "tiny"\nseed = 17\nsteps = 3\n',
        "init": {"name": "unip-small", "kind": "UNIP", "licence": "CC-BY-NC-4.0"},
        "started": "2026-11-21",
        "command": ["edgeunip", "train", "secret-path"],
    },
)


@pytest.fixture(autouse=True)
def nobody_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEUNIP_TRUST", str(tmp_path / "trusted"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "night.bundle", FULL, FILES).path


def shown(manifest: Manifest, *, colour: bool = False) -> str:
    table = {name: {"size": len(data), "sha256": "0" * 64} for name, data in FILES.items()}
    made = card.Card(Path("x"), replace(manifest, files=table), "0" * 64, State(Standing.UNSIGNED), None)
    return card.describe(made, colour=colour)


def test_the_card(saved: Path) -> None:
    text = card.describe(card.read(saved))
    for part in [
        "name          night",
        "target        x86-cpu, run by openvino",
        "int8: yes",
        "64x32 pixels, one channel of 8 bits",
        "AGC plateau (",
        "smoothing_s 2",
        "counts become degC: Linear",
        "1  #ff0000  person",
        "split val, 39 images, IoU in %",
        "int8 gives up 0.60 points of mIoU",
        "method: nncf",
        "options: smooth_quant 0.5",
        "layers: 23 int8, 2 float32",
        "blocks.*.attn.qkv  12 int8",
        "blocks.*.mlp.fc1  11 int8, 1 float32 (blocks.3.mlp.fc1)",
        "head.classify  1 float32",
        "source: train split",
        "images: 128",
        "model.xml",
        "not signed",
        "versions: edgeunip 0.1.0, torch 2.15",
        "data: hit-uav, splits bydate",
        "seed: 17",
        "start weights: unip-small (UNIP), licence CC-BY-NC-4.0",
        "started: 2026-11-21",
        bundle.load(saved).digest,
    ]:
        assert part in text, part
    for part in ("histogram", "secret-path", "class_pixels", "\x1b"):
        assert part not in text, part


def test_the_figures_stand_in_their_columns() -> None:
    lines = shown(FULL).splitlines()
    (start,) = (index for index, line in enumerate(lines) if line.startswith("accuracy"))
    assert [line.split() for line in lines[start + 1 : start + 5]] == [
        ["float32", "int8"],
        ["mIoU", "71.00", "70.40"],
        ["background", "99.00", "99.00"],
        ["person", "43.00", "absent"],
    ]


def test_a_float_bundle_and_one_of_which_little_is_known() -> None:
    bare = replace(
        PLAIN, precision="float32", accuracy={}, calibration=None, quantisation=None, capability={}, provenance={}
    )
    text = shown(bare)
    for part in (
        "precision     float32",
        "accuracy      not measured",
        "calibration   none",
        "start weights: none named",
    ):
        assert part in text
    assert "gives up" not in text and "layers" not in text


def test_a_packed_bundle_shows_the_same_without_being_unpacked(saved: Path, tmp_path: Path) -> None:
    packed = pack.pack(saved, tmp_path / "night.edgeunip")
    before = sorted(tmp_path.rglob("*"))
    found = card.read(packed.path)
    assert found.manifest == card.read(saved).manifest and found.digest == card.read(saved).digest
    assert found.packed_bytes == packed.path.stat().st_size and "packed 0.0" in card.describe(found)
    assert sorted(tmp_path.rglob("*")) == before


def test_colours_of_a_terminal() -> None:
    text = shown(FULL, colour=True)
    assert "\x1b[48;2;255;0;0m  \x1b[0m   1  #ff0000  person" in text
    assert text.count("\x1b") == 2 * len(FULL.classes)


def test_json_has_all_of_it(saved: Path) -> None:
    value = json.loads(json.dumps(card.to_json(card.read(saved))))
    assert value["manifest"]["quantisation"]["layers"] == LAYERS
    assert value["signature"] == {"standing": "unsigned", "key_id": None, "name": None}
    assert value["digest"] == bundle.load(saved).digest and value["packed_bytes"] is None


def test_a_bad_signature_is_shown_not_refused(saved: Path, tmp_path: Path) -> None:
    from edgeunip import signature

    signature.new_key(tmp_path / "maker")
    trust.add(tmp_path / "maker.pub")
    made = trust.sign(saved, tmp_path / "maker").signature()
    assert made is not None
    (saved / signature.FILE).write_bytes(replace(made, value=bytes(64)).to_bytes())
    assert "signature     NOT what maker signed" in card.describe(card.read(saved))


def test_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    with pytest.raises(BundleError, match="Not a packed bundle"):
        card.read(tmp_path / "file")
    with pytest.raises(BundleError, match=r"Not a bundle.*no such folder"):
        card.read(tmp_path / "none")


JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=300)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(
    st.one_of(
        st.sampled_from(["float32", "int8", "split", "layers", "versions", "data", "recipe", "init", "miou"]),
        st.text(max_size=8),
    ),
    JUNK,
    max_size=5,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(OBJECTS, OBJECTS, OBJECTS, OBJECTS, st.one_of(st.none(), OBJECTS))
def test_whatever_the_author_wrote(
    accuracy: Any, capability: Any, provenance: Any, quantisation: Any, other: Any
) -> None:
    text = shown(
        replace(
            PLAIN,
            accuracy=accuracy,
            capability=capability,
            provenance=provenance,
            quantisation=quantisation,
            calibration=other,
        )
    )
    assert all(line.isprintable() for line in text.split("\n"))


def test_deep_nesting_is_shown_in_few_words() -> None:
    deep: Any = "end"
    for _ in range(300):
        deep = [deep]
    assert len(shown(replace(PLAIN, provenance={"deep": deep, "wide": list(range(100_000))}))) < 4000


def test_escape_codes_are_shown_not_sent() -> None:
    text = shown(replace(PLAIN, provenance={"note\x1b[2J": "a\x1b]0;title\x07\u202eb\r\nc"}))
    assert "\\x1b[2J" in text and "\\x1b]0;title\\x07\\u202eb\\r\\nc" in text


def test_the_command(saved: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", "from edgeunip.cli import main; main()", "show", str(saved), "--json"]
    done = subprocess.run([*words, "card.json"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith("name          night\n") and "\x1b" not in done.stdout
    assert json.loads((tmp_path / "card.json").read_text())["manifest"]["name"] == "night"
    printed = subprocess.run([*words, "-"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert json.loads(printed.stdout)["manifest"]["name"] == "night"
