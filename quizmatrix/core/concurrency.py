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

# A function that waits for a reason to stop, such as a signal, and then calls its argument.
Watch = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """anyio's task group, but a single error leaves it without an ExceptionGroup around it.

    Of several errors only the most useful one is raised, in this order: a request to exit (not an
    Exception), a QuizmatrixError, an OSError. If none is of these kinds, the whole group is raised, so that
    no bug of ours is hidden.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as several:
        chosen = most_useful(several)
        # `raise` would set the group as the error's context, and the group contains the error: a cycle.
        context = chosen.__context__
        try:
            raise chosen
        finally:
            chosen.__context__ = context


def most_useful(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The most useful error of a group, as described at `task_group`; otherwise the group."""
    errors = list(_leaves(group))
    if len(errors) == 1:
        return errors[0]
    leaving = (error for error in errors if not isinstance(error, Exception))
    ours = (error for error in errors if isinstance(error, QuizmatrixError))
    the_systems = (error for error in errors if isinstance(error, OSError))
    return next(chain(leaving, ours, the_systems), _innermost(group))


def _innermost(group: BaseExceptionGroup[BaseException]) -> BaseExceptionGroup[BaseException]:
    """The group, after unwrapping groups that contain only one other group."""
    while len(group.exceptions) == 1 and isinstance(group.exceptions[0], BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


async def in_thread(work: Callable[[], R], *, is_awaited: bool = False, is_alone: bool = False) -> R:
    """Call `work` in a thread and return its result.

    is_awaited: whether a cancellation waits until `work` has ended, which would else go on to write.
    is_alone: `work` mostly waits, and does not have to wait for others before.
    Raises HostError if the host refuses a new thread.
    """
    limiter = anyio.CapacityLimiter(1) if is_alone else None
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=not is_awaited, limiter=limiter)
    except RuntimeError as error:
        if "new thread" not in str(error):
            raise
        raise HostError(
            "cannot start a thread",
            cause=str(error),
            next_step="`ulimit -u` shows how many processes and threads you may have; -j 1 takes fewer.",
        ) from error


async def run_cleanup(work: Callable[[], Awaitable[R]], *, limit: float, limit_cancelled: float) -> R | None:
    """Run cleanup that goes on after a cancellation, but not for ever; None if it ran out of time.

    limit: seconds for all of it. limit_cancelled: seconds that are left once we are cancelled.
    """
    async with task_group() as group:
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + limit) as scope:

            async def notice_cancellation() -> None:
                try:
                    await anyio.sleep_forever()
                finally:
                    scope.deadline = min(scope.deadline, anyio.current_time() + limit_cancelled)

            # A task of the outer group: the shield does not cover it, so it notices the cancellation.
            group.start_soon(notice_cancellation)
            result = await work()
        group.cancel_scope.cancel()
        return None if scope.cancelled_caught else result
