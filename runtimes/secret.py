"""A sink's password: from a file or from the environment, never from the command line."""

from __future__ import annotations

import ipaddress
import logging
import os
import stat
from pathlib import Path

from edgeunip.errors import SinkError, UsageError
from edgeunip.redaction import keep_secret
from edgeunip.runtimes.spec import Spec

_LONGEST = 4096

logger = logging.getLogger(__name__)


def refuse_credentials(spec: Spec, variable: str) -> None:
    """Refuse a password in the sink's own words: every user of the machine may read a command line.

    Raises:
        UsageError: there is one; says where it belongs.
    """
    given = {"password", "passwd", "pwd", "pass", "pw"} & {key.lower() for key in spec.options}
    if given or "@" in spec.rest:
        raise UsageError(
            f"The {spec.kind} sink takes no password on the command line, where every user may read it",
            remedy=f"Write ?user=NAME&password_file=FILE, or set {variable}.",
        )


def login(spec: Spec, variable: str) -> tuple[str | None, Password]:
    """Return the user, None for none, and where the password is kept.

    Raises:
        UsageError: there is a password and no user.
        SinkError: the password's file cannot be read.
    """
    user, password = spec.options.get("user"), Password(spec, variable)
    if password.given and user is None:
        raise UsageError(f"The password of the {spec.kind} sink needs a user", remedy="Write ?user=NAME.")
    return user, password


class Password:
    """Where a password is kept. It is read at every connection, so that a changed one is found."""

    def __init__(self, spec: Spec, variable: str) -> None:
        """Take ``password_file`` from the options; without it the environment ``variable`` is used.

        Raises:
            SinkError: the file cannot be read.
        """
        self._variable = variable
        self._file = Path(spec.options["password_file"]) if "password_file" in spec.options else None
        if self._file is not None and _mode(self._file) & 0o077:
            logger.warning("Others may read the password file %s. Run: chmod 600 %s", self._file, self._file)
        self.given = self.read() is not None

    def read(self) -> str | None:
        """Return the password; None when there is none.

        Raises:
            SinkError: the file cannot be read.
        """
        password = os.environ.get(self._variable) or None if self._file is None else _first_line(self._file)
        if password is not None:
            keep_secret(password)
        return password


def loopback(host: str) -> bool:
    """Return whether what is sent to ``host`` stays within this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _mode(path: Path) -> int:
    try:
        found = path.stat().st_mode
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    return stat.S_IMODE(found) if stat.S_ISREG(found) else 0


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline(_LONGEST).rstrip("\r\n")
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    except UnicodeDecodeError:
        raise _unreadable(path, "it is no text") from None


def _unreadable(path: Path, why: object) -> SinkError:
    return SinkError("The password file cannot be read", where=path, why=why)
