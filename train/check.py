"""Every defect of a data set in one pass, before the first training step meets it.

Each file is read once, on a few threads. What is wrong with one file, with a list, and with the set as a whole
(leaks between splits, mixed depths, classes without a pixel) is told together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeunip.errors import DataError, near
from edgeunip.train.datasets import DataSet, Sample
from edgeunip.train.inspection import Defect, Finding, Found, inspect, size
from edgeunip.train.layouts import SPLITS

__all__ = ["Defect", "Report", "check", "require_sound"]

_NEEDED = ("train", "val")
_SHOWN = 3


@dataclass(frozen=True)
class Report:
    """What the check found.

    Attributes:
        defects: what must be mended before training.
        warnings: what may be as it should.
        images: number of images looked at.
        class_pixels: per split, the pixels of each class by name, in class order.
    """

    defects: tuple[Defect, ...]
    warnings: tuple[Defect, ...]
    images: int
    class_pixels: Mapping[str, Mapping[str, int]]


def require_sound(data: DataSet, names: Sequence[str]) -> Report:
    """Check the splits ``names`` and return the report.

    Raises:
        DataError: there are defects; the message gives their number and the first few.
    """
    report = check(data, names=names)
    if not report.defects:
        return report
    count = len(report.defects)
    first = "; ".join(str(defect) for defect in report.defects[:_SHOWN])
    raise DataError(
        f"The data set has {count} defect{'s' if count > 1 else ''}",
        where=data.source,
        why=first + ("; ..." if count > _SHOWN else ""),
        remedy=f"`edgeunip data check {data.source}` lists all.",
    )


def check(
    data: DataSet,
    *,
    names: Sequence[str] | None = None,
    workers: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Find every defect of a data set in one pass.

    Args:
        data: the data set.
        names: the splits to look at; None for all, of which ``train`` and ``val`` must exist.
        workers: number of threads.
        progress: called with the number of images done so far, after each.
    """
    wanted = [name for name in SPLITS if name in data.splits] if names is None else list(names)
    splits = {name: data.splits[name] for name in wanted if name in data.splits}
    findings = _inspect_all(data, splits, workers, progress)
    pixels = {name: _class_pixels(data, samples, findings) for name, samples in splits.items()}
    found = [
        *_list_defects(data, splits, _NEEDED if names is None else names),
        *(defect for finding in findings.values() for defect in finding.found),
        *_odd_depths(findings),
        *_odd_sizes(findings),
        *_content_leaks(splits, findings),
        *_empty_classes(data.classes.names, pixels),
    ]
    return Report(
        tuple(one.defect for one in found if one.fatal),
        tuple(one.defect for one in found if not one.fatal),
        len(findings),
        {name: _by_name(data, counts) for name, counts in pixels.items()},
    )


def _inspect_all(
    data: DataSet, splits: Mapping[str, tuple[Sample, ...]], workers: int, progress: Callable[[int], None] | None
) -> dict[Sample, Finding]:
    samples = list(dict.fromkeys(sample for split in splits.values() for sample in split))
    findings: dict[Sample, Finding] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            for sample, finding in zip(samples, pool.map(lambda one: inspect(data, one), samples), strict=True):
                findings[sample] = finding
                if progress is not None:
                    progress(len(findings))
        finally:
            pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the images still queued
    return findings


def _list_defects(data: DataSet, splits: Mapping[str, tuple[Sample, ...]], needed: Sequence[str]) -> Iterator[Found]:
    for name in needed:
        if name not in data.splits:
            hint = near(name, data.splits) if name not in SPLITS else f"{name}.txt is not there"
            yield Found(Defect("missing list", name, hint))
    homes = defaultdict(list)
    for name, samples in splits.items():
        if not samples:
            yield Found(Defect("empty list", name))
        for stem, count in Counter(sample.stem for sample in samples).items():
            homes[stem].append(name)
            if count > 1:
                yield Found(Defect("duplicate in a list", stem, f"{count} times in {name}"))
    for stem, names in homes.items():
        if len(names) > 1:
            yield Found(Defect("split leak", stem, f"in {' and '.join(names)}"))


def _odd_depths(findings: Mapping[Sample, Finding]) -> Iterator[Found]:
    bits = {sample: finding.image[1] for sample, finding in findings.items() if finding.image is not None}
    usual = Counter(bits.values()).most_common(1)
    for sample, depth in bits.items():
        if depth != usual[0][0]:
            yield Found(Defect("wrong depth", str(sample.image), f"{depth} bits, the others have {usual[0][0]}"))


def _odd_sizes(findings: Mapping[Sample, Finding]) -> Iterator[Found]:
    """Warn of an image whose size no other has where most images share one."""
    sizes = {sample: finding.image[0] for sample, finding in findings.items() if finding.image is not None}
    counts = Counter(sizes.values())
    usual, most = counts.most_common(1)[0] if counts else ((0, 0), 0)
    if most * 2 <= len(sizes):
        return
    for sample, shape in sizes.items():
        if counts[shape] == 1 and shape != usual:
            what = f"{size(shape)}, {most} of {len(sizes)} images are {size(usual)}"
            yield Found(Defect("odd size", str(sample.image), what), fatal=False)


def _content_leaks(splits: Mapping[str, tuple[Sample, ...]], findings: Mapping[Sample, Finding]) -> Iterator[Found]:
    """Find files that hold the same bytes: in two splits a leak, within one a warning."""
    same: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    for name, samples in splits.items():
        for sample in dict.fromkeys(samples):
            digest = findings[sample].digest
            if digest is not None:
                same[digest].append((name, sample))
    for (first_name, first), *others in same.values():
        for name, sample in others:
            if sample.image != first.image:
                leak = name != first_name
                what = f"same bytes as {first.image}, in {first_name} and {name}" if leak else f"as {first.image}"
                kind = "split leak" if leak else "identical images"
                yield Found(Defect(kind, str(sample.image), what), fatal=leak)


def _class_pixels(
    data: DataSet, samples: Sequence[Sample], findings: Mapping[Sample, Finding]
) -> NDArray[np.intp] | None:
    """Count the pixels of each class in a split, shape (classes,); None where no label of it can be read."""
    found = [findings[sample].histogram for sample in samples]
    readable = [histogram for histogram in found if histogram is not None]
    if not readable:
        return None
    counts = np.bincount(data.table(), weights=np.sum(readable, axis=0), minlength=256)
    return counts[: len(data.classes)].astype(np.intp)


def _by_name(data: DataSet, counts: NDArray[np.intp] | None) -> dict[str, int]:
    return {name: 0 if counts is None else int(counts[index]) for index, name in enumerate(data.classes.names)}


def _empty_classes(names: Sequence[str], pixels: Mapping[str, NDArray[np.intp] | None]) -> Iterator[Found]:
    """Find classes without a pixel: a defect in ``train``, where they cannot be learnt, elsewhere a warning."""
    for split, counts in pixels.items():
        if counts is None:
            continue
        if not counts.any():
            yield Found(Defect("no labelled pixel", split))
            continue
        for index in np.flatnonzero(counts == 0):
            yield Found(Defect("empty class", names[int(index)], f"no pixel in {split}"), fatal=split == "train")
