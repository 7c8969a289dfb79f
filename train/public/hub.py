"""Files of a hub: fetched once into huggingface_hub's cache, which resumes and checks what it fetches.

HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE mean what they mean to huggingface_hub.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import (
    CacheNotFound,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from edgeunip.errors import EdgeunipError, HubError, near, storage_error

CARD = "README.md"
# The HTTP library's base error: which library that is has changed twice.
TRANSPORT: type[Exception] = HfHubHTTPError.__bases__[0]
_FAILURES = (HfHubHTTPError, TRANSPORT, EntryNotFoundError, OSError, ValueError)


@dataclass(frozen=True)
class Fetched:
    """What came from a hub.

    Attributes:
        path: the file, or the folder of a data set, in the cache.
        repo: ``owner/name``.
        commit: of the repository, hexadecimal.
        licence: as the repository's card states it, None where it does not.
    """

    path: Path
    repo: str
    commit: str
    licence: str | None


def fetch(repo: str, file: str) -> Fetched:
    """Fetch one file of a model repository. What is in the cache is taken as it is, and the hub is not asked.

    Args:
        repo: ``owner/name``.
        file: its path in the repository.

    Raises:
        HubError: no connection and not in the cache, no such repository or file, or no access to it.
        StorageError: the disk is full.
    """
    path = _file(repo, file)
    return Fetched(path, repo, _commit(path, file), _licence(repo))


def dataset(repo: str, say: Callable[[str], None]) -> Fetched:
    """Fetch all files of a data-set repository; what is in the cache already is not fetched again.

    Raises:
        HubError: as :func:`fetch`.
        StorageError: the disk is full.
    """
    licence = _licence(repo, data=True)
    say(f"{repo}: licence {licence or 'not stated'}; fetching into {constants.HF_HUB_CACHE}")
    try:
        path = Path(huggingface_hub.snapshot_download(repo, repo_type="dataset"))
    except _FAILURES as error:
        raise _told(error, repo, None, data=True) from error
    return Fetched(path, repo, path.name, licence)


def files(repo: str, *, wanted: str = "the files") -> list[str]:
    """List the files of a model repository, sorted; without a connection, those in the cache.

    Args:
        repo: ``owner/name``.
        wanted: what is looked for, for the message.

    Raises:
        HubError: no connection and nothing in the cache, no such repository, or no access to it.
    """
    try:
        return sorted(huggingface_hub.HfApi().list_repo_files(repo))
    except _FAILURES as error:
        if found := cached(repo):
            return found
        raise _told(error, repo, None, wanted=wanted) from error


def cached(repo: str) -> list[str]:
    """List the files of a model repository that are in the cache, sorted; the hub is not asked."""
    try:
        stored = huggingface_hub.scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    revisions = [one for kept in stored if (kept.repo_id, kept.repo_type) == (repo, "model") for one in kept.revisions]
    return sorted({file.file_path.relative_to(one.snapshot_path).as_posix() for one in revisions for file in one.files})


def _file(repo: str, file: str) -> Path:
    try:
        return _download(repo, file, "model")
    except _FAILURES as error:
        raise _told(error, repo, file) from error


def _download(repo: str, file: str, kind: str) -> Path:
    """Take a file from the cache, else from the hub: asking a hub that is out of reach takes half a minute."""
    kept = huggingface_hub.try_to_load_from_cache(repo, file, repo_type=kind)
    return Path(kept if isinstance(kept, str) else huggingface_hub.hf_hub_download(repo, file, repo_type=kind))


def _licence(repo: str, *, data: bool = False) -> str | None:
    """Read the licence off the repository's card, which is cached like any file and so known offline as well."""
    kind = "dataset" if data else "model"
    if huggingface_hub.try_to_load_from_cache(repo, CARD, repo_type=kind) is huggingface_hub._CACHED_NO_EXIST:
        return None
    try:
        path = _download(repo, CARD, kind)
    except EntryNotFoundError:  # no card, or offline and never fetched
        return None
    except _FAILURES as error:
        raise _told(error, repo, CARD, data=data) from error
    try:
        facts = huggingface_hub.metadata_load(path) or {}
    except ValueError:  # a card whose header is no YAML states nothing
        return None
    licence = facts.get("license_name") if facts.get("license") in (None, "other") else facts["license"]
    return str(licence) if licence else None


def _commit(path: Path, file: str) -> str:
    """Read the commit off a cached file's place, ``snapshots/COMMIT/FILE``."""
    return path.parts[-len(Path(file).parts) - 1]


def _told(
    error: Exception, repo: str, file: str | None, *, data: bool = False, wanted: str = "the files"
) -> EdgeunipError:
    """Tell a failure in one line that ends with what to do by hand."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return storage_error(error, constants.HF_HUB_CACHE)
    where = f"{repo}, {file}" if file else repo
    page = f"{constants.ENDPOINT}/{'datasets/' if data else ''}{repo}"
    if isinstance(error, ValueError) and not isinstance(error, EntryNotFoundError):  # refused before it was asked for
        return HubError("No name of a repository and file", where=where, remedy="Write hf:OWNER/NAME:FILE.")
    if isinstance(error, GatedRepoError):
        why = "its publisher grants access on request"
        remedy = f"Accept the conditions at {page}, then run: hf auth login"
    elif isinstance(error, RepositoryNotFoundError):
        why, remedy = "no such repository, or a private one", "Check the name; for a private one run: hf auth login"
    elif isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        why, remedy = "no such file in the repository", near(file or "", files(repo))
    else:
        target = f"{page}/resolve/main/{file}" if file else f"{wanted} of {page}"
        remedy = f"Fetch {target} by hand where there is a connection, and give the path of what you fetched instead"
        why = _why(error)
    return HubError("Cannot fetch from the hub", where=where, why=why, remedy=remedy)


def _why(error: BaseException) -> str:
    """Name the root of a failure: offline by choice, the server's answer, or no connection."""
    chain = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    if constants.HF_HUB_OFFLINE or any(isinstance(one, OfflineModeIsEnabled) for one in chain):
        return "not in the cache, and HF_HUB_OFFLINE is set"
    for one in chain:
        if isinstance(one, HfHubHTTPError):
            return f"the hub answers {one.response.status_code}"
    transport = [one for one in chain if isinstance(one, TRANSPORT)]
    return f"no connection to {constants.ENDPOINT}: {(transport or chain)[0]}"
