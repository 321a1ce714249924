"""Several things made one after the other; one that fails does not keep the others from it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

import anyio

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.core.process import Tell
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK


def make_each(makers: dict[str, Callable[[Tell], Awaitable[str]]]) -> int:
    """Await each maker, by the name of what it makes; the exit status.

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
