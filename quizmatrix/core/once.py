"""OncePerKey: calls a function once for each key, however many tasks need its result at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import anyio

from quizmatrix.core.errors import QuizmatrixError

T = TypeVar("T")


class OncePerKey:
    """Results by key. Results of one key have one type."""

    def __init__(self) -> None:
        self._locks: dict[str, anyio.Lock] = {}
        self._results: dict[str, object] = {}

    async def get(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """The result, or the QuizmatrixError, of `make`, which is called only the first time."""
        async with self.lock(key):
            if key not in self._results:
                try:
                    self._results[key] = await make()
                except QuizmatrixError as error:
                    self._results[key] = error
        result = self._results[key]
        if isinstance(result, QuizmatrixError):
            raise result
        return cast(T, result)

    def lock(self, key: str) -> anyio.Lock:
        """The lock that is held while the result of a key is made."""
        return self._locks.setdefault(key, anyio.Lock())
