"""What Linux says of the machine, read from ``/proc`` and ``/sys``. What is not told there is None or empty."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
_UNLIMITED = 1 << 60  # cgroup v1 says "no limit" as a number near 2**63

# What of a processor's abilities matters to int8, as Linux names it, best first, and what it means.
INT8 = {
    "amx_int8": "AMX, int8 products in tiles",
    "avx512_vnni": "AVX-512 VNNI, four int8 products where float32 has one",
    "avx_vnni": "AVX VNNI, four int8 products where float32 has one",
    "i8mm": "Arm I8MM, int8 matrix products",
    "asimddp": "Arm dot product, four int8 products where float32 has one",
}
VECTORS = ("avx512f", "avx2", "asimd", "neon", "avx", "sse4_2")


@dataclass(frozen=True)
class Cpu:
    """The processor.

    Attributes:
        model: its name.
        cores: that are on.
        features: of :data:`INT8` and :data:`VECTORS`, those it has.
    """

    model: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """Working memory in MiB; ``limit``: what the control group allows, None without one."""

    total: float
    available: float
    swap: float
    limit: float | None


@dataclass(frozen=True)
class Zone:
    """A temperature sensor: degC now, and at which the machine slows down, None where that is not told."""

    name: str
    celsius: float
    throttles_at: float | None


@dataclass(frozen=True)
class Clock:
    """A core's frequencies in MHz, allowed and possible, and what chooses among them: governor and driver."""

    governor: str
    driver: str
    allowed: float
    possible: float


@dataclass(frozen=True)
class Capture:
    """A video node: its path, and what the driver calls it."""

    node: str
    name: str


def cpu(root: Path = ROOT) -> Cpu:
    """Return the processor."""
    text = _text(root / "proc/cpuinfo")
    fields = dict(re.findall(r"^([\w ]+?)\s*:[ \t]*(.*)$", text, re.MULTILINE))
    words = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    model = fields.get("model name") or fields.get("Model") or fields.get("Hardware") or _device_tree(root) or "unknown"
    cores = len(re.findall(r"^processor\s*:", text, re.MULTILINE))
    return Cpu(model, cores, tuple(name for name in (*INT8, *VECTORS) if name in words))


def memory(root: Path = ROOT) -> Memory:
    """Return the working memory."""
    kib = {
        name: int(value) for name, value in re.findall(r"^(\w+):\s*(\d+)", _text(root / "proc/meminfo"), re.MULTILINE)
    }
    total, available, swap = (kib.get(name, 0) / 1024 for name in ("MemTotal", "MemAvailable", "SwapTotal"))
    return Memory(total, available, swap, cgroup_limit_mib(root))


def cgroup_limit_mib(root: Path = ROOT) -> float | None:
    """Return the smallest memory limit of this process's control groups, MiB; None without one."""
    own = re.search(r"^0::/?(.*)$", _text(root / "proc/self/cgroup"), re.MULTILINE)
    folder, found = root / "sys/fs/cgroup", []
    parts = own.group(1).split("/") if own else []
    for depth in range(len(parts) + 1):
        found.append(_number(folder.joinpath(*parts[:depth]) / "memory.max"))
    found.append(_number(folder / "memory/memory.limit_in_bytes"))
    limits = [value for value in found if value is not None and value < _UNLIMITED]
    return min(limits) / 2**20 if limits else None


def zones(root: Path = ROOT) -> tuple[Zone, ...]:
    """Return the temperature sensors that have a value."""
    found = []
    for folder in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        milli = _number(folder / "temp")
        if milli is not None:
            trips = [
                _trip(file) for file in folder.glob("trip_point_*_type") if _text(file).strip() in ("passive", "hot")
            ]
            known = [trip for trip in trips if trip]
            found.append(Zone(_text(folder / "type").strip(), milli / 1000, min(known) if known else None))
    return tuple(found)


def clocks(root: Path = ROOT) -> tuple[Clock, ...]:
    """Return every core group's frequencies."""
    found = []
    for folder in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        allowed, possible = ((_number(folder / name) or 0) / 1000 for name in ("scaling_max_freq", "cpuinfo_max_freq"))
        governor, driver = (_text(folder / f"scaling_{name}").strip() for name in ("governor", "driver"))
        found.append(Clock(governor, driver, allowed, possible))
    return tuple(found)


def throttled(root: Path = ROOT) -> int:
    """Return how often an x86 processor has slowed itself down for heat since it was started."""
    counts = (
        _number(file) for file in (root / "sys/devices/system/cpu").glob("cpu*/thermal_throttle/*_throttle_count")
    )
    return int(sum(count or 0 for count in counts))


def over_current(root: Path = ROOT) -> dict[str, int]:
    """Return how often a Jetson has slowed down because it drew too much current, by the cause; only those that did."""
    found = {}
    for file in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")):
        count = int(_number(file) or 0)
        if count:
            found[file.name.removesuffix("_event_cnt")] = count
    return found


def captures(root: Path = ROOT) -> tuple[Capture, ...]:
    """Return the video nodes that the system has; a container may not show them all under ``/dev``."""
    nodes = sorted((root / "sys/class/video4linux").glob("video*"), key=lambda node: (len(node.name), node.name))
    return tuple(Capture(f"/dev/{node.name}", _text(node / "name").strip()) for node in nodes)


def jetson(root: Path = ROOT) -> str:
    """Return the name of the Jetson this is; empty on other machines."""
    model = _device_tree(root)
    return model if "jetson" in model.lower() or "orin" in model.lower() or "xavier" in model.lower() else ""


def _device_tree(root: Path) -> str:
    return _text(root / "proc/device-tree/model").rstrip("\0").strip()


def _trip(file: Path) -> float | None:
    value = _number(file.with_name(file.name.replace("_type", "_temp")))
    return value / 1000 if value else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
