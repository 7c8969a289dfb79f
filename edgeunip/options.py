"""Options that take several words: ``--seeds 0 1 2`` for ``--seeds 0 --seeds 1 --seeds 2``."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import typer
from typer.core import TyperCommand


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
