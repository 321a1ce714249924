"""The job server, which limits the CPUs of all builds together, with real make(1) processes."""

import os
from pathlib import Path

import anyio
import pytest

from quizmatrix.core import process
from quizmatrix.core.jobserver import JobServer

# Each job records how many jobs run at the same time.
COUNTING = """
all: $(addprefix job,1 2 3 4 5 6)
job%:
	@mkdir $(RUNNING)/$(NAME)$*
	@ls $(RUNNING) | wc -l >>$(NAME).seen
	@sleep 0.05
	@ls $(RUNNING) | wc -l >>$(NAME).seen
	@rmdir $(RUNNING)/$(NAME)$*
"""

# Each of the two jobs ends only after the other has begun.
MEETING = """
all: one two
one:
	@echo hello >there; read word <here
two:
	@read word <there; echo hello >here
"""


async def make(pool: JobServer, folder: Path, *words: str) -> int:
    async with pool.token():
        done = await process.run(
            ["make", *words], cwd=folder, env=pool.environment, pass_fds=pool.descriptors
        )
    return done.status


def tokens_in(pool: JobServer) -> int:
    return len(os.read(pool.descriptors[0], 100))


def test_two_makes_have_no_more_jobs_than_the_pool_has(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(COUNTING)
    (tmp_path / "running").mkdir()

    async def both() -> int:
        pool = JobServer(3)
        async with anyio.create_task_group() as group:
            for name in ("a", "b", "c", "d"):
                group.start_soon(make, pool, tmp_path, "RUNNING=running", f"NAME={name}")
        left = tokens_in(pool)
        pool.close()
        return left

    assert anyio.run(both) == 3
    seen = [int(line) for path in tmp_path.glob("*.seen") for line in path.read_text().split()]
    assert len(seen) == 4 * 6 * 2
    assert max(seen) <= 3


def test_a_make_gets_what_is_free(tmp_path: Path) -> None:
    """With only one job at a time this would never end."""
    (tmp_path / "Makefile").write_text(MEETING)
    for name in ("here", "there"):
        os.mkfifo(tmp_path / name)

    async def one() -> int:
        pool = JobServer(2)
        status = await make(pool, tmp_path)
        pool.close()
        return status

    assert anyio.run(one) == 0


def test_a_make_that_fails_gives_back_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all: a b c\na b:\n\t@sleep 0.05\nc:\n\t@exit 1\n")

    async def one() -> tuple[int, int]:
        pool = JobServer(3)
        status = await make(pool, tmp_path)
        left = tokens_in(pool)
        pool.close()
        return status, left

    assert anyio.run(one) == (2, 3)


def test_a_token_is_waited_for(tmp_path: Path) -> None:
    order: list[str] = []

    async def main() -> None:
        pool = JobServer(1)

        async def hold(name: str) -> None:
            async with pool.token():
                order.append(f"{name} begins")
                await anyio.sleep(0.01)
                order.append(f"{name} ends")

        async with anyio.create_task_group() as group:
            group.start_soon(hold, "one")
            group.start_soon(hold, "two")
        assert tokens_in(pool) == 1
        pool.close()

    anyio.run(main)
    assert [line.split()[1] for line in order] == ["begins", "ends"] * 2


def test_who_knows_no_pool_has_a_share() -> None:
    async def main() -> list[int]:
        pool = JobServer(4)
        shares = [pool.share]
        async with pool.token():
            shares.append(pool.share)
            async with pool.token():
                shares.append(pool.share)
        pool.close()
        return shares

    assert anyio.run(main) == [4, 4, 2]


@pytest.mark.parametrize("left", [0, 5, 1 << 20])
def test_what_a_build_takes_or_fills_in_is_set_right(left: int) -> None:
    """A make(1) that was killed returns no token; a hostile program can fill the pipe, which would block."""

    async def main() -> int:
        pool = JobServer(3)
        async with pool.token():
            tokens_in(pool)
            os.set_blocking(pool.descriptors[1], False)
            os.write(pool.descriptors[1], b"x" * left)
            os.set_blocking(pool.descriptors[1], True)
        found = tokens_in(pool)
        pool.close()
        return found

    assert anyio.run(main) == 3
