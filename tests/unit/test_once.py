"""OncePerKey: a function is called once for each key, its error included."""

import anyio
import pytest

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import NotFetchedError
from quizmatrix.core.once import OncePerKey


def test_a_failed_making_is_not_tried_again() -> None:
    calls: list[int] = []

    async def play() -> None:
        results = OncePerKey()

        async def make() -> int:
            calls.append(1)
            raise NotFetchedError("no")

        for _ in range(3):
            with pytest.raises(NotFetchedError):
                await results.get("x", make)

    anyio.run(play)
    assert calls == [1]


def test_tasks_of_one_key_wait_for_the_first() -> None:
    calls: list[str] = []
    found: list[str] = []

    async def play() -> None:
        results = OncePerKey()

        async def take(key: str) -> None:
            async def make() -> str:
                calls.append(key)
                await anyio.sleep(0.01)
                return f"made of {key}"

            found.append(await results.get(key, make))

        async with task_group() as group:
            for key in "aabab":
                group.start_soon(take, key)

    anyio.run(play)
    assert sorted(calls) == ["a", "b"]
    assert sorted(found) == [*["made of a"] * 3, *["made of b"] * 2]


def test_what_was_cancelled_is_made_anew() -> None:
    async def play() -> str:
        results = OncePerKey()

        async def make() -> str:
            return "made"

        async def make_for_ever() -> str:
            await anyio.sleep_forever()
            return "never"

        with anyio.move_on_after(0.01):
            await results.get("x", make_for_ever)
        return await results.get("x", make)

    assert anyio.run(play) == "made"
