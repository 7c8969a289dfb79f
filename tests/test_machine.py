"""What Linux says of a machine, from made-up trees of /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeunip import machine
from edgeunip.machine import Capture, Clock, Memory, Zone

ORIN = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp
CPU part\t: 0xd42

processor\t: 1
Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp
"""
XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Gold 6430
flags\t\t: fpu sse4_2 avx avx2 avx512f avx512_vnni amx_int8 avx_vnni
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_processors(tmp_path: Path) -> None:
    orin = tree(tmp_path / "a", {"proc/cpuinfo": ORIN, "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"})
    assert machine.cpu(orin) == machine.Cpu("NVIDIA Jetson Orin Nano", 2, ("asimddp", "asimd"))
    assert machine.jetson(orin) == "NVIDIA Jetson Orin Nano"
    xeon = tree(tmp_path / "b", {"proc/cpuinfo": XEON})
    found = machine.cpu(xeon)
    assert (found.model, found.cores) == ("Intel(R) Xeon(R) Gold 6430", 1)
    assert found.features == ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "avx", "sse4_2")
    assert machine.jetson(xeon) == ""


def test_memory_and_the_smallest_limit_of_nested_groups(tmp_path: Path) -> None:
    meminfo = "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 1048576 kB\n"
    files = {
        "proc/meminfo": meminfo,
        "proc/self/cgroup": "0::/system.slice/edgeunip.service\n",
        "sys/fs/cgroup/system.slice/memory.max": f"{300 * 2**20}\n",
        "sys/fs/cgroup/system.slice/edgeunip.service/memory.max": "max\n",
    }
    assert machine.memory(tree(tmp_path, files)) == Memory(8192, 4096, 1024, 300)
    (tmp_path / "sys/fs/cgroup/system.slice/memory.max").write_text("max")
    assert machine.cgroup_limit_mib(tmp_path) is None
    tree(tmp_path, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})
    assert machine.cgroup_limit_mib(tmp_path) is None


def test_heat_and_power(tmp_path: Path) -> None:
    zone, policy = "sys/class/thermal/thermal_zone0", "sys/devices/system/cpu/cpufreq/policy0"
    files = {
        f"{zone}/type": "cpu-thermal\n",
        f"{zone}/temp": "96500\n",
        f"{zone}/trip_point_0_type": "critical\n",
        f"{zone}/trip_point_0_temp": "104500\n",
        f"{zone}/trip_point_1_type": "passive\n",
        f"{zone}/trip_point_1_temp": "99000\n",
        "sys/class/thermal/thermal_zone1/type": "broken\n",
        f"{policy}/scaling_governor": "schedutil\n",
        f"{policy}/scaling_driver": "tegra194\n",
        f"{policy}/scaling_max_freq": "1190400\n",
        f"{policy}/cpuinfo_max_freq": "1510400\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
        "sys/class/hwmon/hwmon1/oc1_event_cnt": "2\n",
        "sys/class/hwmon/hwmon1/oc2_event_cnt": "0\n",
    }
    root = tree(tmp_path, files)
    assert machine.zones(root) == (Zone("cpu-thermal", 96.5, 99.0),)
    assert machine.clocks(root) == (Clock("schedutil", "tegra194", 1190.4, 1510.4),)
    assert machine.throttled(root) == 7
    assert machine.over_current(root) == {"oc1": 2}


def test_video_nodes(tmp_path: Path) -> None:
    for number, name in ((10, "vivid"), (2, "PureThermal (fw:v1.3.0)")):
        tree(tmp_path, {f"sys/class/video4linux/video{number}/name": f"{name}\n"})
    found = Capture("/dev/video2", "PureThermal (fw:v1.3.0)"), Capture("/dev/video10", "vivid")
    assert machine.captures(tmp_path) == found


@pytest.mark.parametrize(
    "name", ["cpu", "memory", "zones", "clocks", "throttled", "over_current", "captures", "jetson"]
)
def test_a_machine_that_tells_nothing(name: str, tmp_path: Path) -> None:
    assert not getattr(machine, name)(tmp_path) or name in ("cpu", "memory")


def test_this_machine() -> None:
    assert machine.cpu().cores >= 1 and machine.memory().total > 100
