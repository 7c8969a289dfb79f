"""Who made a bundle: keys, signatures, and a device that refuses what it was told to refuse, at the one gate."""

import base64
import json
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_bundle import FILES, PLAIN

from edgeunip import bundle, signature, trust
from edgeunip.bundle import Bundle
from edgeunip.errors import BundleError, MissingDependencyError, SignatureError, UsageError
from edgeunip.runtimes.open import open_runtime
from edgeunip.signature import PublicKey, Signature
from edgeunip.trust import Standing

# RFC 8032, 7.1, test 2: the arithmetic is the standard's.
SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
MADE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def pem(kind: str, der: bytes) -> bytes:
    return f"-----BEGIN {kind}-----\n{base64.b64encode(der).decode()}\n-----END {kind}-----\n".encode()


@pytest.fixture(autouse=True)
def nobody_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEUNIP_TRUST", str(tmp_path / "trusted"))
    trust._warn.cache_clear()
    return tmp_path / "trusted"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return bundle.save(tmp_path / "night.bundle", PLAIN, FILES).path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    signature.new_key(tmp_path / "maker")
    return tmp_path / "maker"


@pytest.fixture
def signed(saved: Path, key: Path) -> Bundle:
    return trust.sign(saved, key)


def public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def standing(loaded: Bundle) -> Standing:
    return trust.inspect(loaded.manifest, loaded.signature()).standing


# --- keys and signatures ---


def test_the_arithmetic_is_the_standards(tmp_path: Path) -> None:
    file = tmp_path / "rfc"
    file.write_bytes(pem("PRIVATE KEY", bytes.fromhex("302e020100300506032b657004220420") + SECRET))
    file.chmod(0o600)
    made = signature.make(b"\x72", file)
    assert made.value == MADE and made.key_id == PublicKey(PUBLIC).id
    assert signature.holds(made, b"\x72", PublicKey(PUBLIC))
    assert not signature.holds(made, b"\x73", PublicKey(PUBLIC))
    assert not signature.holds(made, b"\x72", PublicKey(SECRET))


def test_no_bit_of_a_signature_can_change() -> None:
    made = Signature(PublicKey(PUBLIC).id, MADE)
    for bit in range(512):
        value = bytearray(MADE)
        value[bit // 8] ^= 1 << bit % 8
        assert not signature.holds(replace(made, value=bytes(value)), b"\x72", PublicKey(PUBLIC))
    order = 2**252 + 27742317777372353535851937790883648493
    larger = MADE[:32] + (int.from_bytes(MADE[32:], "little") + order).to_bytes(32, "little")
    assert not signature.holds(replace(made, value=larger), b"\x72", PublicKey(PUBLIC)), "one signature, one form"


def test_new_keys(tmp_path: Path) -> None:
    made = signature.new_key(tmp_path / "deep" / "key")
    assert stat.S_IMODE((tmp_path / "deep" / "key").stat().st_mode) == 0o600
    assert signature.read_public_key(tmp_path / "deep" / "key.pub") == made
    assert made != signature.new_key(tmp_path / "other")
    private = (tmp_path / "deep" / "key").read_bytes()
    for there in ("deep/key", "deep/key.pub"):
        with pytest.raises(SignatureError, match="Will not replace a key"):
            signature.new_key(tmp_path / there)
    assert (tmp_path / "deep" / "key").read_bytes() == private


def test_a_private_key_is_never_for_others_not_even_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / ".key.partial").write_bytes(b"of a killed writer")
    (tmp_path / ".key.partial").chmod(0o666)
    signature.new_key(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is absent")
def test_openssl_agrees(signed: Bundle, key: Path, tmp_path: Path) -> None:
    derived = subprocess.run(["openssl", "pkey", "-in", key, "-pubout"], capture_output=True, check=True)
    assert derived.stdout == public(key).read_bytes()
    found = signed.signature()
    assert found is not None
    (tmp_path / "value").write_bytes(found.value)
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public(key), "-rawin"]
    words += ["-in", signed.path / bundle.MANIFEST, "-sigfile", tmp_path / "value"]
    assert b"Verified Successfully" in subprocess.run(words, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"", 0o600, "No Ed25519 private key without a password"),
        (b"nonsense", 0o600, "No Ed25519 private key without a password"),
        (b"x" * 100_000, 0o600, "No Ed25519 private key without a password"),
        (PublicKey(PUBLIC).to_pem(), 0o600, "(it is a public key)"),
        (pem("PRIVATE KEY", SECRET), 0o600, "No Ed25519 private key without a password"),
        (b"anything", 0o640, "Others may read the private key"),
        (b"anything", 0o604, "Run: chmod 600"),
    ],
    ids=range(7),
)
def test_keys_that_cannot_sign(saved: Path, tmp_path: Path, content: bytes, mode: int, message: str) -> None:
    (tmp_path / "key").write_bytes(content)
    (tmp_path / "key").chmod(mode)
    with pytest.raises(SignatureError) as caught:
        trust.sign(saved, tmp_path / "key")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert bundle.load(saved).signature() is None


