"""The commands on the device itself: stream a camera, and see what the device can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeunip.options import Json

_SINKS = (
    "web:PORT, video:FILE.mkv, record:FILE.mkv (every raw frame), jsonl:FILE (- prints), mqtt:HOST/TOPIC, "
    "rtsp://HOST/PATH or window:on; may be repeated. Default: web:8080. {camera} in it stands for each camera's name. "
    "Options follow a question mark; see docs/sinks.md."
)


def stream(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Cameras or files: /dev/videoN, rtsp://HOST/PATH, unix:SOCKET, a video file, a recording, an image "
            "folder, or synthetic://lepton|boson|tc001. @FILE or $NAME reads an address with a password from there."
        ),
    ],
    model: Annotated[Path | None, typer.Option(help="The bundle. Default: the newest in bundles/.")] = None,
    sink: Annotated[list[str] | None, typer.Option(help=f"Where results go: {_SINKS}")] = None,
    frames: Annotated[int | None, typer.Option(help="End after this many frames of each camera.")] = None,
    camera: Annotated[
        str | None,
        typer.Option(help="Camera profile: how counts become degC; see edgeunip cameras profiles. Default: found."),
    ] = None,
    scene: Annotated[
        Path | None, typer.Option(help="TOML file of areas of interest and alarm rules; see docs/rules.md.")
    ] = None,
    hold: Annotated[
        float | None,
        typer.Option(help="Hold the class map for up to this many seconds while nothing moves. Default: never."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when a camera is lost or absent, instead of waiting for it.")
    ] = False,
    max_memory: Annotated[
        float | None, typer.Option(help="End when the process holds more than this many MiB, to be started anew.")
    ] = None,
) -> None:
    """Segment cameras, files or folders, live, for weeks: page, video, recording, JSON lines, MQTT, alarms."""
    from edgeunip import console, defaults, stopping
    from edgeunip.streaming import Options

    options = Options(frames, camera, scene, hold, once, max_memory)
    console.stream(sources, model or defaults.newest_bundle(defaults.say), sink or ["web:8080"], options)
    stopping.leave(0)


def doctor(json: Json = None) -> None:
    """Show what this device can do, from cameras to power, with remedies; exit code 1 if anything is bad."""
    from edgeunip import defaults
    from edgeunip.doctor import page

    found = page.examine()
    if json != "-":
        print(page.describe(found))
    defaults.write_json(page.to_json(found), json)
    raise typer.Exit(0 if page.is_good(found) else 1)
