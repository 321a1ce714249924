"""The task in which the kernel died."""

from __future__ import annotations

from collections.abc import Iterator

import drgn

from quizmatrix.crash.bounds import text_of
from quizmatrix.crash.topics import stacks


def lines(program: drgn.Program) -> Iterator[str]:
    """Its name, and its stack with arguments; nothing where the kernel has not died."""
    try:
        thread = program.crashed_thread()
    except (ValueError, LookupError):
        return
    task = thread.object
    yield f"{thread.tid} {text_of(task.comm)}"
    yield from stacks.with_arguments(program, task)