def test_keys_of_other_kinds_and_with_passwords(saved: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    locked = serialization.BestAvailableEncryption(b"hunter2")
    for other in (
        ec.generate_private_key(ec.SECP256R1()).private_bytes(*form, serialization.NoEncryption()),
        ed25519.Ed25519PrivateKey.generate().private_bytes(*form, locked),
    ):
        (tmp_path / "key").write_bytes(other)
        (tmp_path / "key").chmod(0o600)
        with pytest.raises(SignatureError, match="No Ed25519 private key without a password"):
            trust.sign(saved, tmp_path / "key")


def test_no_error_shows_a_private_key(saved: Path, key: Path) -> None:
    body = key.read_text().splitlines()[1]
    key.write_text(key.read_text().replace("PRIVATE", "SECRET"))
    with pytest.raises(SignatureError) as caught:
        trust.sign(saved, key)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert body not in repr(chain) and body[20:40] not in str(chain)
        chain = chain.__cause__ or chain.__context__


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"x" * 100_000,
        PublicKey(PUBLIC[:31]).to_pem(),
        PublicKey(PUBLIC + b"x").to_pem(),
        PublicKey(PUBLIC).to_pem() * 2,
        PublicKey(PUBLIC).to_pem().replace(b"MCow", b"MCox"),
        PublicKey(PUBLIC).to_pem().replace(b"=", b"!"),
        b"# mine\n" + PublicKey(PUBLIC).to_pem(),
    ],
    ids=range(9),
)
def test_what_is_no_public_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pub").write_bytes(content)
    with pytest.raises(SignatureError, match="No Ed25519 public key"):
        trust.add(tmp_path / "x.pub")
    assert trust.known() == {}


def test_a_private_key_is_not_trusted_by_mistake(key: Path) -> None:
    with pytest.raises(SignatureError, match="it is a private key"):
        trust.add(key)


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=32, max_size=32))
def test_a_signature_file_comes_back(value: bytes, raw: bytes) -> None:
    made = Signature(PublicKey(raw).id, value)
    assert Signature.from_bytes(made.to_bytes()) == made and len(made.to_bytes()) <= signature.MAX_BYTES


