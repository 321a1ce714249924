"""Prints the progress and the errors of builds."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable

import anyio

from quizmatrix.build.parts import Done, PartResult, TellOf
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.process import Tell
from quizmatrix.core.units import format_seconds
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.report.progress import Screen


def teller(*, quiet: bool) -> TellOf:
    """Says on stderr what is going on, unless that is not wanted."""
    screen = Screen(sys.stderr)

    def tell(what: str, said: str) -> None:
        if not quiet:
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


def make_each(makers: dict[str, Callable[[Tell], Awaitable[str]]]) -> int:
    """Await each maker, by the name of what it makes; the exit status. One that fails stops no other.

    A maker is given whom to tell how far it is, and returns what to say of what is ready.
    """
    failed = 0

    async def make_all() -> None:
        nonlocal failed
        for name, make in makers.items():

            def tell(said: str, name: str = name) -> None:
                print(f"{name}: {said}", flush=True)

            try:
                tell(f"ready: {await make(tell)}")
            except QuizmatrixError as error:
                failed += 1
                print(f"{name}: {error.render()}", file=sys.stderr, flush=True)

    anyio.run(make_all)
    return EXIT_NO_VERDICT if failed else EXIT_OK
