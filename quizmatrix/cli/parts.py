"""What the commands that build parts for many cells print of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from quizmatrix.build.parts import Done, PartResult, TellOf
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.units import format_seconds
from quizmatrix.report.progress import Screen


def teller(args: argparse.Namespace) -> TellOf:
    """Says on stderr what is going on, unless that is not wanted."""
    screen = Screen(sys.stderr)

    def tell(what: str, said: str) -> None:
        if not args.quiet:
            screen.print(f"{what}: {said}")

    return tell


def words(part: PartResult) -> str:
    """`built  3.1s`, `reused`, `failed`."""
    shows_time = part.done is Done.BUILT
    return f"{part.done}  {format_seconds(part.seconds)}" if shows_time else str(part.done)


def explain(errors: Iterable[tuple[str, QuizmatrixError | None]]) -> str:
    """A paragraph for each error of a cell; cells that have the same share one."""
    alike: dict[str, dict[str, QuizmatrixError]] = {}
    for cell, error in errors:
        if error is not None:
            alike.setdefault(str(error), {})[cell] = error
    paragraphs = []
    for text, cells in alike.items():
        steps = dict.fromkeys(error.next_step for error in cells.values() if error.next_step)
        paragraphs.append("\n  ".join([f"{', '.join(cells)}: {text}", *steps]))
    return "\n\n".join(paragraphs)
