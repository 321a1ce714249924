"""The job server: how many processes hold a token at a time."""

from contextlib import closing

import anyio

from quizmatrix.core.jobserver import JobServer


def test_any_number_may_wait_for_few_tokens() -> None:
    most = now = ended = 0

    async def one(pool: JobServer) -> None:
        nonlocal most, now, ended
        async with pool.token():
            now += 1
            most = max(most, now)
            await anyio.sleep(0.001)
            now -= 1
            ended += 1

    async def play() -> None:
        with closing(JobServer(2)) as pool:
            async with anyio.create_task_group() as group:
                for _ in range(9):
                    group.start_soon(one, pool)
            assert pool.share == 2

    anyio.run(play)
    assert (most, ended) == (2, 9)


def test_who_is_cancelled_while_it_waits_takes_none() -> None:
    async def play() -> None:
        with closing(JobServer(1)) as pool:
            async with pool.token():
                with anyio.move_on_after(0.01):
                    async with pool.token():
                        raise AssertionError("there was one token")
            with anyio.fail_after(5):
                async with pool.token():
                    pass

    anyio.run(play)