def test_no_other_bytes_are_a_signature_file() -> None:
    data = Signature(PublicKey(PUBLIC).id, MADE).to_bytes()
    chance, refused = random.Random(0), 0
    for _ in range(3000):
        position = chance.randrange(len(data))
        changed = data[:position] + chance.randbytes(chance.randint(0, 2)) + data[position + chance.randint(0, 2) :]
        try:
            assert Signature.from_bytes(changed).to_bytes() == changed
        except SignatureError as error:
            assert "No signature of a bundle" in str(error) and "\n" not in str(error)
            refused += 1
    assert refused > 1500, "the others are unchanged, or have other digits"


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(algorithm="none"),
        lambda value: value.update(more=1),
        lambda value: value.pop("algorithm"),
        lambda value: value.update(key_id="0" * 63),
        lambda value: value.update(key_id="G" * 64),
        lambda value: value.update(key_id=["0"] * 64),
        lambda value: value.update(key_id=None),
        lambda value: value.update(signature="00" * 63),
        lambda value: value.update(signature=value["signature"].upper()),
        lambda value: value.update(signature=" ".join(value["signature"])),
        lambda value: value.update(signature=5),
    ],
    ids=range(11),
)
def test_a_bundle_with_a_damaged_signature_file_does_not_load(signed: Bundle, change: Callable[[Any], object]) -> None:
    file = signed.path / signature.FILE
    value = json.loads(file.read_bytes())
    change(value)
    file.write_bytes(json.dumps(value, indent=1).encode() + b"\n")
    with pytest.raises(SignatureError) as caught:
        bundle.load(signed.path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[" * 1000, b"null", b"\xff", b" " * 2000, b"[" * 100_000])
def test_a_signature_file_that_is_none(signed: Bundle, content: bytes) -> None:
    (signed.path / signature.FILE).write_bytes(content)
    with pytest.raises(BundleError):
        bundle.load(signed.path)


def test_a_signature_file_that_leads_elsewhere(signed: Bundle, tmp_path: Path) -> None:
    file = signed.path / signature.FILE
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.load(signed.path)


# --- signing a bundle ---


def test_sign(saved: Path, key: Path) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    digest = bundle.load(saved).digest
    signed = trust.sign(saved, key)
    after = {file.name: file.read_bytes() for file in saved.iterdir()}
    assert after.pop(signature.FILE) and after == before and bundle.load(saved).digest == digest == signed.digest
    found = signed.signature()
    assert found is not None and found.key_id == signature.read_public_key(public(key)).id
    assert [entry.name for entry in saved.parent.glob(".*")] == []


def test_signing_again_replaces_and_saving_again_removes(signed: Bundle, tmp_path: Path) -> None:
    signature.new_key(tmp_path / "second")
    again = trust.sign(signed.path, tmp_path / "second").signature()
    assert again is not None and again.key_id == signature.read_public_key(tmp_path / "second.pub").id
    bundle.save(signed.path, PLAIN, FILES)
    assert bundle.load(signed.path).signature() is None


def test_a_link_to_a_bundle_stays_a_link(saved: Path, key: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("night.bundle")
    trust.sign(tmp_path / "current", key)
    assert (tmp_path / "current").is_symlink() and bundle.load(saved).signature() is not None


def test_a_damaged_bundle_is_not_signed(saved: Path, key: Path) -> None:
    (saved / "model.xml").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"model\.xml"):
        trust.sign(saved, key)
    assert not (saved / signature.FILE).exists()


# --- the device ---


def test_what_this_device_makes_of_it(saved: Path, key: Path, tmp_path: Path) -> None:
    assert standing(bundle.load(saved)) is Standing.UNSIGNED
    signed = trust.sign(saved, key)
    assert standing(signed) is Standing.UNKNOWN
    trust.add(public(key), name="factory")
    state = trust.inspect(signed.manifest, signed.signature())
    assert (state.standing, state.name, str(state)) == (Standing.VALID, "factory", "signed by factory")
    other = bundle.save(tmp_path / "other.bundle", replace(PLAIN, name="other"), FILES)
    shutil.copy(saved / signature.FILE, other.path)
    assert standing(bundle.load(other.path)) is Standing.BAD, "a signature is over one manifest"


def admitted(loaded: Bundle) -> str:
    try:
        return trust.admit(loaded).standing.value
    except (SignatureError, MissingDependencyError) as error:
        assert "\n" not in str(error)
        return f"refused: {error}"


@pytest.mark.parametrize(
    ("what", "off", "on"),
    [
        ("unsigned", "unsigned", "refused: This device runs signed bundles only"),
        ("unknown", "unknown", "refused: This device runs signed bundles only"),
        ("bad", "refused: The bundle's signature does not hold", "refused: The bundle's signature does not hold"),
        ("valid", "valid", "valid"),
    ],
)
def test_the_policy(what: str, off: str, on: str, saved: Path, key: Path) -> None:
    loaded = bundle.load(saved) if what == "unsigned" else trust.sign(saved, key)
    if what in ("bad", "valid"):
        trust.add(public(key))
    if what == "bad":
        found = loaded.signature()
        assert found is not None
        (saved / signature.FILE).write_bytes(replace(found, value=found.value[::-1]).to_bytes())
    assert admitted(loaded).startswith(off)
    trust.require(True)
    assert admitted(loaded).startswith(on)
    trust.require(False)
    assert admitted(loaded).startswith(off)


def test_the_gate_stands_before_every_runtime(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is not even imported for a bundle that this device refuses."""
    monkeypatch.setitem(sys.modules, "edgeunip.runtimes.openvino_cpu", None)
    loaded = bundle.load(saved)
    trust.require(True)
    with pytest.raises(
        SignatureError, match=r"runs signed bundles only.*\(not signed\)\. Have it signed: edgeunip sign"
    ):
        open_runtime(loaded)
    trust.require(False)
    with pytest.raises(ModuleNotFoundError):
        open_runtime(loaded)


def test_no_other_way_leads_to_an_engine() -> None:
    root = Path(bundle.__file__).parent.parent
    sources = [file for name in ("runtimes", "compress", "devices", "train") for file in (root / name).rglob("*.py")]
    sources += [file for file in (root / "edgeunip").glob("*.py")]
    callers = {str(file.relative_to(root)) for file in sources if ".from_bundle(" in file.read_text()}
    assert callers == {"runtimes/open.py"} and "trust.admit(bundle)" in (root / "runtimes" / "open.py").read_text()


def test_a_signature_taken_away_after_loading_is_missed(signed: Bundle, key: Path) -> None:
    trust.add(public(key))
    trust.require(True)
    assert admitted(signed) == "valid"
    (signed.path / signature.FILE).unlink()
    assert admitted(signed).startswith("refused")


def test_an_unknown_key_is_told_once(signed: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    trust.admit(signed)
    trust.admit(signed)
    (record,) = caplog.records
    assert "which this device does not know" in record.getMessage() and str(signed.path) in record.getMessage()


def test_without_cryptography(signed: Bundle, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles run, signed or not; what was not checked is told; nothing that needs it pretends."""
    trust.add(public(key))
    monkeypatch.delitem(sys.modules, "edgeunip.ed25519", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)

    class Absent:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.split(".")[0] == "cryptography":
                raise ModuleNotFoundError(f"No module named {name!r}", name="cryptography")

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "cryptography")
    assert admitted(signed) == "unchecked" and "not checked" in str(trust.inspect(signed.manifest, signed.signature()))
    assert admitted(bundle.save(tmp_path / "plain.bundle", PLAIN, FILES)) == "unsigned"
    trust.require(True)
    assert "package cryptography is not installed. Run: pip install 'edgeunip[sign]'" in admitted(signed)
    for call in (lambda: trust.sign(signed.path, key), lambda: signature.new_key(tmp_path / "new")):
        with pytest.raises(MissingDependencyError, match=r"pip install 'edgeunip\[sign\]'"):
            call()
    assert not (tmp_path / "new").exists()


# --- the trust folder ---


def test_add_list_remove(key: Path, tmp_path: Path, nobody_trusted: Path) -> None:
    assert trust.known() == {} and not nobody_trusted.exists()
    name, added = trust.add(public(key))
    assert name == "maker" and trust.known() == {"maker": added}
    assert trust.add(public(key), name="again") == ("maker", added), "one key has one name"
    signature.new_key(tmp_path / "second")
    with pytest.raises(SignatureError, match="Another key has this name"):
        trust.add(tmp_path / "second.pub", name="maker")
    trust.add(tmp_path / "second.pub")
    assert list(trust.known()) == ["maker", "second"]
    trust.remove("maker")
    assert list(trust.known()) == ["second"]
    with pytest.raises(UsageError, match="No trusted key of this name: sekond"):
        trust.remove("sekond")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 65, "ä"])
def test_names_that_lead_elsewhere(key: Path, name: str) -> None:
    with pytest.raises(UsageError, match="No name for a key"):
        trust.add(public(key), name=name)
    with pytest.raises(UsageError):
        trust.remove(name)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"require_signature": "no"}', b"[" * 10_000]
)
def test_a_damaged_policy_refuses(saved: Path, nobody_trusted: Path, content: bytes) -> None:
    nobody_trusted.mkdir()
    (nobody_trusted / trust.POLICY).write_bytes(content)
    assert admitted(bundle.load(saved)).startswith("refused: This device's policy is damaged")
    trust.require(False)
    assert admitted(bundle.load(saved)) == "unsigned"


