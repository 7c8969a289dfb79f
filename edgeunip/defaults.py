"""What a command takes when its user names nothing: the embedded scenes, the newest run, the newest bundle."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from edgeunip.errors import BundleError, UsageError

RUNS, BUNDLES, SCENES = Path("runs"), Path("bundles"), Path("data/scenes")
SCENE_IMAGES = 400


def scenes(say: Callable[[str], None], *, images: int = SCENE_IMAGES, folder: Path = SCENES) -> str:
    """Return the folder of the embedded scenes; they are made when it is not there yet."""
    if not (folder / "classes.json").is_file():
        from edgeunip.scenes import synthesise

        say(f"Making {images} embedded scenes in {folder} (procedural, not real data)")
        synthesise(folder, images)
    return str(folder)


def bundle_folder(run: Path, target: str, *, int8: bool) -> Path:
    """Return where the bundle of a run goes when ``--out`` is not given."""
    return BUNDLES / f"{run.name}-{target}{'-int8' if int8 else ''}.bundle"


def after_export(target: str, bundle: Path) -> str:
    """Return the command that comes after an export: a Jetson's bundle travels, the others can run here."""
    if target.startswith(("jetson", "arm")):
        return f"pack {bundle}"
    return f"stream SOURCE --model {bundle}"


def newest_bundle(say: Callable[[str], None]) -> Path:
    """Return the newest bundle in ``bundles/``, and say which it is."""
    from edgeunip import bundle

    try:
        path = bundle.newest(BUNDLES)
    except BundleError as error:
        raise UsageError(
            "No bundle to stream with", where=BUNDLES, remedy="Name one with --model, or export one: edgeunip export."
        ) from error
    say(f"Using the newest bundle, {path}")
    return path


def is_bundle(path: Path) -> bool:
    """Tell a bundle from a run by the manifest."""
    return (path / "manifest.json").is_file()


def say(text: str, *, end: str = "\n") -> None:
    """Print one line for the user on standard error, which keeps standard output for data."""
    if sys.stderr is not None:  # started with standard error closed
        with contextlib.suppress(OSError, ValueError):  # a terminal that has gone costs the line, not the stream
            print(text, file=sys.stderr, end=end, flush=True)


def write_json(value: object, file: str | None) -> None:
    """Print a JSON object for ``-``, or write it to a file; nothing for None."""
    from edgeunip import durable

    if file == "-":
        print(json.dumps(value, indent=1))
    elif file:
        durable.write_json(Path(file), value)
