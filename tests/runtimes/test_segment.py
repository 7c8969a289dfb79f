import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_runtime import CENTRES, HEIGHT, LINEAR, WIDTH, scene, tiny_manifest

from edgeunip.errors import InferenceError, UsageError
from edgeunip.frame import Frame, State
from edgeunip.runtimes.segment import Segmenter, class_map, decide
from edgeunip.thermal import Agc, fit


def frame(counts, seq=0, t_s=0.0, state=State.LIVE, radiometry=LINEAR):
    return Frame(counts, seq, round(t_s * 1e9), state, radiometry)


finite = st.floats(-1e6, 1e6, width=32)


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 21), st.integers(1, 9), st.integers(1, 9)), elements=finite))
def test_decide_is_argmax_with_the_first_of_equals(logits):
    found = decide(logits)
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.argmax(logits, 0))


def test_decide_takes_256_classes():
    logits = np.zeros((256, 1, 256), np.float32)
    logits[np.arange(256), 0, np.arange(256)] = 1
    assert np.array_equal(decide(logits)[0], np.arange(256))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(value):
    logits = np.zeros((3, 4, 4), np.float32)
    logits[2, 1, 1] = value
    with pytest.raises(InferenceError, match=r"output is not finite\. Run edgeunip verify"):
        decide(logits)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_class_map_takes_the_nearest_cell(rows, columns, height, width, seed):
    logits = np.random.default_rng(seed).normal(size=(5, rows, columns)).astype(np.float32)
    enlarged = class_map(logits, (height, width))
    y = ((2 * np.arange(height) + 1) * rows) // (2 * height)
    x = ((2 * np.arange(width) + 1) * columns) // (2 * width)
    expected = np.argmax(logits, 0)[np.ix_(y, x)]
    assert enlarged.shape == (height, width)
    # Where a native pixel's centre lies between two cells, either is nearest.
    assert np.mean(enlarged == expected) == 1 or (height % rows or width % columns)
    assert set(np.unique(enlarged)) <= set(np.unique(decide(logits)))


def test_a_frame_becomes_the_classes_of_its_gray(runtime):
    segmenter = Segmenter(tiny_manifest())
    result = segmenter(frame(scene()), runtime)
    gray = fit(result.picture, HEIGHT, WIDTH).reshape(HEIGHT // 4, 4, WIDTH // 4, 4).mean((1, 3))
    nearest = np.abs(gray[None] - np.array(CENTRES)[:, None, None]).argmin(0)
    assert result.class_map.shape == (120, 160)
    assert np.array_equal(
        class_map(np.eye(4, dtype=np.float32)[nearest].transpose(2, 0, 1), (120, 160)), result.class_map
    )
    assert result.classes["hot"].max_c == pytest.approx(LINEAR.celsius(scene().max(keepdims=True)).item())
    assert sum(entry.pixels for entry in result.classes.values()) == 120 * 160


def test_a_frame_of_its_own_is_the_training_picture():
    prepared = Segmenter(tiny_manifest(), rate_hz=0.0).prepare(frame(scene()))
    assert np.array_equal(prepared.picture, tiny_manifest().agc.picture(scene()))
    assert prepared.model_picture.shape == (HEIGHT, WIDTH)


def test_tone_is_smoothed_live_and_not_over_single_pictures():
    warmer = (scene() + 3000).astype(np.uint16)
    alone = tiny_manifest().agc.picture(warmer)
    live = Segmenter(tiny_manifest())
    live.prepare(frame(scene()))
    assert not np.array_equal(live.prepare(frame(warmer, 1, 0.1)).picture, alone)
    single = Segmenter(tiny_manifest(), rate_hz=0.0)
    single.prepare(frame(scene()))
    assert np.array_equal(single.prepare(frame(warmer, 1, 0.1)).picture, alone)


def test_a_file_is_smoothed_by_its_own_rate_however_fast_it_is_read():
    warmer = (scene() + 3000).astype(np.uint16)
    file, live = Segmenter(tiny_manifest(), rate_hz=5.0), Segmenter(tiny_manifest())
    file.prepare(frame(scene()))
    live.prepare(frame(scene()))
    assert np.array_equal(file.prepare(frame(warmer, 1, 1e-3)).picture, live.prepare(frame(warmer, 1, 0.2)).picture)


@pytest.mark.parametrize("state", [State.FFC, State.SETTLING])
def test_tone_is_kept_while_the_shutter_is_closed(state):
    segmenter = Segmenter(tiny_manifest())
    before = segmenter.prepare(frame(scene())).picture
    shutter = np.full_like(scene(), 31000)
    segmenter.prepare(frame(shutter, 1, 0.5, state))
    segmenter.prepare(frame(shutter, 2, 5.0, state))
    assert np.array_equal(segmenter.prepare(frame(scene(), 3, 6.0, state)).picture, before)
    # Negative control: a live frame of the same content does move it.
    segmenter.prepare(frame(shutter, 4, 7.0))
    assert not np.array_equal(segmenter.prepare(frame(scene(), 5, 7.1, state)).picture, before)


def test_a_stream_that_begins_with_a_closed_shutter_does_not_keep_its_tone():
    segmenter = Segmenter(tiny_manifest())
    segmenter.prepare(frame(np.full_like(scene(), 31000), 0, 0.0, State.FFC))
    assert np.array_equal(segmenter.prepare(frame(scene(), 1, 0.1)).picture, tiny_manifest().agc.picture(scene()))


def test_window_mode_needs_temperatures():
    segmenter = Segmenter(tiny_manifest(agc=Agc(mode="window")))
    with pytest.raises(UsageError, match="needs temperatures"):
        segmenter.prepare(frame(scene(), radiometry=None))


def test_fit_averages_when_shrinking_and_leaves_the_right_size_alone():
    picture = np.random.default_rng(0).integers(0, 256, (64, 96)).astype(np.uint8)
    half = fit(picture, 32, 48)
    assert np.abs(half - picture.reshape(32, 2, 48, 2).mean((1, 3))).max() <= 0.5
    assert fit(picture, 64, 96) is picture
    assert fit(picture, 128, 48).shape == (128, 48)
