"""How a recording keeps frames as they were: one more row of pixels below each frame, and one tag in the file.

The row says what a video cannot: the frame's number at its source, its monotonic time and its state, with a checksum
over it and over every pixel. Camera makers send telemetry the same way, so any player shows the video, and ours knows
which row is none of the picture.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeunip.errors import SinkError, SourceError, UsageError
from edgeunip.frame import Frame, State
from edgeunip.thermal import Counts, Radiometry, radiometry_from_json, radiometry_to_json

TAG = "EDGEUNIP_RECORDING"
MIN_WIDTH = 32  # pixels; the row of an 8-bit frame must hold it all

_VERSION = 1
# magic, version, state, number, time in ns; then the checksum over these and the pixels.
_HEAD, _CHECKSUM = struct.Struct("<4sBBxxqq"), struct.Struct("<I")
_MAGIC = b"EUFR"
_STATES = (State.LIVE, State.FFC, State.SETTLING, State.STALE, State.FROZEN, State.OFFLINE, State.DEGRADED)


@dataclass(frozen=True)
class Recording:
    """What holds for every frame of a recording.

    Attributes:
        radiometry: how counts become degC; None for bare counts.
        camera: its name, without credentials.
        profile: name of its profile; empty where it had none.
        started: wall time of the first frame, ISO 8601.
        edgeunip: version that wrote it.
    """

    radiometry: Radiometry | None = None
    camera: str = ""
    profile: str = ""
    started: str = ""
    edgeunip: str = ""

    def to_tag(self) -> str:
        """Return it as the text of the file's tag."""
        fields = {**vars(self), "radiometry": radiometry_to_json(self.radiometry)}
        return json.dumps({"version": _VERSION, **fields}, allow_nan=False)

    @classmethod
    def from_tag(cls, text: str, where: object) -> Recording:
        """Read what :meth:`to_tag` wrote.

        Raises:
            SourceError: it is damaged, or from a later version.
        """
        try:
            fields = json.loads(text)
            version = fields.pop("version")
            if version == _VERSION:
                radiometry = radiometry_from_json(fields.pop("radiometry"))
                return cls(radiometry, **{key: _text(value) for key, value in fields.items()})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, UsageError) as error:
            raise SourceError("The recording's tag is damaged", where=where, why=error) from error
        remedy = "Read it with the edgeunip that wrote it, or a newer one."
        raise SourceError(f"The recording has the unknown version {version}", where=where, remedy=remedy)


def stamp(frame: Frame, where: object) -> Counts:
    """Return the counts (H + 1, W) of a frame with its row below.

    Raises:
        SinkError: the frame is narrower than :data:`MIN_WIDTH` pixels.
    """
    height, width = frame.counts.shape
    if width < MIN_WIDTH:
        raise SinkError(f"Frames of {width} pixels are too narrow to record: {MIN_WIDTH} are needed", where=where)
    head = _HEAD.pack(_MAGIC, _VERSION, _STATES.index(frame.state), frame.seq, frame.t_ns)
    stamped = np.zeros((height + 1, width), frame.counts.dtype)
    stamped[:-1] = frame.counts
    data = head + _CHECKSUM.pack(_checksum(head, stamped))
    stamped[-1].view(np.uint8)[: len(data)] = np.frombuffer(data, np.uint8)
    return stamped


def unstamp(stamped: Counts, radiometry: Radiometry | None, where: object) -> Frame:
    """Return the frame that :func:`stamp` was given.

    Raises:
        SourceError: a pixel or the row is damaged.
    """
    row = stamped[-1:].tobytes()
    if len(row) < _HEAD.size + _CHECKSUM.size or len(stamped) < 2:
        raise SourceError("A recorded frame is damaged", where=where, why=f"its size is {stamped.shape}")
    magic, version, state, seq, t_ns = _HEAD.unpack_from(row)
    (checksum,) = _CHECKSUM.unpack_from(row, _HEAD.size)
    if magic != _MAGIC or version != _VERSION or state >= len(_STATES):
        raise SourceError("A recorded frame is damaged", where=where, why="its last row tells nothing of it")
    if checksum != _checksum(row[: _HEAD.size], stamped):
        raise SourceError("A recorded frame is damaged", where=where, why="its checksum is wrong")
    return Frame(stamped[:-1], seq, t_ns, _STATES[state], radiometry)


def _checksum(head: bytes, stamped: Counts) -> int:
    return zlib.crc32(np.ascontiguousarray(stamped[:-1]).data, zlib.crc32(head))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
