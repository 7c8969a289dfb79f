import io

import av
import numpy as np
import pytest

from edgeunip.runtimes.encode import Encoder, colour_codec, colour_picture


def encoded(shape, times_ms):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        pictures = [colour_picture(np.full((*shape, 3), 120, np.uint8)) for _ in times_ms]
        encoder = Encoder(container, colour_codec(), pictures[0])
        assert all(encoder.fits(picture) for picture in pictures)
        assert not encoder.fits(colour_picture(np.zeros((shape[0] + 2, shape[1], 3), np.uint8)))
        for picture, time_ms in zip(pictures, times_ms, strict=True):
            for packet in encoder.encode(picture, time_ms):
                container.mux(packet)
        for packet in encoder.finish():
            container.mux(packet)
    file.seek(0)
    with av.open(file) as video:
        return [
            (round(1000 * frame.time), frame.height, frame.width, frame.key_frame) for frame in video.decode(video=0)
        ]


@pytest.mark.parametrize(("shape", "even"), [((120, 160), (120, 160)), ((121, 161), (122, 162))])
def test_sizes(shape, even):
    assert [entry[1:3] for entry in encoded(shape, [0, 111])] == [even, even]


def test_times_grow_also_when_the_clock_begins_anew():
    found = encoded((64, 64), [5_000, 5_111, 5_111, 5_300, 100, 200])
    assert [time_ms for time_ms, *_ in found] == [0, 111, 112, 301, 302, 402]


def test_key_frames_by_time():
    found = encoded((64, 64), range(0, 5_000, 100))
    assert [time_ms for time_ms, _, _, key in found if key] == [0, 800, 1600, 2400, 3200, 4000, 4800]
