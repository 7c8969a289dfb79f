"""The error tree. Each error says, in one line, what went wrong, where, why, and what to do about it."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterable


class EdgeunipError(Exception):
    """Base of every error a user can meet.

    Args:
        what: what went wrong, a short sentence without a full stop.
        where: the file, camera, option or address it is about.
        why: the cause, where it is known.
        remedy: what the user can do.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: object | None = None, why: object | None = None, remedy: str | None = None
    ) -> None:
        self.what, self.where, self.why, self.remedy = what, where, why, remedy
        place = f": {_short(where)}" if where is not None else ""
        cause = f" ({_short(why)})" if why is not None else ""
        advice = f". {remedy}" if remedy else ""
        super().__init__(one_line(f"{what}{place}{cause}{advice}"))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 600 else f"{text[:500]} ... {text[-80:]}"


def one_line(text: str) -> str:
    """Fold line breaks; show control characters and undecodable bytes of a file name instead of sending them."""
    folded = " ".join(part.strip() for part in text.replace("\t", " ").splitlines() if part.strip())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in folded)


class UsageError(EdgeunipError):
    """The command line or a recipe value is wrong."""

    exit_code = 2


class DataError(EdgeunipError):
    """A data set, an image or a label map cannot be used."""


class RunError(EdgeunipError):
    """A training run's folder is missing, incomplete or does not fit."""


class WeightsError(EdgeunipError):
    """A file of weights is damaged, in no known format, or does not fit a plain ViT."""


class HubError(EdgeunipError):
    """A model hub cannot give what was asked for."""


class TrainingError(EdgeunipError):
    """Training cannot go on (a loss that is not finite, memory exhausted)."""


class BundleError(EdgeunipError):
    """A bundle is damaged, incomplete, from another version, or not a bundle."""


class SignatureError(BundleError):
    """A key or a signature is damaged or missing, or this device's trust refuses the bundle."""


class ExportError(EdgeunipError):
    """A run cannot be turned into a bundle for the target asked for."""


class SourceError(EdgeunipError):
    """A camera, stream, file or folder cannot be opened or read.

    Attributes:
        reason: code of the cause for programs, one of those in :class:`edgeunip.health.CameraStatus`.
    """

    def __init__(
        self,
        what: str,
        *,
        where: object | None = None,
        why: object | None = None,
        remedy: str | None = None,
        reason: str = "error",
    ) -> None:
        super().__init__(what, where=where, why=why, remedy=remedy)
        self.reason = reason


class SinkError(EdgeunipError):
    """A sink cannot be opened or written."""


class SinkClosedError(SinkError):
    """The user has closed a sink: it is not opened again."""


class InferenceError(EdgeunipError):
    """A runtime cannot load a model or run it."""


class MissingDependencyError(EdgeunipError):
    """An optional package is not installed."""


class MemoryLimitError(EdgeunipError):
    """The process holds more memory than it may; a supervisor is to start it again (EX_TEMPFAIL)."""

    exit_code = 75


class StorageError(EdgeunipError):
    """A file cannot be written: no space, no permission, or the device failed."""


def storage_error(error: OSError, path: object) -> StorageError:
    """Tell an ``OSError`` met while writing ``path`` in one line."""
    remedies = {
        errno.ENOSPC: "Free some space or choose another folder; what was saved before is intact.",
        errno.EACCES: "Choose a folder you may write to, or change its permissions.",
        errno.EROFS: "The file system is read-only; choose another folder.",
        errno.EDQUOT: "The disk quota is used up; free some space.",
        errno.EIO: "The disk failed; see the system log (dmesg), or choose another folder.",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageError("Cannot write", where=path, why=reason, remedy=remedies.get(error.errno or 0))


def missing_dependency(error: ModuleNotFoundError, package: str, extra: str) -> Exception:
    """Name the extra to install when ``package`` is what is missing.

    Any other import error is returned unchanged: a broken library, one of its own parts missing, must not read as one
    that is not installed.
    """
    if error.name not in (package, package.split(".")[0]):
        return error
    return MissingDependencyError(
        f"The package {package} is not installed", remedy=f"Run: pip install 'edgeunip[{extra}]'"
    )


def near(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean ...?" with the known words nearest to ``word``, else the list of known words."""
    known = sorted(known)
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(matches)}?" if matches else f"Known: {', '.join(known)}."
