"""The doctor's page: every finding has its remedy, no check takes the others with it, also in bare surroundings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_machine import ORIN, XEON, tree

from edgeunip.devices.v4l2 import Identity, Node, Offer
from edgeunip.doctor import cameras, hardware, page, software, system
from edgeunip.doctor.finding import Check, Finding, Level, Place, bad, ok, warn
from edgeunip.errors import BundleError
from edgeunip.machine import Capture

SECRET = "cAnArY-7f3"
MEMORY = "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 0 kB\n"


def levels(found: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(finding.level.value, finding.message) for finding in found]


def place(root: Path, files: dict[str, str]) -> Place:
    return Place(root=tree(root, files), folder=root)


def test_what_is_not_ok_has_a_remedy(tmp_path: Path) -> None:
    for where in (Place(), Place(root=tmp_path, folder=tmp_path)):
        for finding in page.examine(where):
            assert finding.message and "\n" not in finding.message and finding.topic in page.CHECKS
            assert finding.level is Level.OK or finding.remedy, finding


def test_processors(tmp_path: Path) -> None:
    found = levels(hardware.processor(place(tmp_path / "a", {"proc/cpuinfo": XEON})))
    assert found == [
        ("ok", "Intel(R) Xeon(R) Gold 6430, 1 cores, AVX512F"),
        ("ok", "int8 pays: AMX, int8 products in tiles"),
    ]
    assert levels(hardware.processor(place(tmp_path / "b", {"proc/cpuinfo": ORIN})))[1][0] == "ok"
    old = XEON.replace("avx512_vnni", "").replace("amx_int8", "").replace("avx_vnni", "")
    assert levels(hardware.processor(place(tmp_path / "c", {"proc/cpuinfo": old})))[1][0] == "warn"


@pytest.mark.parametrize(("available_kib", "level"), [(4194304, "ok"), (500 * 1024, "warn"), (100 * 1024, "bad")])
def test_memory(available_kib: int, level: str, tmp_path: Path) -> None:
    files = {"proc/meminfo": MEMORY.replace("4194304", str(available_kib))}
    assert levels(hardware.memory(place(tmp_path, files)))[0][0] == level


def test_a_small_control_group_counts(tmp_path: Path) -> None:
    files = {"proc/meminfo": MEMORY, "sys/fs/cgroup/memory.max": str(150 * 2**20)}
    assert levels(hardware.memory(place(tmp_path, files))) == [
        ("bad", "4096 of 8192 MiB available, the control group allows 150, swap 0 MiB")
    ]


def test_a_hot_jetson_that_is_held_back(tmp_path: Path) -> None:
    zone, policy = "sys/class/thermal/thermal_zone0", "sys/devices/system/cpu/cpufreq/policy0"
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
        f"{zone}/type": "cpu-thermal",
        f"{zone}/temp": "96000",
        f"{zone}/trip_point_0_type": "passive",
        f"{zone}/trip_point_0_temp": "99000",
        f"{policy}/scaling_governor": "powersave",
        f"{policy}/scaling_max_freq": "1190400",
        f"{policy}/cpuinfo_max_freq": "1510400",
        "sys/class/hwmon/hwmon1/oc3_event_cnt": "5",
    }
    where = place(tmp_path, files)
    assert levels(hardware.heat(where)) == [("warn", "cpu-thermal is at 96 C and slows down at 99 C")]
    assert [level for level, _ in levels(hardware.power(where))] == ["ok", "warn", "warn", "warn"]
    told = " ".join(message for _, message in levels(hardware.power(where)))
    assert "Jetson Orin Nano" in told and "5 times for over-current" in told and "1190 of 1510 MHz" in told
    assert ("warn", "a Jetson without TensorRT") in levels(software.engines(where))
    (tmp_path / zone / "temp").write_text("50000")
    assert levels(hardware.heat(where)) == [("ok", "50 C at the warmest (cpu-thermal)")]


def test_powersave_of_a_processor_that_chooses_itself_is_fine(tmp_path: Path) -> None:
    policy = "sys/devices/system/cpu/cpufreq/policy0"
    files = {f"{policy}/scaling_{name}": text for name, text in (("governor", "powersave"), ("driver", "intel_pstate"))}
    frequencies = {f"{policy}/{name}_freq": "4000000" for name in ("scaling_max", "cpuinfo_max")}
    assert levels(hardware.power(place(tmp_path, files | frequencies))) == [
        ("ok", "up to 4000 MHz, governor powersave")
    ]


def test_cameras_that_are_no_cameras_or_not_here(tmp_path: Path) -> None:
    files = {f"sys/class/video4linux/video{number}/name": "Boson" for number in (0, 1)}
    where = place(tmp_path, {**files, "dev/video0": ""})
    found = list(cameras.cameras(where))
    assert levels(iter(found)) == [
        ("bad", "/dev/video0 Boson cannot be used"),
        ("warn", "/dev/video1 Boson is not in this container"),
    ]
    assert "This is not a video device" in found[0].remedy
    assert levels(cameras.cameras(Place(root=tmp_path / "none")))[0][0] == "warn"


def test_cameras_that_are_there() -> None:
    who = Identity("/dev/v4l/by-id/usb-x")
    offers = (Offer("Y16 ", "16-bit", ()), Offer("GREY", "8-bit", ()))
    node = Node("/dev/video0", who, driver="uvcvideo", card="PureThermal", captures=True, offers=offers)
    capture = Capture("/dev/video0", "PureThermal")
    assert cameras.told(capture, node, "lepton") == ok(
        "/dev/video0 PureThermal = /dev/v4l/by-id/usb-x: Y16, GREY; profile lepton"
    )
    assert "no stable name" in cameras.told(capture, replace(node, identity=Identity()), "lepton").remedy
    assert "edgeunip cameras probe /dev/video0" in cameras.told(capture, node, None).remedy
    metadata = replace(node, captures=False, problem="It captures no video: metadata.")
    assert cameras.told(capture, metadata, None).level is Level.OK
    denied = Node("/dev/video0", who, problem="You may not open the camera")
    assert cameras.told(capture, denied, None).level is Level.BAD


def test_a_read_only_or_full_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [level for level, _ in levels(system.disk(Place(folder=tmp_path)))] == ["ok"]
    monkeypatch.setattr(system, "_FREE_MIB", (1e12, 1e13))
    assert levels(system.disk(Place(folder=tmp_path)))[0][0] == "bad"


def test_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert levels(system.disk(Place(folder=tmp_path)))[-1] == (
        "warn",
        "no temporary file can be made (No such file or directory)",
    )


def test_the_supervisors_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert levels(system.limits(Place()))[1][0] == "ok"
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    found = list(system.limits(Place()))[1]
    assert found.level is Level.BAD and "waits 30 s" in found.message and "WatchdogSec" in found.remedy


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(place: Place) -> Iterator[Finding]:
        yield ok("before")
        raise ZeroDivisionError(f"rtsp://me:{SECRET}@host")

    def refuses(place: Place) -> Iterator[Finding]:
        yield from ()
        raise BundleError("It is damaged", where=f"token={SECRET}", remedy="Get it again.")

    checks: dict[str, Check] = {"one": breaks, "two": refuses, "three": lambda place: iter([ok("after")])}
    monkeypatch.setattr(page, "CHECKS", checks)
    found = page.examine(Place())
    assert [(f.topic, f.level.value) for f in found] == [
        ("one", "ok"),
        ("one", "warn"),
        ("two", "bad"),
        ("three", "ok"),
    ]
    text = page.describe(found) + json.dumps(page.to_json(found))
    assert SECRET not in text and "ZeroDivisionError" in text and "Get it again." in text
    assert text.startswith("ok    one        before\n")


def test_an_engine_that_crashes_or_hangs_takes_nothing_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_is_installed", lambda name: name == "openvino")
    monkeypatch.setattr(software, "_PROBES", {"openvino": "import os; os.abort()"})
    assert levels(software.engines(Place())) == [("warn", "openvino is installed and does not work: it ended with -6")]
    monkeypatch.setattr(software, "_PROBES", {"openvino": "import time; time.sleep(60)"})
    monkeypatch.setattr(software, "_PROBE_S", 0.2)
    assert "it took too long" in levels(software.engines(Place()))[0][1]
    monkeypatch.setattr(software, "_PROBES", {"tensorrt": ""})
    assert levels(software.engines(Place()))[-1][0] == "bad"


def test_good_and_bad() -> None:
    assert page.is_good([ok("a"), warn("b", "c")]) and not page.is_good([ok("a"), bad("b", "c")])
    assert page.describe([ok("a"), warn("b", "c")]).endswith("1 ok, 1 to look at, 0 bad")


CODE = "from edgeunip.doctor import page; f = page.examine(); print(page.describe(f)); import sys; "
CODE += "assert not {'torch', 'openvino', 'onnxruntime', 'cv2'} & (sys.modules.keys() - {'cv2'}); "


def doctor(folder: Path, *, wrap: tuple[str, ...] = (), env: dict[str, str] | None = None) -> str:
    words = [*wrap, sys.executable, "-c", CODE]
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "this check itself failed" not in done.stdout, done.stdout
    return done.stdout


def test_bare_surroundings(tmp_path: Path) -> None:
    """No environment at all: no HOME, no PATH, locale C."""
    assert "to look at" in doctor(tmp_path, env={})


def test_a_user_without_a_name_or_a_folder_to_write(tmp_path: Path) -> None:
    wrap = ("unshare", "--user", "--map-user=54321")
    if shutil.which("unshare") is None or subprocess.run([*wrap, "true"], capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    tmp_path.chmod(0o555)
    told = doctor(tmp_path, wrap=wrap, env={"PATH": os.environ["PATH"]})
    tmp_path.chmod(0o755)
    assert f"{tmp_path} cannot be written" in told


def test_no_shared_memory_and_a_read_only_system(tmp_path: Path) -> None:
    hide = 'mount -t tmpfs -o ro none /dev/shm && mount -o remount,ro,bind / && exec "$0" "$@"'
    wrap = ("unshare", "--mount", "sh", "-c", hide)
    if shutil.which("unshare") is None or subprocess.run([*wrap, "true"], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    assert "cannot be written" in doctor(tmp_path, wrap=wrap, env={"PATH": os.environ["PATH"]})


def test_the_newest_bundle(tmp_path: Path) -> None:
    where = Place(folder=tmp_path)
    assert levels(software.newest_bundle(where)) == [("warn", f"none in {tmp_path / 'bundles'}")]
    (tmp_path / "bundles" / "x.bundle").mkdir(parents=True)
    (tmp_path / "bundles" / "x.bundle" / "manifest.json").write_text("{}")
    found = [finding for finding in page.examine(where) if finding.topic == "bundle"]
    assert [finding.level for finding in found] == [Level.BAD] and "x.bundle" in found[0].message
