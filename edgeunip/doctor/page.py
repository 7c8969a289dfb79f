"""The whole look at a device. Every check stands alone: one that fails is a finding, never a crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgeunip import __version__
from edgeunip.doctor import cameras, hardware, software, system
from edgeunip.doctor.finding import Check, Finding, Level, Place, bad, warn
from edgeunip.errors import EdgeunipError
from edgeunip.redaction import clean

CHECKS: dict[str, Check] = {
    "software": software.packages,
    "engine": software.engines,
    "processor": hardware.processor,
    "memory": hardware.memory,
    "power": hardware.power,
    "heat": hardware.heat,
    "disk": system.disk,
    "clock": system.clock,
    "limits": system.limits,
    "display": system.display,
    "camera": cameras.cameras,
    "bundle": software.newest_bundle,
}
_MARKS = {Level.OK: "ok", Level.WARN: "WARN", Level.BAD: "BAD"}


def examine(place: Place | None = None) -> list[Finding]:
    """Run every check."""
    place = place or Place()
    return [finding for topic, check in CHECKS.items() for finding in _isolated(topic, check, place)]


def describe(findings: Sequence[Finding]) -> str:
    """Return the page."""
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.level]:<5} {finding.topic:<10} {finding.message}")
        if finding.remedy:
            lines.append(f"{'':16} -> {finding.remedy}")
    found = [finding.level for finding in findings]
    lines.append(f"{found.count(Level.OK)} ok, {found.count(Level.WARN)} to look at, {found.count(Level.BAD)} bad")
    return "\n".join(lines)


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings as plain JSON values."""
    plain = [{"topic": f.topic, "level": f.level.value, "message": f.message, "remedy": f.remedy} for f in findings]
    return {"version": __version__, "good": is_good(findings), "findings": plain}


def is_good(findings: Sequence[Finding]) -> bool:
    """Tell whether nothing is bad."""
    return all(finding.level is not Level.BAD for finding in findings)


def _isolated(topic: str, check: Check, place: Place) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(place))
    except EdgeunipError as error:
        found.append(bad(str(error), ""))
    except Exception as error:
        message = f"this check itself failed: {type(error).__name__}: {error}"
        found.append(warn(message, "Report it, with what edgeunip --debug doctor says."))
    return [replace(f, topic=topic, message=clean(f.message), remedy=clean(f.remedy)) for f in found]
