"""What the machine is: processor, memory, power and heat."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

from edgeunip import machine
from edgeunip.doctor.finding import Finding, Place, ask, graded, ok, warn

_MEMORY_MIB = (200, 600)  # with less a stream does not start; with less it may be killed
_NEAR_C = 5.0  # so close to slowing down a zone counts as hot
_SLOW = {"powersave", "conservative"}
# Their "powersave" is no slow one: the processor itself chooses the frequency.
_OWN_CHOICE = {"intel_pstate", "amd-pstate-epp"}


def processor(place: Place) -> Iterator[Finding]:
    """Look at the cores, and at what they make of int8."""
    cpu = machine.cpu(place.root)
    usable = len(os.sched_getaffinity(0)) if place.root == machine.ROOT else cpu.cores
    cores = f"{usable} cores" if usable == cpu.cores else f"{usable} of {cpu.cores} cores"
    vectors = next((name.upper() for name in machine.VECTORS if name in cpu.features), "vectors unknown")
    yield ok(f"{cpu.model}, {cores}, {vectors}")
    gains = [meaning for name, meaning in machine.INT8.items() if name in cpu.features]
    if gains:
        yield ok(f"int8 pays: {gains[0]}")
    else:
        remedy = "Compare both: edgeunip bench BUNDLE."
        yield warn("no int8 products: an int8 bundle is smaller, but hardly faster than float32", remedy)


def memory(place: Place) -> Iterator[Finding]:
    """Look at what a stream may take."""
    found = machine.memory(place.root)
    free = found.available if found.limit is None else min(found.available, found.limit)
    limit = "" if found.limit is None else f", the control group allows {found.limit:.0f}"
    message = f"{found.available:.0f} of {found.total:.0f} MiB available{limit}, swap {found.swap:.0f} MiB"
    yield graded(free, _MEMORY_MIB, message, "End other programs, or use a smaller model.")


def power(place: Place) -> Iterator[Finding]:
    """Look at what keeps the processor slower than it could be."""
    if model := machine.jetson(place.root):
        yield _jetson(model)
    for cause, count in machine.over_current(place.root).items():
        remedy = "Use a stronger power supply, or a lower mode: sudo nvpmodel -m."
        yield warn(f"slowed down {count} times for over-current ({cause})", remedy)
    clocks = machine.clocks(place.root)
    if slow := sorted({clock.governor for clock in clocks if clock.driver not in _OWN_CHOICE} & _SLOW):
        remedy = "For a steady rate: sudo cpupower frequency-set -g schedutil (or performance)."
        yield warn(f"the governor {slow[0]} keeps the processor slow", remedy)
    capped = [clock for clock in clocks if clock.allowed < 0.9 * clock.possible]
    if capped:
        remedy = "Choose a higher power mode, or look for heat or a weak power supply."
        yield warn(f"the processor is held at {capped[0].allowed:.0f} of {capped[0].possible:.0f} MHz", remedy)
    if clocks and not slow and not capped:
        yield ok(f"up to {max(clock.possible for clock in clocks):.0f} MHz, governor {clocks[0].governor}")


def heat(place: Place) -> Iterator[Finding]:
    """Look at the temperature sensors, and at whether heat has slowed the machine down."""
    zones = machine.zones(place.root)
    hot = [zone for zone in zones if zone.throttles_at is not None and zone.celsius > zone.throttles_at - _NEAR_C]
    for zone in hot:
        message = f"{zone.name} is at {zone.celsius:.0f} C and slows down at {zone.throttles_at:.0f} C"
        yield warn(message, "Give it air or a heat sink, or a lower rate.")
    if zones and not hot:
        warmest = max(zones, key=lambda zone: zone.celsius)
        yield ok(f"{warmest.celsius:.0f} C at the warmest ({warmest.name})")
    if count := machine.throttled(place.root):
        yield warn(f"the processor has slowed down for heat {count} times", "Give it air or a heat sink.")


def _jetson(model: str) -> Finding:
    if shutil.which("nvpmodel") is None:
        return ok(model)
    _, out, _ = ask(["nvpmodel", "-q"], limit_s=5)
    mode = next((line.partition(":")[2].strip() for line in out.splitlines() if "Power Mode" in line), "unknown")
    return ok(f"{model}, power mode {mode}", "" if "MAXN" in mode.upper() else "For all it can: sudo nvpmodel -m 0")
