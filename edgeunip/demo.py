"""``edgeunip demo``: the whole way once, on embedded scenes or on a real folder, with a page that shows it."""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeunip import console, defaults, durable, scoring
from edgeunip.compress.export import Int8, export
from edgeunip.compress.search import Budget
from edgeunip.health import Totals
from edgeunip.runtimes.verify import Verification, verify
from edgeunip.train import fit
from edgeunip.train.datasets import DataSet, open_data
from edgeunip.train.recipe import Recipe
from edgeunip.train.report import png
from edgeunip.train.run import Run

Say = Callable[[str], None]

SCENES = 240
SCENE_SECONDS = 20
# A size and a number of steps that two processor cores train in two to four minutes.
RECIPE = Recipe(steps=320, batch=4, warmup=30, checkpoint_every=100, evaluate_every=160, scale_min=0.75, scale_max=1.5)
SMALL = (192, 256)


@dataclass(frozen=True)
class Story:
    """What the demo did, for its page."""

    source: str
    run: Run
    bundle: Path
    scores: dict[str, dict[str, Any]]
    verification: Verification
    totals: Totals
    minutes: float


def run(out: Path, data: str | None, *, splits: str | None, say: Say) -> Path:
    """Train, evaluate, export, verify and stream; return the report page ``OUT/report.html``.

    Args:
        out: folder of everything that is made. A demo there is replaced.
        data: a data set; None for the embedded scenes and the synthetic camera.
        splits: sub-folder of its split lists.
        say: told each stage.
    """
    started = time.monotonic()
    made = open_data(data or defaults.scenes(say, images=SCENES, folder=out / "scenes"), splits=splits)
    place = out / f"run-{time.strftime('%Y%m%d-%H%M%S')}"
    say("1/5 Training")
    trained = fit.train(_recipe(made), made, place)
    say("2/5 Exporting int8")
    # Shown on any processor, faster there or not: what it costs and gains is told, and stands in demo-int8.export.json.
    shown = Int8(Budget(max_drop=100, min_speedup=0))
    bundle = export(trained, made, out / "demo-int8.bundle", target="x86-cpu", int8=shown, say=say)
    say("3/5 Scoring run and bundle on the test split")
    scores = {name: _score(path, data=made) for name, path in (("run", place), ("int8 bundle", bundle.path))}
    for name, found in scores.items():
        say(f"{name}: {scoring.describe(found)}")
    say("4/5 Verifying the bundle")
    verification = verify(bundle.path)
    say("5/5 Streaming")
    totals = console.stream(*_source(made, data, bundle.path), _sinks(out))
    story = Story(made.source, trained, bundle.path, scores, verification, totals, (time.monotonic() - started) / 60)
    durable.write_text(out / "report.html", _page(out, story))
    return out / "report.html"


def _recipe(data: DataSet) -> Recipe:
    """Take the pictures down to a size that two cores train in minutes."""
    shape = data.read_image(data.split("train")[0]).shape
    small = tuple(min(side, round(have / 16) * 16) for side, have in zip(SMALL, shape, strict=True))
    return replace(RECIPE, height=small[0], width=small[1])


def _score(path: Path, data: DataSet) -> dict[str, Any]:
    return scoring.score(path, data.location, splits=data.lists, split="test", mode="whole")


def _source(data: DataSet, given: str | None, bundle: Path) -> tuple[str, Path]:
    if given is None:
        return f"synthetic://tc001?seed=1000&seconds={SCENE_SECONDS}", bundle
    return str(data.split("test")[0].image.parent), bundle


def _sinks(out: Path) -> list[str]:
    for name in ("stream.mkv", "stream.jsonl"):
        (out / name).unlink(missing_ok=True)
    return [f"video:{out / 'stream.mkv'}", f"jsonl:{out / 'stream.jsonl'}"]


def _page(out: Path, story: Story) -> str:
    report = story.run.path / "report"
    rows = "".join(_row(name, found) for name, found in story.scores.items())
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in story.run.classes.names)
    agreement = ", ".join(f"{100 * share:.2f} %" for share in story.verification.agreement)
    last = (out / "stream.jsonl").read_text().splitlines()[-1].replace('},"', '},\n"')
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>edgeunip demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: right }}
th:first-child, td:first-child {{ text-align: left }} img {{ max-width: 100% }}
pre {{ background: #f4f4f4; padding: 1rem; overflow-x: auto; font-size: 13px }}
</style>
<h1>edgeunip demo</h1>
<p>Trained on <b>{html.escape(story.source)}</b>, {story.run.recipe.steps} steps at
{story.run.recipe.height}x{story.run.recipe.width}, seed {story.run.recipe.seed}; everything took
{story.minutes:.1f} minutes on {html.escape(str(story.run.provenance["machine"]["processor"]))}.</p>
<h2>Test split, IoU in %</h2>
<table><tr><th></th><th>mIoU</th><th>accuracy</th>{heads}</tr>{rows}</table>
<p>Bundle <code>{html.escape(str(story.bundle))}</code>: golden frames agree {agreement}.</p>
<h2>Stream</h2>
<p>{html.escape(console.describe(story.totals))}.
<a href="stream.mkv">Video</a>, <a href="stream.jsonl">JSON lines</a>.</p>
<img alt="frame of the stream" src="{_frame(out / "stream.mkv")}">
<pre>{html.escape(last)}</pre>
<h2>Predictions on the val split</h2><p>Picture, labels, prediction.</p>
<img alt="predictions" src="{_embed(report / "predictions.png")}">
<h2>Training</h2><img alt="curves" src="{_embed(report / "curves.png")}">
<h2>Confusion</h2><img alt="confusion matrix" src="{_embed(report / "confusion.png")}">
</html>
"""


def _row(name: str, found: dict[str, Any]) -> str:
    values = [found["miou"], found["accuracy"], *found["iou"].values()]
    cells = "".join(f"<td>{'absent' if value is None else f'{100 * value:.1f}'}</td>" for value in values)
    return f"<tr><td>{html.escape(name)}</td>{cells}</tr>"


def _frame(video: Path) -> str:
    """Return a frame from the middle of the video."""
    import av

    with av.open(str(video)) as container:
        frames = list(container.decode(video=0))
    return _data_url(png(frames[len(frames) // 2].to_ndarray(format="rgb24").astype(np.uint8)))


def _embed(picture: Path) -> str:
    return _data_url(picture.read_bytes())


def _data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()
