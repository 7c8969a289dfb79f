"""The three contracts between stations. A protocol is no wider than its smallest implementation."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from edgeunip.frame import Frame, Result


class Runtime(Protocol):
    """A loaded model.

    Attributes:
        name: what runs it, for people, such as ``openvino 2026.4 CPU``.
        concurrency: how many calls may run at the same time, from as many threads; at least 1.
    """

    name: str
    concurrency: int

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Segment one picture.

        Args:
            picture: AGC picture of the model's input size, shape (H, W), 0..255.

        Returns:
            Logits at a quarter of the resolution, shape (classes, H/4, W/4); the caller's own copy.

        Raises:
            InferenceError: the shape does not fit, or the device failed.
        """
        ...

    def close(self) -> None:
        """Free the device. May be called twice."""
        ...


class Camera(Protocol):
    """A source of frames: ``with camera: for frame in camera``.

    Attributes:
        name: what it is, for people; without credentials.
        live: True when frames come at their own time and the newest matters; False for files, where every one does.
        rate_hz: frames a second, None when unknown.
    """

    name: str
    live: bool
    rate_hz: float | None

    def __enter__(self) -> Self:
        """Open the source.

        Raises:
            SourceError: it is not there, busy, or delivers what is no thermal frame.
        """
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the source. Safe while another thread iterates: the iteration ends."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the source ends. A lost camera raises SourceError: it never yields a made-up frame."""
        ...


Item = TypeVar("Item", contravariant=True)


class Taker(Protocol[Item]):
    """Where things go, one after the other. One thread calls it, in frame order.

    Attributes:
        name: what it is, for people; without credentials.
    """

    name: str

    def write(self, item: Item, /) -> None:
        """Take one item.

        Raises:
            SinkError, StorageError: it cannot be written. A live stream closes this sink, says so, opens it anew
                after a while, and goes on meanwhile.
        """
        ...

    def close(self) -> None:
        """Finish and free. May be called twice."""
        ...


@runtime_checkable
class Buffered(Protocol):
    """A taker that keeps what its receiver cannot take now, and so does not fail while that is away."""

    @property
    def trouble(self) -> Exception | None:
        """Why what was taken has not arrived yet; None while all is well. Any thread may ask."""
        ...


Sink = Taker[Result]
Recorder = Taker[Frame]
