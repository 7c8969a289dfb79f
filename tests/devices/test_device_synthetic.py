from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgeunip.devices.open import open_camera
from edgeunip.devices.synthetic import SyntheticCamera
from edgeunip.frame import Frame, State
from edgeunip.scenes import SENSORS


@pytest.mark.parametrize(("name", "shape"), [("lepton", (120, 160)), ("tc001", (192, 256)), ("boson", (512, 640))])
def test_what_each_camera_gives(name: str, shape: tuple[int, int]) -> None:
    with open_camera(f"synthetic://{name}?seed=3&seconds=60") as camera:
        frame = next(iter(camera))
    assert camera.live and camera.rate_hz == SENSORS[name].rate_hz
    assert frame.counts.shape == shape and frame.counts.dtype == np.uint16
    assert frame.seq == 0 and frame.state is State.LIVE
    if name == "boson":
        assert frame.radiometry is None
    else:
        assert frame.radiometry is not None
        celsius = frame.radiometry.celsius(frame.counts)
        assert -60 < np.median(celsius) < 60 and np.ptp(celsius) > 3


@pytest.mark.parametrize(("name", "seconds"), [("lepton", 2), ("tc001", 1)])
def test_the_pace_is_the_sensors(name: str, seconds: int) -> None:
    """No frame before its time, and none left out unless the one before it was late: true on a busy machine too."""
    frames: list[Frame] = []
    arrivals: list[int] = []
    with open_camera(f"synthetic://{name}?seconds={seconds}") as camera:
        begin = time.monotonic()
        for frame in camera:
            frames.append(frame)
            arrivals.append(time.monotonic_ns())
        took = time.monotonic() - begin
    rate = SENSORS[name].rate_hz
    times, seqs = np.array([frame.t_ns for frame in frames]), np.array([frame.seq for frame in frames])
    assert (np.array(arrivals) >= times).all()
    assert np.allclose((times - times[0]) / 1e9, seqs / rate, atol=1e-6)
    late = np.diff(arrivals) > 1e9 / rate
    assert ((np.diff(seqs) == 1) | late).all()
    assert len(frames) >= 2 and seqs[-1] < seconds * rate
    assert took > seconds - 1.5 / rate


def test_a_slow_consumer_gets_gaps_and_fresh_frames() -> None:
    """A frame is at most one period older than the moment it was asked for."""
    seqs, ages = [], []
    with open_camera("synthetic://tc001?seconds=1") as camera:
        frames = iter(camera)
        asked = time.monotonic_ns()
        for frame in frames:
            seqs.append(frame.seq)
            ages.append(asked - frame.t_ns)
            time.sleep(0.2)
            asked = time.monotonic_ns()
    assert (np.diff(seqs) >= 4).all() and 2 <= len(seqs) <= 6
    assert max(ages) <= 1.01e9 / SENSORS["tc001"].rate_hz


def test_the_seed_decides() -> None:
    def first(source: str) -> np.ndarray:
        with open_camera(source) as camera:
            return next(iter(camera)).counts

    same = first("synthetic://lepton?seed=5&night=1")
    assert np.array_equal(same, first("synthetic://lepton?night=1&seed=5"))
    assert np.array_equal(first("synthetic://lepton?night=1"), first("synthetic://lepton?seed=0&night=1"))
    assert not np.array_equal(same, first("synthetic://lepton?seed=6&night=1"))
    assert not np.array_equal(same, first("synthetic://lepton?seed=5&night=0"))


def test_a_profile_overrides_the_radiometry() -> None:
    with open_camera("synthetic://tc001", profile="raw") as camera:
        assert next(iter(camera)).radiometry is None
    with open_camera("synthetic://tc001", profile="tc001") as camera:
        assert next(iter(camera)).counts.shape == (192, 256)


def test_closing_from_another_thread_ends_the_wait() -> None:
    slow = SyntheticCamera("slow", SENSORS["lepton"])
    with slow as camera:
        thread = threading.Thread(target=lambda: list(camera))
        thread.start()
        time.sleep(0.2)
    begin = time.monotonic()
    thread.join(2.0)
    assert not thread.is_alive() and time.monotonic() - begin < 0.5
