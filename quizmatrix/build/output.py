"""Prints the progress and the errors of builds."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable

import anyio

from quizmatrix.build.parts import Done, PartResult, TellOf
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.process import Tell
from quizmatrix.core.text import clean_block
from quizmatrix.core.units import format_seconds
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.report.progress import Screen


def progress_printer(*, quiet: bool) -> TellOf:
    """Make a function that prints progress on stderr; with `quiet` it prints nothing."""
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
    """A paragraph for each different error, with all cells that have it.

    A line of their next steps that only some of these cells have begins with them.
    """
    alike: dict[str, dict[str, QuizmatrixError]] = {}
    for cell, error in errors:
        if error is not None:
            alike.setdefault(str(error), {})[cell] = error
    paragraphs = []
    for text, cells in alike.items():
        steps: dict[str, list[str]] = {}
        for cell, error in cells.items():
            for line in error.next_step.splitlines():
                steps.setdefault(line.strip(), []).append(cell)
        lines = [
            step if len(some) == len(cells) else f"{', '.join(some)}: {step}" for step, some in steps.items()
        ]
        paragraphs.append("\n  ".join([f"{', '.join(cells)}: {text}", *lines]))
    return clean_block("\n\n".join(paragraphs))


def run_each(makers: dict[str, Callable[[Tell], Awaitable[str]]]) -> int:
    """Call each function, one after another, and print progress and errors. Returns the exit status.

    makers: by the name of what each makes. A function gets a callback for progress, and returns a description
    of the result. An error does not stop the others.
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
                print(clean_block(f"{name}: {error.render()}"), file=sys.stderr, flush=True)

    anyio.run(make_all)
    return EXIT_NO_VERDICT if failed else EXIT_OK
