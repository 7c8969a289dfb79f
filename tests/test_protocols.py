"""A protocol is no wider than its smallest implementation: these are the smallest ones, checked by mypy as well."""

import inspect
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import Self, get_protocol_members

from edgeunip.frame import Frame, Result
from edgeunip.protocols import Camera, Runtime, Sink, Taker


class SmallestRuntime:
    name, concurrency = "zeros", 1

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((2, picture.shape[0] // 4, picture.shape[1] // 4), np.float32)

    def close(self) -> None:
        pass


class SmallestCamera:
    name, live = "one frame", False
    rate_hz: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        yield Frame(np.zeros((32, 64), np.uint16), 0, 0)


class SmallestSink:
    name = "count"

    def __init__(self) -> None:
        self.seen = 0

    def write(self, item: Result) -> None:
        self.seen += 1

    def close(self) -> None:
        pass


def test_the_smallest_implementations_make_a_stream() -> None:
    runtime: Runtime = SmallestRuntime()
    camera: Camera = SmallestCamera()
    sink = SmallestSink()
    taker: Sink = sink
    with camera as opened:
        for frame in opened:
            logits = runtime(frame.counts.astype(np.uint8))
            assert logits.shape == (2, 8, 16)
            taker.write(Result(frame, frame.counts.astype(np.uint8), np.zeros((32, 64), np.uint8), {}, 1))
    assert sink.seen == 1


@pytest.mark.parametrize(
    ("protocol", "members", "smallest"),
    [
        (Runtime, {"name", "concurrency", "__call__", "close"}, SmallestRuntime),
        (Camera, {"name", "live", "rate_hz", "__enter__", "__exit__", "__iter__"}, SmallestCamera),
        (Taker, {"name", "write", "close"}, SmallestSink),
    ],
)
def test_no_wider_than_the_smallest(protocol: type, members: set[str], smallest: type) -> None:
    assert get_protocol_members(protocol) == members
    for name in members:
        assert hasattr(smallest, name)
        if callable(getattr(protocol, name, None)):
            ours, theirs = inspect.signature(getattr(protocol, name)), inspect.signature(getattr(smallest, name))
            assert list(ours.parameters) == list(theirs.parameters), name
            assert inspect.getdoc(getattr(protocol, name)), name
