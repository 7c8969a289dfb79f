"""The guard's promises with the real time budget and in full number; test_device_guard.py has the quick forms."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import guard_checks as checks
import pytest
from fake_process import FakeProcess, watch

pytestmark = pytest.mark.slow


def test_20_corrections_of_2_5_s_never_and_20_freezes_of_6_s_always_reopen_the_camera(tmp_path: Path) -> None:
    """On four cameras at once, at the rates of real ones."""
    errors: list[BaseException] = []

    def run(index: int, rate: float) -> None:
        folder = tmp_path / str(index)
        folder.mkdir()
        try:
            with FakeProcess(folder, rate=rate) as fake, watch(fake.path) as seen:
                for _ in range(5):
                    checks.correction(fake, seen, 2.5)
                    checks.freeze(fake, seen, 6.0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=one) for one in enumerate((8.7, 9.0, 25.0, 60.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def test_50_kills_and_restarts_each_back_in_less_than_2_s(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=25) as fake, watch(fake.path) as seen:
        waits = sorted(checks.restart(fake, seen) for _ in range(50))
    print(f"unix: 50 restarts, back after {waits[25]:.2f} s (median), {waits[-1]:.2f} s (longest)")
    assert waits[-1] < 2.0 and seen.status.opened == 51
    assert all(a < b for a, b in itertools.pairwise(frame.seq for frame in seen.frames))


@pytest.mark.parametrize("rate", [8.7, 25, 60])
def test_20_stalls_are_told_in_time(tmp_path: Path, rate: float) -> None:
    late = []
    for _ in range(20 if rate == 25 else 3):
        with FakeProcess(tmp_path, rate=rate) as fake, watch(fake.path) as seen:
            late.append(checks.stall(fake, seen, rate) - 3 / rate)
    print(f"stall at {rate} Hz: told three periods and {max(late):.3f} s after the last frame at the latest")


def test_200000_frames_at_full_speed_are_all_accounted_for(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, "--frames", "200000", rate=0) as fake:
        speed, dropped = checks.accounts(fake, 200_000)
    print(f"200,000 frames at {speed:.0f} a second, {dropped} dropped and counted")


def test_nothing_is_left_after_300_reconnects(tmp_path: Path) -> None:
    with FakeProcess(tmp_path, rate=200) as fake:
        checks.reconnects(fake, 300)
