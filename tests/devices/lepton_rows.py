"""Telemetry rows of a Lepton as its datasheet lays them out, made for tests word by word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rows(
    columns: int = 160,
    *,
    counter: int = 100_000,
    uptime_ms: int = 3_700_123,
    last_ffc_ms: int = 3_600_000,
    ffc: int = 3,
    tlinear: int = 1,
    fine: int = 1,
    sensor_k100: int = 30_215,
) -> NDArray[np.uint16]:
    words = np.zeros(2 * 160 if columns == 160 else 3 * 80, np.uint16)

    def double(at: int, value: int) -> None:
        words[at], words[at + 1] = value & 0xFFFF, value >> 16

    words[0] = 14 | 2 << 8
    double(1, uptime_ms)
    double(3, ffc << 4)
    words[5:17] = np.arange(40_000, 40_012)  # serial number and software revision
    double(20, counter)
    words[22], words[23], words[24] = 30_000, 7_900, sensor_k100
    words[25], words[26] = 8_100, 30_115
    words[29], words[32] = 30_195, 30_100
    double(30, last_ffc_ms)
    words[99] = 8192  # emissivity 1
    words[208], words[209] = tlinear, fine
    return words.reshape(-1, columns)
