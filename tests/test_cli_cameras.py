from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeunip import cli_cameras
from edgeunip.devices.open import open_camera
from edgeunip.errors import DataError, UsageError
from edgeunip.sensors import SENSORS, SensorModel

WALL = "wall.y16"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEUNIP_CAMERAS", str(tmp_path / "cameras"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cameras"


def run(*words: str) -> str:
    result = CliRunner().invoke(cli_cameras.app, words, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def _record_a_wall() -> SensorModel:
    sensor = SENSORS["lepton"]
    model = SensorModel(sensor, 7)
    wall = np.full((120, 160), 23.0, np.float32)
    frames = np.stack([model.expose(wall, number / 9)[0] for number in range(24)])
    Path(WALL).write_bytes(frames.astype("<u2").tobytes())
    return model


def test_the_list_says_what_to_do_without_a_camera() -> None:
    if list(Path("/dev").glob("video*")):
        pytest.skip("this machine has video nodes")
    assert "No video node" in run() and "No video node" in run("list")
    assert json.loads(run("list", "--json", "-")) == []


def test_profiles_are_listed_and_shown_as_a_file() -> None:
    listed = run("profiles")
    assert all(name in listed for name in ("lepton", "boson", "tc001", "tc002c", "mlx90640"))
    assert "radiometry = {scale = 0.015625, offset = -273.15}" in run("profiles", "tc001")


def test_a_probed_camera_is_kept_and_used(folder: Path) -> None:
    _record_a_wall()
    told = run("probe", WALL, "--save", "bench", "--point", "27315=0", "--point", "37315=100")
    assert "160x120, uint16, 24 looked at" in told and "1/100 K" in told
    assert (folder / "bench.toml").is_file() and "bench" in run("profiles")
    with open_camera(WALL, profile="bench") as camera:
        frame = next(iter(camera))
    assert frame.radiometry is not None
    assert float(np.median(frame.radiometry.celsius(frame.counts))) == pytest.approx(23.0, abs=0.5)


def test_a_probe_as_json() -> None:
    _record_a_wall()
    found = json.loads(run("probe", WALL, "--json", "-"))
    assert (found["width"], found["height"], found["bits"], found["telemetry"]) == (160, 120, 15, None)
    assert "sizes = [[120, 160]]" in found["profile"]


def test_bad_pixels_are_found_kept_and_replaced(folder: Path) -> None:
    planted = _record_a_wall().bad_pixels
    with open_camera(WALL, profile="lepton") as camera:
        before = next(iter(camera)).counts.reshape(-1)[planted].astype(int)
    told = run("badpixels", WALL, "--camera", "lepton", "--frames", "24")
    assert f"{planted.size} bad pixels of 19200" in told
    assert [path.name for path in folder.iterdir()] == ["wall.y16-160x120.png"]
    with open_camera(WALL, profile="lepton") as camera:
        counts = next(iter(camera)).counts
    level, after = int(np.median(counts)), counts.reshape(-1)[planted].astype(int)
    assert (abs(after - level) < 60).all() and (abs(before - level) > 60).all()


def test_a_flat_field_is_kept_beside_the_bad_pixels_and_removed(folder: Path) -> None:
    _record_a_wall()
    run("badpixels", WALL, "--camera", "lepton", "--frames", "24", "--for", "cam")
    assert "counts, standard deviation" in run("flatfield", WALL, "--frames", "24", "--for", "cam")
    from edgeunip.devices import corrected

    path = corrected.store("cam", (120, 160))
    kept = corrected.load(path, (120, 160))
    assert kept is not None and kept.bad.any() and kept.flat is not None
    run("flatfield", WALL, "--for", "cam", "--remove")
    kept = corrected.load(path, (120, 160))
    assert kept is not None and kept.bad.any() and kept.flat is None


def test_refusals_are_errors_of_ours() -> None:
    _record_a_wall()
    for words, error in (
        (("probe", WALL, "--point", "1=2"), UsageError),
        (("badpixels", WALL, "--frames", "5"), DataError),
        (("badpixels", WALL, "--camera", "leptn"), UsageError),
    ):
        with pytest.raises(error):
            CliRunner().invoke(cli_cameras.app, words, catch_exceptions=False)


def test_the_command_is_there_and_its_help_is_light() -> None:
    code = (
        "import sys; from edgeunip import cli; import typer.testing as t;"
        "r = t.CliRunner().invoke(cli.app, ['cameras', '--help']); assert r.exit_code == 0 and 'probe' in r.output;"
        "assert not {'numpy', 'cv2', 'torch', 'av'} & set(sys.modules)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=60)
