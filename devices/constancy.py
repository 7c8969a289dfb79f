"""A live source keeps the size and the depth of its first frame."""

from __future__ import annotations

from edgeunip.errors import SourceError
from edgeunip.frame import Frame


def check_format(frame: Frame, first: Frame, where: object) -> None:
    """Raise SourceError if a frame differs from the first in size or depth."""
    if frame.counts.shape == first.counts.shape and frame.counts.dtype == first.counts.dtype:
        return
    old, new = (f"{one.counts.dtype} {one.counts.shape[1]}x{one.counts.shape[0]}" for one in (first, frame))
    why = f"at frame {frame.seq}"
    raise SourceError(f"The frames change from {old} to {new}", where=where, why=why, reason="format")
