from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.devices import profile_files, profiles
from edgeunip.devices.profile import Profile
from edgeunip.errors import UsageError
from edgeunip.thermal import Linear


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEUNIP_CAMERAS", str(tmp_path / "cameras"))
    return tmp_path / "cameras"


def test_every_profile_of_ours_comes_back_from_its_file() -> None:
    for profile in profiles.PROFILES.values():
        assert profile_files.parse(profile_files.write(profile).encode(), Path(f"{profile.name}.toml")) == profile


def test_a_profile_of_the_users_is_found_and_stands_in_for_ours(folder: Path) -> None:
    assert profiles.known().keys() == profiles.PROFILES.keys()
    mine = Profile("boson", "a Boson-R, TLinear on", Linear(0.01, -273.15), sizes=((512, 640),))
    assert profile_files.save(mine) == folder / "boson.toml"
    assert profiles.find("boson") == mine and profiles.known()["boson"] == mine
    (folder / "bench.toml").write_text('about = "x"\nformats = ["Y16"]\nusb = ["12AB:00ff"]\n')
    bench = profiles.find("bench")
    assert bench.formats == ("Y16 ",) and bench.usb == ("12ab:00ff",) and bench.radiometry is None
    (folder / "._bench.toml").write_text("litter of another system")
    assert len(profiles.known()) == len(profiles.PROFILES) + 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"has no key about: .*mine\.toml.* Add: about"),
        ('about = "x"\nradiometri = {scale = 1, offset = 0}', r"Unknown key radiometri .*Did you mean radiometry\?"),
        ('about = "x"\nradiometry = {scale = 1}', r"Key radiometry .*not \{scale = \.\., offset = \.\.\}"),
        ('about = "x"\nradiometry = {scale = 0, offset = 1}', "Key radiometry .*positive scale"),
        ('about = "x"\nradiometry = {scale = nan, offset = 1}', "Key radiometry .*out of range"),
        ('about = 3', "Key about .*3 is no text"),
        ('about = "x"\nsplit = [383, 256]', "Key split .*383 rows have no half"),
        ('about = "x"\nsizes = [[0, 1]]', r"Key sizes .*0 is no whole number in 1\.\.16384"),
        ('about = "x"\ntelemetry = [[2, 160, 2]]', "Key telemetry .*leave no pixels"),
        ('about = "x"\nlayout = "lepton"', "goes with telemetry rows"),
        ('about = "x"\nshutter = "sometimes"', "Key shutter .*none of freezes, silent, none, unknown"),
        ('about = "x"\npacked = 1', "Key packed .*neither true nor false"),
        ('about = "x"\nrate_hz = -9', "Key rate_hz"),
        ('about = "x"\nrange_c = [9, 1]', "Key range_c .*9 is not below 1"),
        ("about = ", "is no TOML: .*mine.toml"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_by_file_and_key(folder: Path, text: str, told: str) -> None:
    folder.mkdir()
    (folder / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match=told) as caught:
        profiles.find("lepton")
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_profile_or_a_usage_error(data: bytes) -> None:
    with contextlib.suppress(UsageError):
        assert profile_files.parse(data, Path("x.toml")).name == "x"


@given(st.text(max_size=40), st.lists(st.text(max_size=9), max_size=3))
def test_any_text_survives_its_file(about: str, notes: list[str]) -> None:
    if not about:
        return
    profile = Profile("x", about, notes=tuple(notes))
    try:
        data = profile_files.write(profile).encode()
    except UnicodeEncodeError:
        return
    assert profile_files.parse(data, Path("x.toml")) == profile


def test_a_name_must_be_a_files() -> None:
    for name in ("", "../x", "a b", "x.toml"):
        with pytest.raises(UsageError, match="letters, digits"):
            profile_files.save(Profile(name, "x"))


@pytest.mark.parametrize(
    ("usb", "card", "sizes", "name"),
    [
        ("1e4e:0100", "PureThermal (fw:v1.3.0)", [(120, 160)], "lepton"),
        ("1E4E:0100", "PureThermal", [(122, 160), (120, 160)], "lepton"),
        ("1e4e:0100", "PureThermal", [(60, 80)], "lepton"),
        ("0bda:5830", "USB Camera", [(192, 256), (384, 256)], "tc001"),
        ("0bda:5830", "USB Camera", [(1080, 1920), (480, 640)], None),  # an ordinary webcam of the same bridge
        ("09cb:4007", "Boson: FLIR Video", [(512, 640)], "boson"),
        ("09cb:4007", "Boson: FLIR Video", [(256, 320)], "boson"),
        ("", "I2C 1-33 Transport Video", [(24, 32)], "mlx90640"),
        ("", "Seek Thermal", [(156, 206)], "seek"),
        ("046d:0825", "Webcam C270", [(120, 160)], None),
        ("", "", [], None),
    ],
)
def test_a_device_is_matched_by_id_and_size(
    usb: str, card: str, sizes: list[tuple[int, int]], name: str | None
) -> None:
    found = profiles.match(usb=usb, card=card, sizes=sizes, profiles=profiles.known())
    assert (found.name if found else None) == name


def test_the_users_own_profile_matches_before_ours() -> None:
    profile_files.save(Profile("ours", "with TLinear at 0.1 K", usb=("1e4e:0100",), sizes=((120, 160),)))
    found = profiles.match(usb="1e4e:0100", sizes=[(120, 160)], profiles=profiles.known())
    assert found is not None and found.name == "ours"
