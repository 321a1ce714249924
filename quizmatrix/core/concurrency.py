"""Task groups that raise plain errors, work in threads, and cleanup with a time limit.

anyio wraps every error that leaves a task group in an ExceptionGroup, even a single one, and an ordinary
`except` does not catch it. All task groups of quizmatrix are therefore the ones defined here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from quizmatrix.core.errors import HostError, QuizmatrixError

R = TypeVar("R")

# Awaits what is to stop something, such as a signal, and calls then what it is given; ends when cancelled.
Watch = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """anyio's task group; an error leaves it as it was raised.

    Of several errors the first one leaves it that says most to a user: one that asks us to leave, one of our
    own, one of the operating system's. Several that are none of these leave it together, so that no fault of
    ours is hidden.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as several:
        chosen = most_telling(several)
        # A `raise` makes the group its context, and the group holds it: a circle.
        context = chosen.__context__
        try:
            raise chosen
        finally:
            chosen.__context__ = context


def most_telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of a group that is to be told of, or the group where none is."""
    errors = list(_leaves(group))
    if len(errors) == 1:
        return errors[0]
    leaving = (error for error in errors if not isinstance(error, Exception))
    ours = (error for error in errors if isinstance(error, QuizmatrixError))
    the_systems = (error for error in errors if isinstance(error, OSError))
    return next(chain(leaving, ours, the_systems), _innermost(group))


def _innermost(group: BaseExceptionGroup[BaseException]) -> BaseExceptionGroup[BaseException]:
    """The group without those around it that hold nothing else."""
    while len(group.exceptions) == 1 and isinstance(group.exceptions[0], BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def in_thread(work: Callable[[], R]) -> R:
    """What `work` gives, done in a thread; who is cancelled does not wait for its end.

    HostError where this host gives no thread.
    """
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        raise HostError(
            "cannot start a thread",
            cause=str(error),
            next_step="`ulimit -u` shows how many processes and threads you may have; -j 1 takes fewer.",
        ) from error


async def wind_up(work: Callable[[], Awaitable[R]], *, limit: float, hurried: float) -> R | None:
    """Do what has to be done also where we were cancelled, but not for ever.

    limit: seconds for it. hurried: seconds from where we are cancelled on. None where they were not enough.
    """
    async with task_group() as group:
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + limit) as scope:

            async def hear_of_the_end() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    scope.deadline = min(scope.deadline, anyio.current_time() + hurried)

            # Of the group, and so not under the shield.
            group.start_soon(hear_of_the_end)
            result = await work()
        group.cancel_scope.cancel()
        return None if scope.cancelled_caught else result
