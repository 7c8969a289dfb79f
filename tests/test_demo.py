"""The demo's whole way, cut short, and the page it leaves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import av
import pytest

from edgeunip import bundle, demo

pytestmark = pytest.mark.slow


def test_demo_leaves_everything_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "RECIPE", replace(demo.RECIPE, steps=4, batch=2, warmup=1, threads=1))
    monkeypatch.setattr(demo, "SCENES", 20)
    monkeypatch.setattr(demo, "SCENE_SECONDS", 3)
    said: list[str] = []
    page = demo.run(tmp_path / "demo", None, splits=None, say=said.append)
    assert page == tmp_path / "demo" / "report.html"
    assert [line[:3] for line in said if re.match(r"\d/5", line)] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 4
    assert 'href="stream.mkv"' in text and "person" in text and "int8 bundle" in text
    assert bundle.load(tmp_path / "demo" / "demo-int8.bundle").manifest.precision == "int8"
    lines = [json.loads(line) for line in (tmp_path / "demo" / "stream.jsonl").read_text().splitlines()]
    with av.open(str(tmp_path / "demo" / "stream.mkv")) as video:
        assert sum(1 for _ in video.decode(video=0)) == len(lines) > 2
    assert lines[-1]["classes"]["ground"]["mean_c"] is not None, "the TC001 is radiometric"