def test_a_folder_that_cannot_be_read_refuses(signed: Bundle, nobody_trusted: Path) -> None:
    nobody_trusted.write_bytes(b"a file")
    assert admitted(signed).startswith("refused: The trusted keys cannot be read")
    nobody_trusted.unlink()
    nobody_trusted.mkdir()
    (nobody_trusted / "x.pub").write_bytes(b"damaged")
    assert admitted(signed).startswith("refused: No Ed25519 public key")


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGEUNIP_TRUST")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trust.folder() == tmp_path / ".config" / "edgeunip" / "trust"


# --- the commands ---


def told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object, code: int = 0
) -> tuple[str, str]:
    from edgeunip.cli import main

    monkeypatch.setattr(sys, "argv", ["edgeunip", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    found = capsys.readouterr()
    assert left.value.code == code, found.err
    return found.out, found.err


def test_the_way_of_a_signed_bundle(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object, code: int = 0) -> str:
        return "".join(told(monkeypatch, capsys, *words, code=code))

    monkeypatch.chdir(tmp_path)
    said = run("trust", "new", "maker")
    assert "edgeunip trust add maker.pub" in said
    assert "signed by the key" in run("sign", saved, "--key", "maker")
    assert "night.edgeunip" in run("pack", saved)
    secret = Path("maker").read_text().splitlines()[1]
    assert "which this device does not know" in run("unpack", "night.edgeunip", "--out", "device.bundle")
    assert "trusted as maker" in run("trust", "add", "maker.pub")
    assert "1 keys are trusted" in run("trust", "require", "on")
    listed = run("trust", "list")
    assert "maker" in listed and "a signature is required" in listed
    assert "signed by maker" in run("unpack", "night.edgeunip")
    assert "signature     signed by maker" in run("show", "night.edgeunip")
    assert "no longer trusted" in run("trust", "remove", "maker")
    refused = run("verify", "night.edgeunip", code=1)
    assert "This device runs signed bundles only" in refused and "edgeunip trust add FILE.pub" in refused
    assert secret not in said + listed + refused
    run("trust", "require", "maybe", code=2)
