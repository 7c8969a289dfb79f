"""Bytes of a checkpoint file to tensors and plain values. Nothing in the file is ever run.

This is the one module that reads a pickle: ``torch.load`` restricted to tensors and plain values, and to
``argparse.Namespace``, in which UNIP, MAE and DINO keep the command line of their training.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch

from edgeunip.errors import WeightsError

SUFFIXES = (".pth", ".pt", ".bin", ".tar", ".safetensors")
_CLASS = re.compile(r"\bGLOBAL ([\w.]+)")


@dataclass(frozen=True)
class File:
    """What a checkpoint file holds.

    Attributes:
        path: the file.
        sha256: of its bytes, hexadecimal.
        content: tensors and plain values, nested as the file has them.
        metadata: the texts in a safetensors header; empty for other files.
    """

    path: Path
    sha256: str
    content: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The options the weights were trained with, where the file holds them."""
        found = self.content.get("args")
        options = vars(found) if isinstance(found, argparse.Namespace) else found
        return options if isinstance(options, Mapping) else {}


def read(path: Path) -> File:
    """Read a checkpoint: safetensors or a file of ``torch.save``, told apart by their first bytes.

    Raises:
        WeightsError: the file cannot be read, is damaged or no checkpoint, or wants a class to be run.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        digest = sha256(path)
    except OSError as error:
        raise WeightsError("Cannot read the weights", where=path, why=error.strerror) from error
    if not start:
        raise WeightsError("The file of weights is empty", where=path, remedy="Fetch it again.")
    if start[8:] == b"{":
        content, metadata = _safetensors(path)
        return File(path, digest, content, metadata)
    return File(path, digest, _restricted(path))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _safetensors(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error


def _restricted(path: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files are stored as TypedStorage, which is no concern of the user
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what damaged bytes make an unpickler raise is without limit
        raise _refused(path, error) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds one {type(content).__name__}")
    return content


def _refused(path: Path, error: Exception) -> WeightsError:
    """Tell a file that asks for a class from one that is damaged; torch's own words advise to run the former."""
    if wanted := _CLASS.search(str(error)):
        return WeightsError(
            "The file of weights is refused: it holds more than tensors and plain values",
            where=path,
            why=f"it asks to run {wanted[1]}",
            remedy="If you trust where it is from, save its tensors alone, best as safetensors.",
        )
    if isinstance(error, RuntimeError):
        return _damaged(path, str(error).partition(". ")[0])
    return _damaged(path, "it ends too early" if isinstance(error, EOFError) else "its bytes are none of torch.save")


def _damaged(path: Path, why: object) -> WeightsError:
    remedy = "It may be cut short: fetch it again. Known are .safetensors and files of torch.save."
    return WeightsError("The file is damaged or no checkpoint", where=path, why=why, remedy=remedy)
