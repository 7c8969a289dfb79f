"""How much memory this process holds, and the end before the kernel makes one."""

from __future__ import annotations

import os
from pathlib import Path

from edgeunip.errors import MemoryLimitError

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_mib() -> float:
    """Return the memory this process holds now, MiB."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE / 2**20


def check(limit_mib: float | None) -> None:
    """Raise when the process holds more than ``limit_mib`` MiB, so that a supervisor starts it anew; None: never.

    Raises:
        MemoryLimitError: it does.
    """
    if limit_mib is not None and (held := rss_mib()) > limit_mib:
        raise MemoryLimitError(
            f"The process holds {held:.0f} MiB, more than the {limit_mib:.0f} it may",
            remedy="A supervisor starts it again; if this comes often, raise --max-memory or report a leak.",
        )
