"""Class names, colours and the ignore index of a segmentation task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import DataError


@dataclass(frozen=True)
class Classes:
    """An ordered set of classes. The index of a name is its value in a label map.

    Attributes:
        names: one name a class, unique.
        colours: one (red, green, blue) a class, 0..255.
        ignore: the label value that stands for no class.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    ignore: int = 255

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("The class list is empty")
        if not all(isinstance(name, str) and name and name.isprintable() for name in self.names):
            raise DataError("A class name is empty or holds control characters", where=repr(self.names))
        if len(set(self.names)) != len(self.names):
            raise DataError("A class name occurs twice", where=", ".join(self.names))
        if len(self.colours) != len(self.names):
            raise DataError(f"{len(self.names)} class names but {len(self.colours)} colours")
        if any(not 0 <= value <= 255 for colour in self.colours for value in colour):
            raise DataError("A class colour is outside 0..255", where=self.colours)
        if not len(self.names) <= self.ignore <= 255:
            raise DataError(f"The ignore index {self.ignore} must lie in {len(self.names)}..255")

    def __len__(self) -> int:
        return len(self.names)

    def palette(self) -> NDArray[np.uint8]:
        """Return the colour table, shape (256, 3), red green blue; values that are no class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colours
        return table

    def to_json(self) -> dict[str, Any]:
        """Return the content of a ``classes.json`` file."""
        entries = [{"name": n, "rgb": list(c)} for n, c in zip(self.names, self.colours, strict=True)]
        return {"ignore": self.ignore, "classes": entries}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Classes:
        """Read the content of a ``classes.json`` file.

        Raises:
            DataError: an entry is missing or of the wrong type.
        """
        try:
            names = tuple(entry["name"] for entry in value["classes"])
            colours = tuple(_colour(entry["rgb"]) for entry in value["classes"])
            ignore = _whole(value.get("ignore", 255))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError("Not a class list", why=repr(error)) from error
        return cls(names, colours, ignore)


def _colour(value: Any) -> tuple[int, int, int]:
    red, green, blue = (_whole(part) for part in value)
    return red, green, blue


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value
