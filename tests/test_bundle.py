"""A bundle comes back as it was saved or is refused by one error class: whatever byte, entry or type was changed."""

import functools
import hashlib
import io
import json
import math
import os
import random
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeunip import bundle, durable
from edgeunip.bundle import GOLDEN, MANIFEST, Bundle, Golden, Manifest
from edgeunip.classes import Classes
from edgeunip.errors import BundleError, StorageError
from edgeunip.thermal import Agc, Linear, Planck

MODEL = b"<?xml not really a model?>" + bytes(range(64))

PLAIN = Manifest(
    name="night",
    target="x86-cpu",
    runtime="openvino",
    precision="int8",
    capability={},
    height=32,
    width=64,
    agc=Agc(mode="plateau", smoothing_s=2.0),
    mean=117.5,
    std=52.25,
    classes=Classes(("background", "person"), ((0, 0, 0), (255, 0, 0))),
    radiometry=Linear(0.01, -273.15),
    accuracy={"float32": {"miou": 0.71}, "int8": {"miou": 0.7}},
    calibration={"source": "val", "number": 8, "sha256": "0" * 64},
    quantisation=None,
    golden_agreement=0.995,
    provenance={"recipe": {"steps": 100, "nested": [1, [2, None, True]]}, "seed": 0},
)


def golden(frames: int = 2) -> Golden:
    rng = np.random.default_rng(0)
    counts = rng.integers(29000, 30000, (frames, 6, 8)).astype(np.uint16)
    return Golden(counts, rng.integers(0, 2, (frames, 8, 16)).astype(np.uint8))


FILES = {"model.xml": MODEL, "model.bin": b"", GOLDEN: golden().to_bytes()}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "night.bundle", PLAIN, FILES).path


