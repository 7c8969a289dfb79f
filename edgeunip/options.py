"""The options that several commands share, and options that take several words: ``--seeds 0 1 2``."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

Data = Annotated[
    str | None,
    typer.Option(help="Data set: a folder in edgeunip's format, or soda:DIR, mfnet:DIR, scut:DIR, msrs:DIR."),
]
Splits = Annotated[
    str | None, typer.Option(help="Sub-folder of the data set that holds train.txt, val.txt and test.txt.")
]
Modality = Annotated[
    str | None, typer.Option(help="What the images show: thermal (default), depth (one channel, too), or rgb.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", help="A recipe value, key=value; may be repeated.")]
Json = Annotated[str | None, typer.Option("--json", help="Write the figures as JSON to this file; - prints them.")]
RecipeFile = Annotated[Path | None, typer.Option(help="TOML file of recipe values.")]
RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run. Default: a new one in runs/.")]
Resumed = Annotated[Path | None, typer.Option(help="Go on with this run instead of starting one.")]


class SeveralWords(TyperCommand):
    """A command whose repeatable options take every word up to the next option."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse the command line."""
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        return super().parse_args(ctx, spread(args, repeatable))


def spread(words: Iterable[str], options: Collection[str]) -> list[str]:
    """Repeat each of ``options`` before every word that follows it, up to the next option."""
    found: list[str] = []
    option, first = "", False
    for word in words:
        if word.startswith("-"):
            option, first = word if word in options else "", True
        elif option and not first:
            found.append(option)
        else:
            first = False
        found.append(word)
    return found
