"""Building an index: list, read, sort out, write."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from edgeunip.errors import DataError, UsageError
from edgeunip.train.corpus import shards, sieve, table
from edgeunip.train.corpus.duplicates import FARTHEST, NEAR
from edgeunip.train.corpus.pictures import AGC
from edgeunip.train.corpus.sieve import REASONS, UNREADABLE, Refused, Sieve
from edgeunip.train.corpus.sources import Say, Source, listing, parse
from edgeunip.train.corpus.table import Row

FILES, TAKEN, KEPT = "files", "taken", "kept"
_SHOWN, _CHUNK = 3, 4096
_PACKAGES = ("edgeunip", "pyarrow", "numpy", "opencv-python-headless")

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Report:
    """What became of the images.

    Attributes:
        path: the index.
        rows: the images kept.
        counts: by set: ``files`` below its folder, ``taken`` by its rules, left out by reason, ``kept``.
        unreadable: what is wrong with each unreadable image, one line each.
        facts: what stands in the index's metadata.
    """

    path: Path
    rows: tuple[Row, ...]
    counts: dict[str, Counter[str]]
    unreadable: tuple[str, ...]
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the figures for ``--json``."""
        return {"index": str(self.path), **self.facts, "unreadable": list(self.unreadable)}


def build(
    name: str,
    specs: Sequence[str],
    *,
    out: Path,
    say: Say,
    exclude: Sequence[str] = (),
    near: int = NEAR,
    per_shard: int = 0,
) -> Report:
    """Build the index ``out/NAME.parquet`` of the images of ``specs``, in their order; nothing is left half-written.

    Args:
        name: of the index, without suffix.
        specs: sources as :func:`edgeunip.train.corpus.sources.parse` reads them.
        out: the folder it goes to.
        say: takes warnings, a line each.
        exclude: labelled data sets whose images must not be in the index.
        near: pictures whose perceptual hashes differ by so many bits or fewer are duplicates, of which the first is
            kept; negative: only files that are equal byte for byte.
        per_shard: pack so many images a tar shard; 0 leaves the images where they are.

    Raises:
        UsageError: a name, option or number is out of range.
        DataError: a source or data set is not there, or no image is left.
    """
    name = _plain_name(name)
    if near > FARTHEST or per_shard < 0:
        raise UsageError(f"near must be {FARTHEST} or less, and shards not negative", where=f"{near}, {per_shard}")
    sources = [source for spec in specs for source in parse(spec, say)]
    if not sources:
        raise UsageError("An index needs a source", remedy="Name one: --source DIR.")
    evaluation = [pair for spec in exclude for pair in sieve.evaluation_samples(spec)]
    prints = _in_order(lambda pair: sieve.fingerprint(*pair), evaluation, "reading evaluation images")
    selection = _select(sources, Sieve(near, prints), Sieve(near))
    _warn(selection, say)
    facts = _facts(name, selection, sources) | {"exclude": list(exclude), "near": near}
    places, facts["shards"] = shards.pack(selection.rows, out, name, per_shard=per_shard) if per_shard else ([], {})
    path = out / f"{name}.parquet"
    table.write(path, selection.rows, places, facts)
    return Report(path, tuple(selection.rows), selection.counts, tuple(selection.unreadable), facts)


def describe(report: Report) -> str:
    """Return the table a user reads: a line a set, and a column for each count that is not zero."""
    total = sum(report.counts.values(), Counter())
    columns = [key for key in (FILES, TAKEN, *REASONS, KEPT) if total[key] or key == KEPT]
    lines = [["set", *columns]]
    lines += [[name, *(str(counts[key]) for key in columns)] for name, counts in report.counts.items()]
    if len(report.counts) > 1:
        lines.append(["all", *(str(total[key]) for key in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ("  ".join(map(_aligned, line, widths, range(len(line)))).rstrip() for line in lines)
    packed = f", {len(report.facts['shards'])} shards" if report.facts["shards"] else ""
    return "\n".join([*rows, f"{report.path}: {len(report.rows)} images{packed}, list {report.facts['list_sha256']}"])


def _aligned(word: str, width: int, column: int) -> str:
    return word.rjust(width) if column else word.ljust(width)


def _plain_name(name: str) -> str:
    plain = name.removesuffix(".parquet")
    if not plain or plain.startswith(".") or "/" in plain:
        raise UsageError("An index needs a plain name", where=name, remedy="The folder is named with --out.")
    return plain


@dataclass
class _Selection:
    rows: list[Row] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def _select(sources: Sequence[Source], evaluation: Sieve, kept: Sieve) -> _Selection:
    selection = _Selection()
    work: list[tuple[Source, Path]] = []
    for source in sources:
        found, paths = listing(source)
        selection.counts.setdefault(source.set, Counter()).update({FILES: found, TAKEN: len(paths)})
        work += ((source, path) for path in paths)
    examined = _in_order(lambda item: sieve.examine(*item), work, "reading images")
    for (source, _), image in zip(work, examined, strict=True):
        if isinstance(image, Refused):
            reason: str | None = image.reason
            if reason == UNREADABLE:
                selection.unreadable.append(image.detail)
        else:
            known = evaluation.objection(image)
            reason = f"evaluation {known}" if known else kept.objection(image)
            if reason is None:
                kept.add(image)
                selection.rows.append(image)
        selection.counts[source.set][reason or KEPT] += 1
    return selection


def _in_order(work: Callable[[A], B], items: Sequence[A], label: str) -> Iterator[B]:
    """Work on all items by threads (reading, decoding and hashing hold no lock); results in the items' order."""
    cores = min(32, len(os.sched_getaffinity(0)))
    hidden = not sys.stderr.isatty()
    with (
        ThreadPoolExecutor(cores) as pool,
        tqdm(total=len(items), desc=label, unit="image", disable=hidden, dynamic_ncols=True) as bar,
    ):
        for first in range(0, len(items), _CHUNK):  # not all at once: a million results need not wait in memory
            for result in pool.map(work, items[first : first + _CHUNK]):
                bar.update()
                yield result


def _warn(selection: _Selection, say: Say) -> None:
    if not selection.rows:
        total = sum(selection.counts.values(), Counter())
        reasons = ", ".join(f"{total[reason]} {reason}" for reason in REASONS if total[reason])
        first = f"; {selection.unreadable[0]}" if selection.unreadable else ""
        raise DataError("No image is left to index", why=f"of {total[TAKEN]}: {reasons}{first}")
    for line in selection.unreadable[:_SHOWN]:
        say(f"warning: left out: {line}")
    if len(selection.unreadable) > _SHOWN:
        say(f"warning: and {len(selection.unreadable) - _SHOWN} more images that cannot be read")


def _facts(name: str, selection: _Selection, sources: Sequence[Source]) -> dict[str, Any]:
    return {
        "name": name,
        "images": len(selection.rows),
        "list_sha256": table.list_hash((row.sha256, row.crop) for row in selection.rows),
        "sets": {of: dict(counts) for of, counts in selection.counts.items()},
        "licences": {source.set: source.licence for source in sources},
        "sources": [{"root": str(source.root), "set": source.set, **source.rules()} for source in sources],
        "agc": AGC.to_json(),
        "versions": {package: metadata.version(package) for package in _PACKAGES},
    }