def refused(path: Path, message: str = "") -> str:
    with pytest.raises(BundleError) as caught:
        bundle.load(path)
    text = str(caught.value)
    assert message in text and "\n" not in text and len(text) < 2000
    return text


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest as its author could: with its own SHA-256 right."""
    value = json.loads((path / MANIFEST).read_bytes())
    del value["manifest_sha256"]
    change(value)
    forge(path, value)


def forge(path: Path, value: Any) -> None:
    def dump(content: Any) -> bytes:
        return json.dumps(content, indent=1, sort_keys=True).encode() + b"\n"

    own = {"manifest_sha256": hashlib.sha256(dump(value)).hexdigest()} if isinstance(value, dict) else {}
    (path / MANIFEST).write_bytes(dump({**value, **own} if own else value))


# --- round trip ---


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"radiometry": None, "calibration": None, "precision": "float32"},
        {"radiometry": Planck(14985.93, 0.01128, 1398.1, 1.0, -6233.0, emissivity=0.95)},
        {"mean": 0, "std": 1, "golden_agreement": 1, "accuracy": {}, "provenance": {}},
        {"name": "Nachtbild Ü", "classes": Classes(("Straße", "Fußgänger"), ((1, 2, 3), (4, 5, 6)), 200)},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_save_and_load(changes: dict[str, Any], tmp_path: Path) -> None:
    manifest = replace(PLAIN, **changes)
    written = bundle.save(tmp_path / "a.bundle", manifest, FILES)
    read = bundle.load(tmp_path / "a.bundle")
    assert read == written and replace(read.manifest, files={}) == manifest
    assert {name: (read.path / name).read_bytes() for name in read.manifest.files} == FILES
    assert sorted(entry.name for entry in read.path.iterdir()) == sorted([*FILES, MANIFEST])
    assert read.digest == hashlib.sha256((read.path / MANIFEST).read_bytes()).hexdigest()


def test_golden_comes_back(saved: Path) -> None:
    stored, expected = bundle.load(saved).golden(), golden()
    assert stored.counts.dtype == np.uint16 and (stored.counts == expected.counts).all()
    assert stored.class_maps.dtype == np.uint8 and (stored.class_maps == expected.class_maps).all()
    assert stored.counts.flags.writeable and stored.counts.flags.c_contiguous
    turned = Golden(np.asfortranarray(expected.counts), np.asfortranarray(expected.class_maps))
    assert turned.to_bytes() == expected.to_bytes()


def test_same_content_same_digest(tmp_path: Path) -> None:
    time.sleep(0.01)
    one = bundle.save(tmp_path / "one.bundle", PLAIN, FILES)
    two = bundle.save(tmp_path / "two.bundle", PLAIN, {**dict(reversed(FILES.items())), GOLDEN: golden().to_bytes()})
    assert one.digest == two.digest
    other = bundle.save(tmp_path / "three.bundle", replace(PLAIN, std=52.5), FILES)
    assert other.digest != one.digest


def test_digest_is_of_what_was_loaded(saved: Path) -> None:
    loaded = bundle.load(saved)
    before = loaded.digest
    bundle.save(saved, replace(PLAIN, name="another"), FILES)
    assert loaded.digest == before != bundle.load(saved).digest


# --- every byte ---


def naive_load(path: Path) -> dict[str, bytes]:
    """Negative control: what a loader that believes sizes and JSON would accept."""
    try:
        value = json.loads((path / MANIFEST).read_bytes())
        files = {name: (path / name).read_bytes() for name in Manifest.from_json(value).files}
    except (ValueError, RecursionError, OSError) as error:
        raise BundleError("no") from error
    if any(len(data) != value["files"][name]["size"] for name, data in files.items()):
        raise BundleError("size")
    return files


def strict_load(path: Path) -> dict[str, bytes]:
    loaded = bundle.load(path)
    return {name: (loaded.path / name).read_bytes() for name in loaded.manifest.files}


def every_byte(path: Path, load: Callable[[Path], dict[str, bytes]]) -> Iterator[tuple[str, int]]:
    """Change each byte of each file to a random other; yields those that are accepted."""
    chance = random.Random(0)
    for name in sorted(entry.name for entry in path.iterdir()):
        whole = (path / name).read_bytes()
        for position in range(len(whole)):
            changed = bytes([whole[position] ^ chance.randrange(1, 256)])
            (path / name).write_bytes(whole[:position] + changed + whole[position + 1 :])
            try:
                load(path)
                yield name, position
            except BundleError:
                continue
        (path / name).write_bytes(whole)


def test_no_byte_can_change(saved: Path) -> None:
    assert list(every_byte(saved, strict_load)) == []
    assert strict_load(saved) == FILES


def test_negative_control_a_loader_without_hashes_is_caught(saved: Path) -> None:
    accepted = {name for name, _ in every_byte(saved, naive_load)}
    assert accepted >= {"model.xml", GOLDEN, MANIFEST}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """1 to 16 edits: half overwrite, a fifth delete, the rest insert or truncate."""
    for _ in range(chance.randint(1, 16)):
        position, kind = chance.randrange(len(data) + 1), chance.random()
        if kind < 0.5 and data:
            position = min(position, len(data) - 1)
            data = data[:position] + chance.randbytes(1) + data[position + 1 :]
        elif kind < 0.7:
            data = data[:position] + data[position + chance.randint(1, 63) :]
        elif kind < 0.85:
            data = data[:position] + chance.randbytes(chance.randint(1, 31)) + data[position:]
        else:
            data = data[:position]
    return data


def fuzz(path: Path, load: Callable[[Path], dict[str, bytes]], turns: int, seed: int) -> tuple[int, int]:
    """Mutate one file a turn; returns how many were (accepted, accepted with another payload)."""
    chance = random.Random(seed)
    originals = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    names = [*originals, MANIFEST, MANIFEST]
    accepted = different = 0
    for _ in range(turns):
        name = chance.choice(names)
        (path / name).write_bytes(mutated(originals[name], chance))
        try:
            payload = load(path)
        except BundleError as error:
            assert "\n" not in str(error)
        else:
            accepted += 1
            different += payload != FILES
        (path / name).write_bytes(originals[name])
    return accepted, different


def test_mutants_are_refused_by_one_error_class_or_identical(saved: Path) -> None:
    assert fuzz(saved, strict_load, 1500, seed=1)[1] == 0


@pytest.mark.slow
def test_many_mutants(saved: Path) -> None:
    assert fuzz(saved, strict_load, 100_000, seed=2)[1] == 0


def test_negative_control_mutants_get_past_a_loader_without_hashes(saved: Path) -> None:
    assert fuzz(saved, naive_load, 1000, seed=1)[1] > 10


def test_mutants_of_the_manifest_with_its_own_hash_right(saved: Path) -> None:
    """An author can make any manifest: whatever JSON it holds, only BundleError may escape."""
    chance = random.Random(3)
    original = json.loads((saved / MANIFEST).read_bytes())
    del original["manifest_sha256"]
    junk: list[Any] = [
        None,
        True,
        False,
        0,
        -1,
        10**30,
        0.5,
        -0.0,
        1e308,
        "",
        "x",
        "\ud800",
        "\n",
        [],
        [1],
        {},
        {"a": 1},
    ]
    for _ in range(1500):
        value = json.loads(json.dumps(original))
        for _ in range(chance.randint(1, 3)):
            node, key = walk(value, chance)
            if isinstance(node, dict) and chance.random() < 0.15:
                node[chance.choice(["extra", "", "..", "/etc/passwd"])] = chance.choice(junk)
            elif chance.random() < 0.15:
                del node[key]
            else:
                node[key] = chance.choice(junk)
            if not value:
                break
        forge(saved, value)
        try:
            loaded = bundle.load(saved)
        except BundleError as error:
            assert "\n" not in str(error)
        else:
            assert json.loads(loaded.manifest.to_bytes()) == json.loads((saved / MANIFEST).read_bytes())


def walk(value: Any, chance: random.Random) -> tuple[Any, Any]:
    """A random place of a JSON value, as (container, key)."""
    while True:
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if not isinstance(value[key], (dict, list)) or not value[key] or chance.random() < 0.3:
            return value, key
        value = value[key]


# --- entries of the folder ---


def test_not_a_bundle(tmp_path: Path, saved: Path) -> None:
    refused(tmp_path / "none.bundle", f"Not a bundle: {tmp_path / 'none.bundle'} (no such folder). Name a NAME.bundle")
    refused(saved / "model.xml", "(it is a file)")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "(it holds no manifest.json)")
    refused(tmp_path / ("x" * 300), "File name too long")


@pytest.mark.parametrize("name", ["model.xml", "model.bin", GOLDEN])
def test_a_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    refused(saved, f"{name} (No such file or directory)")


@pytest.mark.parametrize("name", ["zzz", ".hidden", "MODEL.XML", "manifest.json.bak"])
def test_an_added_file(saved: Path, name: str) -> None:
    (saved / name).write_bytes(b"")
    refused(saved, f"The bundle holds a file its manifest does not name: {saved / name}")


def test_truncated_and_grown(saved: Path) -> None:
    (saved / "model.xml").write_bytes(MODEL[:-1])
    refused(
        saved, f"The file has {len(MODEL) - 1} bytes instead of {len(MODEL)}: {saved / 'model.xml'}. Copy or export"
    )
    (saved / "model.xml").write_bytes(MODEL + b"x")
    refused(saved, f"The file has {len(MODEL) + 1} bytes")
    (saved / "model.xml").write_bytes(b"y" + MODEL[1:])
    refused(saved, f"The file has changed since export (SHA-256 differs): {saved / 'model.xml'}. Copy or export")


def make_link(path: Path) -> None:
    path.with_name("original").write_bytes(b"")
    path.symlink_to(path.with_name("original"))


@pytest.mark.parametrize("name", ["model.bin", MANIFEST, GOLDEN])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, make_link, lambda p: p.symlink_to(p)], ids=range(4))
def test_what_is_no_plain_file(saved: Path, name: str, make: Callable[[Path], None]) -> None:
    """A pipe has no end, and a link leads anywhere: neither is opened and waited for, nor followed."""
    (saved / name).unlink()
    make(saved / name)
    start = time.monotonic()
    refused(saved)
    assert time.monotonic() - start < 2


def test_the_folder_itself_may_be_a_link(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("night.bundle")
    assert bundle.load(tmp_path / "current").manifest.name == "night"


def test_no_descriptor_is_left_open(saved: Path) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_files()
    bundle.load(saved)
    (saved / "model.bin").unlink()
    (saved / "model.bin").mkdir()
    for _ in range(5):
        refused(saved)
    assert open_files() == before


# --- the manifest ---


@pytest.mark.parametrize("schema", [1, 3, 0, None, "2", 1.5])
def test_another_schema_names_both_versions(saved: Path, schema: Any) -> None:
    rewrite(saved, lambda value: value.update(schema=schema))
    refused(saved, f"The bundle has format {schema!r} and this edgeunip reads format 2: {saved / MANIFEST}. Install")
    rewrite(saved, lambda value: value.pop("schema"))
    refused(saved, "The bundle has format None and this edgeunip reads format 2")


def test_a_schema_that_only_equals_two(saved: Path) -> None:
    rewrite(saved, lambda value: value.update(schema=2.0))
    refused(saved, "The manifest has changed since export")


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"null", b"[]", b"3", b'"x"', b"\xff\xfe", b"\0" * 10, b"{}" * 2, b'{"schema": NaN}', b"[1e999]"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500, b"9" * 100_000, b'{"schema": 2}'),
        b'{"schema": -Infinity}',
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_manifest(saved: Path, text: bytes) -> None:
    (saved / MANIFEST).write_bytes(text)
    refused(saved)


def test_a_huge_manifest_is_not_read(saved: Path) -> None:
    with (saved / MANIFEST).open("r+b") as file:
        file.truncate(1 << 40)  # sparse
    refused(saved, "is larger than 4194304 bytes")


def test_whitespace_order_and_repeated_keys_are_changes_too(saved: Path) -> None:
    text = (saved / MANIFEST).read_text()
    for changed in (text + "\n", text.replace("\n ", "\n\t", 1), text.replace("{\n", '{\n "std": 52.25,\n', 1)):
        assert json.loads(changed) == json.loads(text)
        (saved / MANIFEST).write_text(changed)
        refused(saved, "The manifest has changed since export")
    (saved / MANIFEST).write_text(json.dumps(json.loads(text), indent=1, sort_keys=False))
    refused(saved, "The manifest has changed since export")


WRONG: dict[str, list[Any]] = {
    **{
        key: [None, 1, True, "", "a\nb", "\ud800", "x" * 201, [], {}]
        for key in ("name", "target", "runtime", "precision")
    },
    **{key: [None, "32", 32.0, True, 0, -32, 33, 8224, 10**30, []] for key in ("height", "width")},
    "mean": [None, "1", True, [], 10**400, 1e301],
    "std": [None, "1", True, [], 0, -1.0, 10**400],
    "golden_agreement": [None, "1", True, -0.01, 1.01, []],
    "accuracy": [None, [], "x", 1],
    "provenance": [None, [], "x", 1],
    "capability": [None, [], "x", 1],
    "calibration": [[], "x", 1, False],
    "quantisation": [[], "x", 1, False],
    "agc": [None, [], {}, "percentile", 1],
    "classes": [None, [], {}, {"classes": []}, "x"],
    "radiometry": [[], {}, "x", 1, {"model": "linear", "scale": "1", "offset": 0}],
    "files": [None, [], {}, "x", 1],
}


def test_the_table_names_every_field() -> None:
    assert set(WRONG) == set(PLAIN.to_json()) - {"schema"}


@pytest.mark.parametrize("field", WRONG)
def test_wrong_types_and_missing_fields(saved: Path, field: str) -> None:
    original = (saved / MANIFEST).read_bytes()
    for wrong in WRONG[field]:
        rewrite(saved, lambda value, wrong=wrong: value.update({field: wrong}))  # type: ignore[misc]
        refused(saved, str(saved / MANIFEST))
        (saved / MANIFEST).write_bytes(original)
    rewrite(saved, lambda value: value.pop(field))
    refused(saved, "The bundle has no golden sample" if field == "files" else "The manifest does not fit its format")


def test_unknown_fields(saved: Path) -> None:
    rewrite(saved, lambda value: value.update(plugin="x"))
    refused(saved, "The manifest does not fit its format")
    for part in ("agc", "radiometry"):
        bundle.save(saved, PLAIN, FILES)
        rewrite(saved, lambda value, part=part: value[part].update(plugin=1.0))  # type: ignore[misc]
        refused(saved, "The manifest does not fit its format")
    bundle.save(saved, PLAIN, FILES)
    rewrite(saved, lambda value: value["classes"]["classes"][0].update(plugin=1.0))
    refused(saved, "The manifest has changed since export")


BAD_NAMES = [
    "../x",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "",
    "A.xml",
    "a b",
    "a\0b",
    "x" * 65,
    "a\n",
    "\u202exml",
    "c:x",
    "a\\b",
]


@pytest.mark.parametrize("name", [*BAD_NAMES, MANIFEST], ids=repr)
def test_names_that_lead_elsewhere(saved: Path, name: str, tmp_path: Path) -> None:
    entry = {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    rewrite(saved, lambda value: value["files"].update({name: entry}))
    refused(saved, "The manifest names a file that no bundle may hold")
    with pytest.raises(BundleError, match="The manifest names a file that no bundle may hold"):
        bundle.save(tmp_path / "new.bundle", PLAIN, {**FILES, name: b""})
    assert not (tmp_path / "new.bundle").exists()


ENTRIES: list[Any] = [
    *(None, [], "x", 1, {}, {"size": 0}, {"sha256": "0" * 64}, {"size": 0, "sha256": "0" * 64, "more": 1}),
    *({"size": size, "sha256": "0" * 64} for size in (None, "0", 0.0, True, -1, [])),
    *({"size": 0, "sha256": sha} for sha in (None, 0, "", "0" * 63, "0" * 65, "G" * 64, "A" * 64, [0] * 64)),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: repr(entry)[:50])
def test_wrong_entries_of_a_file(saved: Path, entry: Any) -> None:
    rewrite(saved, lambda value: value["files"].update({"model.xml": entry}))
    refused(saved, "The manifest ")


def test_sizes_and_numbers_beyond_any_bundle(saved: Path, tmp_path: Path) -> None:
    rewrite(saved, lambda value: value["files"]["model.xml"].update(size=3 << 30))
    refused(saved, "holds more than 64 files or 2147483648 bytes")
    with pytest.raises(BundleError, match="holds more than 64 files"):
        bundle.save(tmp_path / "many.bundle", PLAIN, {**FILES, **{f"f{i}": b"" for i in range(64)}})
    assert not (tmp_path / "many.bundle").exists()


# --- saving ---


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": {"int8": {"miou": math.nan}}},
        {"provenance": {"lr": math.inf}},
        {"provenance": {"path": Path("x")}},
        {"provenance": {"value": np.float32(1)}},
        {"provenance": {1: "a", "b": 2}},
        {"mean": math.nan},
        {"std": 0.0},
        {"golden_agreement": 1.5},
        {"height": 100},
        {"name": ""},
        {"name": 5},
        {"calibration": []},
    ],
    ids=str,
)
def test_what_load_would_refuse_is_not_saved(saved: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        bundle.save(saved, replace(PLAIN, **changes), FILES)
    assert bundle.load(saved).manifest.name == "night", "the old one stays"
    assert [entry.name for entry in saved.parent.iterdir()] == ["night.bundle"]


def test_golden_is_required(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"The bundle has no golden sample: .*golden\.npz"):
        bundle.save(tmp_path / "a.bundle", PLAIN, {"model.xml": MODEL})


def test_replacing_is_whole(saved: Path) -> None:
    bundle.save(saved, replace(PLAIN, name="second"), {"model.onnx": b"other", GOLDEN: FILES[GOLDEN]})
    loaded = bundle.load(saved)
    assert loaded.manifest.name == "second" and set(loaded.manifest.files) == {"model.onnx", GOLDEN}
    assert [entry.name for entry in saved.parent.iterdir()] == ["night.bundle"]


def test_a_failing_save_leaves_the_old(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        patch.setattr(os, "fsync", full)
        bundle.save(saved, replace(PLAIN, name="second"), FILES)
    assert bundle.load(saved).manifest.name == "night"
    assert [entry.name for entry in saved.parent.iterdir()] == ["night.bundle"]


@pytest.mark.parametrize("there", ["folder", "empty", "file", "dangling", "link"])
def test_will_not_replace_what_is_no_bundle(tmp_path: Path, there: str) -> None:
    path = tmp_path / "precious"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    if there == "file":
        path.write_bytes(b"")
    elif there in ("link", "dangling"):
        path.symlink_to("photos" if there == "link" else "nowhere")
    else:
        path.mkdir()
        if there == "folder":
            (path / "photo.jpg").write_bytes(b"dog")
    with pytest.raises(BundleError) as caught:
        bundle.save(path, PLAIN, FILES)
    assert str(caught.value) == f"Will not replace what is no bundle: {path}. Choose another --out."
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


def test_a_second_export_at_the_same_time_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.bundle"
    with durable.folder(path), pytest.raises(StorageError, match="Another process"):
        bundle.save(path, PLAIN, FILES)


# --- golden samples of a hostile author ---


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


COUNTS, MAPS = npy(golden().counts), npy(golden().class_maps)


def claims(header: str, version: bytes = b"\1\0") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


@functools.cache
def hostile() -> dict[str, bytes]:
    good, ones = FILES[GOLDEN], np.ones((2, 8, 16), np.uint8)
    encrypted = bytearray(npz(counts=COUNTS, class_maps=MAPS))
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.index(mark) + offset] |= 1
    method = bytearray(npz(counts=COUNTS, class_maps=MAPS))
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        method[method.index(mark) + offset] = 99
    return {
        "no zip": b"nothing of the kind",
        "empty": b"",
        "truncated": good[:-40],
        "bad crc": bytes(good).replace(good[60:64], b"\1\2\3\4", 1),
        "a member is missing": npz(counts=COUNTS),
        "encrypted": bytes(encrypted),
        "unknown compression": bytes(method),
        "pickled": npz(counts=npy(np.array([{"a": 1}], dtype=object)), class_maps=MAPS),
        "floats": npz(counts=npy(np.zeros((2, 6, 8), np.float32)), class_maps=MAPS),
        "foreign byte order": npz(counts=npy(golden().counts.astype(">u2")), class_maps=MAPS),
        "no dimension": npz(counts=npy(np.uint16(5)), class_maps=MAPS),
        "four dimensions": npz(counts=npy(golden().counts[None]), class_maps=MAPS),
        "no frames": npz(counts=npy(golden().counts[:0]), class_maps=npy(ones[:0])),
        "other number": npz(counts=COUNTS, class_maps=npy(ones[:1])),
        "other size": npz(counts=COUNTS, class_maps=npy(ones[:, :4])),
        "maps of 16 bits": npz(counts=COUNTS, class_maps=npy(ones.astype(np.uint16))),
        "an unknown class": npz(counts=COUNTS, class_maps=npy(ones + 1)),
        "claims a terabyte": npz(
            counts=claims("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000, 1000), }"), class_maps=MAPS
        ),
        "claims less than nothing": npz(
            counts=claims("{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -6, 8), }"), class_maps=MAPS
        ),
        "deep header": npz(counts=claims("(" * 110), class_maps=MAPS),
        "another npy version": npz(counts=claims("{}", b"\2\0"), class_maps=MAPS),
        "bomb": npz(counts=claims("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1), }") + bytes(80 << 20)),
    }


@pytest.mark.parametrize("what", hostile())
def test_hostile_golden_samples(tmp_path: Path, what: str) -> None:
    made = bundle.save(tmp_path / "a.bundle", PLAIN, {**FILES, GOLDEN: hostile()[what]})
    with pytest.raises(BundleError) as caught:
        bundle.load(made.path).golden()
    assert str(made.path / GOLDEN) in str(caught.value) and "\n" not in str(caught.value)


def test_golden_that_became_a_pipe(saved: Path) -> None:
    loaded = bundle.load(saved)
    (saved / GOLDEN).unlink()
    os.mkfifo(saved / GOLDEN)
    with pytest.raises(BundleError, match="no plain file"):
        loaded.golden()


def test_mutated_golden_samples(saved: Path) -> None:
    chance, loaded = random.Random(5), bundle.load(saved)
    for _ in range(1000):
        (saved / GOLDEN).write_bytes(mutated(FILES[GOLDEN], chance))
        try:
            assert loaded.golden().counts.ndim == 3
        except BundleError as error:
            assert "\n" not in str(error)


# --- newest ---


def test_newest(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        bundle.newest(tmp_path / "none")
    assert str(caught.value) == f"No bundle: {tmp_path / 'none'}. Export one first: edgeunip export."
    for age, name in [(3, "b"), (1, "c"), (2, "a")]:
        bundle.save(tmp_path / f"{name}.bundle", PLAIN, FILES)
        os.utime(tmp_path / f"{name}.bundle" / MANIFEST, (10_000 - age, 10_000 - age))
    (tmp_path / "broken.bundle").mkdir()
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "a.bundle" / MANIFEST, tmp_path / "other")
    assert bundle.newest(tmp_path) == tmp_path / "c.bundle"


def test_equality_of_bundles(saved: Path) -> None:
    assert bundle.load(saved) == bundle.load(saved) != Bundle(saved, replace(PLAIN, name="x"))
