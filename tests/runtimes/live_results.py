"""Results as a stream would give them, made by hand: a 16-bit gradient with a warm person and a hot machine."""

import time

import cv2
import numpy as np

from edgeunip.classes import Classes
from edgeunip.frame import Frame, Result, State
from edgeunip.runtimes.measure import statistics
from edgeunip.thermal import Agc, Linear

CLASSES = Classes(("background", "person", "machine"), ((0, 0, 0), (255, 122, 61), (53, 201, 195)))
LINEAR = Linear(0.01, -273.15)


def made(seq=0, *, height=120, width=160, state=State.LIVE, radiometry=LINEAR, dropped=0, age_ms=42.0):
    """One result. The person walks to the right with ``seq``."""
    y, x = np.mgrid[:height, :width]
    celsius = 15 + 5 * y / height + 2 * x / width
    person = ((x - width * (0.25 + 0.002 * seq)) / (0.06 * width)) ** 2 + ((y - 0.6 * height) / (0.3 * height)) ** 2 < 1
    machine = (abs(x - 0.75 * width) < 0.1 * width) & (abs(y - 0.7 * height) < 0.1 * height)
    celsius = np.where(person, 33 + 2 * np.cos(y / 7), celsius)
    celsius = np.where(machine, 60 - 0.2 * np.hypot(x - 0.75 * width, y - 0.7 * height), celsius)
    smooth = cv2.GaussianBlur(celsius.astype(np.float32), (0, 0), 1)
    counts = np.round((smooth + 273.15) * 100).astype(np.uint16)
    labels = np.where(machine, 2, np.where(person, 1, 0)).astype(np.uint8)
    done_ns = time.monotonic_ns()
    frame = Frame(counts, seq, done_ns - round(age_ms * 1e6), state, radiometry)
    found = statistics(frame, labels, CLASSES)
    return Result(frame, Agc(mode="percentile").picture(counts), labels, found, done_ns, dropped)


def noisy(seq=0, *, height=480, width=640):
    """The result that is hardest to encode and to send: 500 kB of noise."""
    rng = np.random.default_rng(seq)
    counts = rng.integers(0, 65536, (height, width), np.uint16)
    labels = rng.integers(0, len(CLASSES), (height, width), np.uint8)
    frame = Frame(counts, seq, time.monotonic_ns(), State.LIVE, LINEAR)
    picture = (counts >> 8).astype(np.uint8)
    return Result(frame, picture, labels, statistics(frame, labels, CLASSES), time.monotonic_ns())
