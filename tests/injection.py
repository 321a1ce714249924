"""Throws errors into a program's coroutines at their awaits, at one await in each run."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any

Site = tuple[tuple[str, str, int], ...]


class Injector:
    """Throws one error in each run, at the first await where none was thrown in an earlier run."""

    def __init__(self, strike: Callable[[int], BaseException | None]) -> None:
        """strike: makes the error for the n-th site; returns None if it did something else instead."""
        self._strike = strike
        self._known: set[Site] = set()
        self.struck: Site | None = None

    def begin(self) -> None:
        """A new run, in the running event loop; for the tasks that are made from now on."""
        self.struck = None

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **more: Any) -> asyncio.Task[Any]:
            return asyncio.Task(_drive(coro, self), loop=loop, **more)

        asyncio.get_running_loop().set_task_factory(factory)

    def at(self, coro: Any) -> BaseException | None:
        """The error to throw into a coroutine that has reached an await, if any."""
        site = _site(coro)
        if self.struck is not None or site in self._known or _only_waits_for_our_own_tasks(site):
            return None
        self._known.add(site)
        self.struck = site
        return self._strike(len(self._known))


async def _drive(coro: Coroutine[Any, Any, Any], injector: Injector) -> Any:
    return await _Steps(coro, injector)


class _Steps:
    def __init__(self, coro: Coroutine[Any, Any, Any], injector: Injector) -> None:
        self._coro = coro
        self._injector = injector

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                awaited = self._coro.send(None) if error is None else self._coro.throw(error)
            except StopIteration as end:
                return end.value
            error = self._injector.at(self._coro)
            if error is not None:
                if awaited is not None:
                    awaited._asyncio_future_blocking = False
                continue
            try:
                yield awaited
            except BaseException as thrown:
                error = thrown


def _site(awaiter: Any) -> Site:
    """The frames from a task's first one to what it awaits."""
    frames = []
    while awaiter is not None:
        kind = next((kind for kind in ("cr", "ag", "gi") if hasattr(awaiter, f"{kind}_frame")), None)
        if kind is not None:
            frame = getattr(awaiter, f"{kind}_frame")
            if frame is None:
                break
            frames.append((frame.f_code.co_filename, frame.f_code.co_qualname, frame.f_lineno))
            awaiter = getattr(awaiter, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
        else:
            # Only the garbage collector knows which object awaits an asynchronous generator's next value.
            held = (one for one in gc.get_referents(awaiter) if inspect.isasyncgen(one) or is_step(one))
            awaiter = next(held, None)
    return tuple(frames)


def is_step(one: Any) -> bool:
    """Whether an object awaits an asynchronous generator's next value."""
    return type(one).__name__ in ("async_generator_asend", "async_generator_athrow", "anext_awaitable")


def _only_waits_for_our_own_tasks(site: Site) -> bool:
    """The end of a task group, where nothing can fail but the tasks themselves."""
    return bool(site) and site[-1][1].startswith("TaskGroup.__aexit__")
