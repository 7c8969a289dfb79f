"""What of an address is shown, what of it is secret, and where it is read from."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip import redaction
from edgeunip.address import credentials, redact, resolve
from edgeunip.errors import SourceError
from edgeunip.redaction import clean

SECRET = "cAnArY-7f3"


@pytest.fixture(autouse=True)
def _nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_kept", [])


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://10.0.0.4:554/live", "rtsp://10.0.0.4:554/live"),
        ("rtsp://u:CANARY@10.0.0.4/live", "rtsp://***@10.0.0.4/live"),
        ("RTSPS://u:CAN@ARY@cam/live", "RTSPS://***@cam/live"),
        ("rtsp://u:CAN/ARY@cam/live", "rtsp://***@cam/live"),
        ("rtsp://u:CAN?ARY@cam/live", "rtsp://***@cam/live"),
        ("rtsp://cam/live?token=CANARY", "rtsp://cam/live?***"),
        ("rtsp://cam/live#CANARY", "rtsp://cam/live?***"),
        ("rtsp://cam/user=admin&password=CANARY&channel=1.sdp", "rtsp://cam/user=admin&password=***&channel=1.sdp"),
        ("rtsp://cam/user=admin_password=CANARY_channel=1.sdp", "rtsp://cam/user=admin_password=***"),
        ("rtsp:/u:CANARY@cam/live", "rtsp:/***@cam/live"),
        ("u:CANARY@cam/live", "***@cam/live"),
        ("/data/cow@home/a.mkv", "/data/cow@home/a.mkv"),
        ("C?.png", "C?.png"),
    ],
)
def test_what_is_shown(source: str, shown: str) -> None:
    assert redact(source) == shown


@given(st.text(min_size=1, max_size=12), st.text(max_size=8), st.sampled_from(["rtsp://", "rtsps://", "http://"]))
def test_no_password_survives(password: str, user: str, scheme: str) -> None:
    secret = f"<{password}>"
    assert secret not in redact(f"{scheme}{user}:{secret}@camera/live?token={secret}")


@pytest.mark.parametrize(
    ("source", "secrets"),
    [
        ("rtsp://u:CANARY@10.0.0.4/live", ["CANARY", "dTpDQU5BUlk="]),
        ("rtsp:/u:CANARY@cam/live", ["CANARY", "dTpDQU5BUlk="]),
        ("rtsp://u@cam/live?TOKEN=CANARY&channel=1", ["dQ==", "CANARY"]),
        ("rtsp://cam/user=admin_password=CANARY/x", ["CANARY"]),
        ("http://cam/?api_key=CANARY&key=YRANAC#t", ["CANARY", "YRANAC"]),
        ("/data/token=none/a.mkv", []),
    ],
)
def test_what_is_secret_is_not_shown(source: str, secrets: list[str]) -> None:
    assert credentials(source) == secrets
    assert not any(secret in redact(source) for secret in secrets)


def test_an_address_from_a_file_and_its_password_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "camera"
    file.write_text(f"rtsp://me:{SECRET}@host/x?token=other{SECRET}\n")
    file.chmod(0o600)
    assert resolve(f"@{file}") == f"rtsp://me:{SECRET}@host/x?token=other{SECRET}"
    assert clean(f"a {SECRET} and other{SECRET}") == "a *** and ***"


def test_others_may_read_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "camera"
    file.write_text(f"rtsp://me:{SECRET}@host/x")
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        resolve(f"@{file}")
    assert f"chmod 600 {file}" in caplog.text and SECRET not in caplog.text
    caplog.clear()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    resolve(f"@{file}")
    assert caplog.text == "", "systemd shows it to the service alone, whatever the mode says"


def test_an_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARD", f"rtsp://me:{quote(SECRET + '/')}@host/x")
    assert resolve("$YARD").startswith("rtsp://me:")
    assert clean(f"{SECRET}/") == "***"
    with pytest.raises(SourceError, match=r"variable .* is not set: NOPE"):
        resolve("$NOPE")


@pytest.mark.parametrize("content", ["", "\n", "@other", "$OTHER"])
def test_a_file_without_an_address(content: str, tmp_path: Path) -> None:
    (tmp_path / "camera").write_text(content)
    with pytest.raises(SourceError, match="holds no source's address"):
        resolve(f"@{tmp_path / 'camera'}")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be read: .*/none \(No such file or directory\)"):
        resolve(f"@{tmp_path / 'none'}")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match="it is no text"):
        resolve(f"@{tmp_path / 'bytes'}")


@pytest.mark.parametrize("source", ["/dev/video0", "images", "rtsp://host/x", "synthetic://lepton?seed=1"])
def test_other_sources_stay(source: str) -> None:
    assert resolve(source) == source and credentials(source) == []
