import io

import av
import numpy as np
import pytest

from edgeunip.runtimes.encode import Encoder


def encoded(shape, times_ms):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        encoder = Encoder(container, shape)
        for time_ms in times_ms:
            for packet in encoder.encode(np.full((*shape, 3), 120, np.uint8), time_ms):
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


def test_a_key_frame_every_second():
    found = encoded((64, 64), range(0, 5_000, 100))
    assert [time_ms for time_ms, _, _, key in found if key] == [0, 1000, 2000, 3000, 4000]
