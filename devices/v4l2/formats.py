"""What a buffer holds, as counts: the gray or luma plane as it is, never scaled, never converted to 8 bits."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeunip.devices.profile import Profile, unpack
from edgeunip.devices.v4l2.device import PixelFormat
from edgeunip.errors import SourceError
from edgeunip.thermal import Counts

# In the order they are wanted: what keeps most of the counts first. 10, 12 and 14 bits stand right-aligned in 16.
_WORDS = {"Y16 ": "<u2", "Y16-BE": ">u2", "Y14 ": "<u2", "Y12 ": "<u2", "Y10 ": "<u2"}
_PAIRED = {"YUYV": 0, "UYVY": 1}  # where a pixel's luma byte stands in a pair of bytes
_PLANAR = ("NV12", "YU12")
_COMPRESSED = ("MJPG", "JPEG")
READ = (*_WORDS, "GREY", *_PAIRED, *_PLANAR, *_COMPRESSED)

_LUMA = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def choose_format(offered: list[str], path: str, *, profile: Profile | None = None) -> str:
    """Return the code of the format to ask for out of those a camera offers.

    Raises:
        SourceError: none is one that is read, or the profile needs another.
    """
    wanted = list((profile and profile.formats) or READ)
    if profile is not None and profile.packed:
        wanted = ["YUYV"]
    for code in wanted:
        if code in offered and code in READ:
            return code
    raise SourceError(
        f"The camera offers none of the formats {', '.join(code.strip() for code in wanted)}",
        where=path,
        why=f"it offers {', '.join(code.strip() for code in offered) or 'none'}",
        remedy="See its formats with: edgeunip cameras",
    )


def stride(layout: PixelFormat) -> int:
    """Return the bytes of a row, padding included; some drivers leave that to be computed."""
    return max(layout.stride, _row(layout))


def is_whole(used: int, layout: PixelFormat) -> bool:
    """Tell whether a buffer with ``used`` bytes can hold a whole frame, and no other than the one agreed on."""
    if layout.code in _COMPRESSED:
        return used > 0
    luma = stride(layout) * layout.height
    # The colours of a planar format take half as many bytes again.
    frame = luma * 3 // 2 if layout.code in _PLANAR else luma
    return used >= luma and used in (frame, layout.size)


def counts(data: bytes, layout: PixelFormat, *, packed: bool = False) -> Counts | None:
    """Return the counts of a frame, shape (H, W), uint8 or (over 8 bits) uint16, read-only; None if it is damaged.

    Args:
        data: the bytes of the frame, as many as :func:`is_whole` asks for.
        layout: how they stand there.
        packed: the bytes of YUYV pixels are 16-bit counts.
    """
    if layout.code in _COMPRESSED:
        return _jpeg(data)
    step, row = stride(layout), _row(layout)
    rows = np.frombuffer(data, np.uint8, count=step * layout.height).reshape(layout.height, step)[:, :row]
    if layout.code in _WORDS:
        words = np.ascontiguousarray(rows).view(_WORDS[layout.code])
        return words.astype(np.uint16, copy=False)
    if layout.code in _PAIRED:
        return unpack(rows) if packed and layout.code == "YUYV" else rows[:, _PAIRED[layout.code] :: 2].copy()
    return np.ascontiguousarray(rows)


def _row(layout: PixelFormat) -> int:
    """Return the bytes of a row of the first plane without padding."""
    return layout.width * (2 if layout.code in _WORDS or layout.code in _PAIRED else 1)


def _jpeg(data: bytes) -> NDArray[np.uint8] | None:
    # The decoder turns a picture that is cut off into a whole one with gray rows: its end must be there.
    if not data.startswith(_JPEG_START) or _JPEG_END not in data.rstrip(b"\0")[-1024:]:
        return None
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), _LUMA)
    except cv2.error:  # a header that no picture has
        return None
    return None if picture is None else np.asarray(picture, np.uint8)
