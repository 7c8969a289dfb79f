"""A whole export, killed at file-system calls on what it replaces: the old bundle or the new one, never half.

What writes, ``bundle.save`` and ``trust.sign``, is killed at every single call by test_bundle_killed.py. A whole export
takes seconds, so here the calls of each kind are the 1st, 2nd, 4th, 8th, ..
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_bundle import FILES, PLAIN
from test_bundle_killed import CALLS, Stage, serve
from test_durable import needs_strace

from edgeunip import bundle, pack
from edgeunip.scenes import synthesise
from edgeunip.train import fit
from edgeunip.train.datasets import open_data
from edgeunip.train.recipe import Recipe

SETUP = """
import torch
torch.set_num_threads(1)
from edgeunip.compress import export
from edgeunip.train import run as runs
run = runs.open_run(source / 'run')
data = run.data()
"""
EXPORT = "export.export(run, data, where / 'night.bundle', target='x86-cpu', say=lambda line: None)"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    source = tmp_path / "source"
    synthesise(source / "scenes", 16, sensor="lepton", seed=1)
    small = {"height": 64, "width": 64, "crop_height": 64, "crop_width": 64, "threads": 1}
    fit.train(
        Recipe(size="edge-xs", steps=2, batch=2, warmup=1, **small), open_data(str(source / "scenes")), source / "run"
    )
    old = bundle.save(source / "old.bundle", PLAIN, {**FILES, "gone.txt": b"of the old one"})
    pack.pack(old.path, source / "old.edgeunip")
    yield from serve(source, tmp_path / "where", SETUP, {"export": EXPORT})


@needs_strace
@pytest.mark.slow
def test_export_killed_at_any_call(stage: Stage) -> None:
    stage.reset()
    old = stage.seen()["bundle"]
    assert stage.run("export") == 0
    new = stage.seen()["bundle"]
    assert old != new
    points, found = [], set()
    for call in CALLS:
        number = 1
        while stage.kill("export", call, number):
            points.append(f"{call} {number}")
            found.add(seen := stage.seen()["bundle"])  # loads it: half a bundle fails here
            assert seen in (old, new), points[-1]
            number *= 2
    print(f"export: {len(points)} points")
    assert len(points) >= 20 and found == {old, new}
    assert stage.run("export") == 0, "the next export clears what the killed one left"
    assert stage.seen()["bundle"] == new
    assert stage.leftovers() == {"night.export.json"}
