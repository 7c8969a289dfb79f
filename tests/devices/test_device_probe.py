from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lepton_rows import rows
from numpy.typing import NDArray

from edgeunip.devices import probe, profiles
from edgeunip.devices.dump import DumpCamera
from edgeunip.devices.open import open_camera
from edgeunip.devices.probe import study, suggest
from edgeunip.errors import SourceError, UsageError
from edgeunip.frame import Frame
from edgeunip.scenes import SENSORS, Scene, SensorModel
from edgeunip.thermal import Linear


def _exposures(name: str, count: int = 5) -> list[NDArray[np.uint16]]:
    sensor = SENSORS[name]
    model, scene = SensorModel(sensor, 1), Scene(1)
    celsius, _ = scene.render(0.0, sensor.height, sensor.width)
    return [model.expose(celsius, number / 9)[0].astype(np.uint16) for number in range(count)]


def _frames(wire: list[NDArray[np.uint16]], rate_hz: float = 9.0) -> list[Frame]:
    return [Frame(counts, seq, round(seq * 1e9 / rate_hz)) for seq, counts in enumerate(wire)]


def test_a_lepton_with_telemetry_is_found_out() -> None:
    wire = [np.vstack([pixels, rows(counter=50 + 3 * n)]) for n, pixels in enumerate(_exposures("lepton"))]
    found = study(_frames(wire), live=True)
    assert (found.width, found.height, found.telemetry_rises) == (160, 122, True)
    assert found.telemetry is not None and found.telemetry.tlinear_k == 0.01
    assert found.rate_hz == pytest.approx(9.0) and found.repeats == 0 and found.lost == 0
    assert found.highest < 40_000  # of the pixels: telemetry holds larger words
    assert found.scales == ("1/100 K",) and 3 < found.noise < 8
    mine = suggest(found, "mine", usb="1e4e:0100", code="Y16 ")
    back = profiles.frame(mine, wire[0], seq=0, t_ns=0, where="x")
    assert np.array_equal(back.counts, wire[0][:120]) and back.radiometry == Linear(0.01, -273.15)


def test_telemetry_that_stands_still_is_told() -> None:
    wire = [np.vstack([pixels, rows(counter=50)]) for pixels in _exposures("lepton")]
    assert not study(_frames(wire), live=True).telemetry_rises


def test_a_split_frame_is_found_out() -> None:
    wire = []
    for pixels in _exposures("tc001"):
        gray = ((pixels - pixels.min()) / np.ptp(pixels) * 255).astype(np.uint16)
        wire.append(np.vstack([gray | 128 << 8, pixels]))
    found = study(_frames(wire, 25.0), live=True)
    assert found.split and not found.swapped and found.telemetry is None
    assert "1/64 K" in found.scales
    mine = suggest(found, "mine", code="YUYV")
    assert mine.packed and mine.split == (384, 256) and mine.radiometry is None  # no degC without proof
    assert np.array_equal(profiles.frame(mine, wire[0], seq=0, t_ns=0, where="x").counts, wire[0][192:])


def test_exchanged_bytes_are_found_out() -> None:
    wire = [np.asarray(pixels.byteswap(), np.uint16) for pixels in _exposures("lepton")]
    found = study(_frames(wire), live=True)
    assert found.swapped and found.highest < 40_000
    mine = suggest(found, "mine", radiometry=probe.calibrate(["27315=0", "37315=100"]))
    back = profiles.frame(mine, wire[0], seq=0, t_ns=0, where="x")
    assert np.array_equal(back.counts, wire[0].byteswap())
    assert back.radiometry is not None and back.radiometry.counts(50.0) == pytest.approx(32315)


def test_repeats_and_losses_are_counted() -> None:
    a, b = _exposures("lepton", 2)
    frames = [Frame(a, 0, 0), Frame(a, 1, 10**8), Frame(b, 4, 4 * 10**8)]
    found = study(frames, live=True)
    assert (found.repeats, found.lost, found.rate_hz) == (1, 2, pytest.approx(10.0))


@pytest.mark.parametrize(
    "points", [["1=2"], ["1=2", "1=3"], ["1=2", "x=3"], ["1=2", "3"], ["100=50", "200=20"], ["1=2", "2=3", "3=4"]]
)
def test_a_calibration_takes_two_points(points: list[str]) -> None:
    with pytest.raises(UsageError, match=r"[cC]alibration"):
        probe.calibrate(points)
    assert probe.calibrate(["8000=20", "10000=60"]) == Linear(0.02, -140.0)


def test_real_clips_are_studied_as_they_are(raw16: Path) -> None:
    found = probe.look(str(raw16 / "lepton" / "lepton_a.y16"), seconds=30).findings
    assert (found.width, found.height, found.frames) == (160, 120, 100)
    assert found.telemetry is None and not found.swapped and not found.split and found.rate_hz is None
    assert suggest(found, "mine").radiometry is None
    assert 0.5 < found.noise < 10
    tau = probe.look(str(raw16 / "tau640" / "example_radiometric.tiff"), seconds=30).findings
    assert (tau.width, tau.height, tau.lowest, tau.highest, tau.bits) == (640, 512, 6743, 7077, 13)


def test_a_headless_recording_gives_its_frames(raw16: Path) -> None:
    truth = np.load(raw16 / "lepton" / "lepton_a.npz")["frames"]
    for profile in (None, "lepton"):
        with open_camera(str(raw16 / "lepton" / "lepton_a.y16"), profile=profile) as camera:
            frames = list(camera)
        assert np.array_equal(np.stack([frame.counts for frame in frames]), truth)
        # Bare counts, whatever the user calls them: no scene is at -246 degC.
        assert all(frame.radiometry is None for frame in frames)


def test_a_recording_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.y16"
    for content in (b"", bytes(1001)):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"no whole number of frames: .*tried 160x122, 160x120"):
            DumpCamera(path).__enter__()
    path.write_bytes(bytes(2 * 2 * 384 * 256))
    with DumpCamera(path, profile=profiles.PROFILES["tc001"]) as camera:
        assert [frame.counts.shape for frame in camera] == [(192, 256)] * 2
