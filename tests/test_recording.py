import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeunip.errors import SinkError, SourceError
from edgeunip.frame import Frame, State
from edgeunip.recording import MIN_WIDTH, Recording, stamp, unstamp
from edgeunip.thermal import Linear, Planck

LINEAR = Linear(0.01, -273.15)
NUMBER = st.integers(0, 2**63 - 1)


def noise(height, width, dtype, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (height, width)).astype(dtype)


@given(
    height=st.integers(1, 9),
    width=st.integers(MIN_WIDTH, 70),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    seq=NUMBER,
    t_ns=NUMBER,
    state=st.sampled_from(State),
)
def test_a_frame_comes_back_as_it_was(height, width, dtype, seq, t_ns, state):
    frame = Frame(noise(height, width, dtype), seq, t_ns, state, LINEAR)
    stamped = stamp(frame, "x")
    assert stamped.shape == (height + 1, width) and stamped.dtype == dtype
    back = unstamp(stamped, LINEAR, "x")
    assert np.array_equal(back.counts, frame.counts) and back.counts.dtype == dtype
    assert (back.seq, back.t_ns, back.state, back.radiometry) == (seq, t_ns, state, LINEAR)


@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.uint16]))
def test_one_wrong_bit_anywhere_is_noticed(data, dtype):
    stamped = stamp(Frame(noise(3, 40, dtype), 5, 7), "x")
    used = 3 * 40 * stamped.itemsize + 28
    position, bit = data.draw(st.integers(0, used - 1)), data.draw(st.integers(0, 7))
    stamped.reshape(-1).view(np.uint8)[position] ^= 1 << bit
    with pytest.raises(SourceError, match=r"^A recorded frame is damaged: a\.mkv \(its "):
        unstamp(stamped, None, "a.mkv")


@given(st.binary(min_size=64, max_size=64))
def test_what_is_no_stamp_is_refused(row):
    image = np.zeros((2, 64), np.uint8)
    image[1] = np.frombuffer(row, np.uint8)
    with pytest.raises(SourceError):
        unstamp(image, None, "x")


@pytest.mark.parametrize("shape", [(1, 64), (4, 16)])
def test_a_frame_too_small_for_its_row_is_refused(shape):
    with pytest.raises(SourceError, match="its size is"):
        unstamp(np.zeros(shape, np.uint8), None, "x")


def test_narrow_frames_are_not_recorded():
    with pytest.raises(SinkError, match=r"^Frames of 31 pixels are too narrow to record: 32 are needed: record:a\.mkv"):
        stamp(Frame(np.zeros((4, 31), np.uint16), 0, 0), "record:a.mkv")


@pytest.mark.parametrize("radiometry", [None, LINEAR, Planck(21106.77, 0.01254, 1501.0, 1.0, -7340.0, emissivity=0.95)])
def test_the_tag_comes_back(radiometry):
    recording = Recording(radiometry, "rtsp://***@cam/1", "lepton", "2026-11-21T10:00:00+00:00", "0.1.0")
    assert Recording.from_tag(recording.to_tag(), "x") == recording


@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda c: st.lists(c) | st.dictionaries(st.text(), c)).map(
        json.dumps
    )
)
def test_what_is_no_tag_is_refused_in_one_line(text):
    with pytest.raises(SourceError, match="recording"):
        Recording.from_tag(text, "a.mkv")


def test_a_later_version_names_the_remedy():
    with pytest.raises(SourceError, match=r"unknown version 2: a\.mkv\. Read it with"):
        Recording.from_tag('{"version": 2, "new": []}', "a.mkv")
