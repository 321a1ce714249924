"""Task groups raise plain errors, also where the host gives no process and no thread."""

import errno
import os
import subprocess
import sys
import traceback
from pathlib import Path

import anyio
import pytest

from quizmatrix.core.concurrency import run_cleanup, task_group
from quizmatrix.core.errors import HostError


async def fail(error: BaseException) -> None:
    raise error


async def fail_in_groups(errors: list[BaseException]) -> None:
    """The first error is raised by the body, two groups deep; the others by tasks of the inner group."""
    async with task_group(), task_group() as group:
        for error in errors[1:]:
            group.start_soon(fail, error)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.01)
        raise errors[0]


BUG = ValueError("a bug")
DISK = OSError(errno.EIO, "a disk")
OURS = HostError("ours")


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([BUG], BUG),
        ([DISK, OURS], OURS),
        ([OURS, DISK], OURS),
        ([BUG, DISK], DISK),
        ([BUG, OURS, DISK], OURS),
    ],
)
def test_the_error_that_says_most_comes_out(errors: list[BaseException], expected: BaseException) -> None:
    with pytest.raises(type(expected)) as caught:
        anyio.run(fail_in_groups, errors)
    assert caught.value is expected
    # The error is raised as it was, without an exception group around it.
    assert "ExceptionGroup" not in "".join(traceback.format_exception(caught.value))


def test_several_faults_of_ours_are_not_hidden() -> None:
    several: list[BaseException] = [BUG, TypeError("another")]
    with pytest.raises(ExceptionGroup) as caught:
        anyio.run(fail_in_groups, several)
    assert len(caught.value.exceptions) == 2


def test_a_cancelled_group_raises_nothing() -> None:
    async def play() -> str:
        async with task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.cancel_scope.cancel()
        return "done"

    assert anyio.run(play) == "done"


async def quick() -> str:
    await anyio.sleep(0.01)
    return "whole"


async def for_ever() -> str:
    await anyio.sleep_forever()
    return "never"


def test_winding_up_is_bounded() -> None:
    async def play() -> None:
        assert await run_cleanup(quick, limit=60, limit_cancelled=60) == "whole"
        assert await run_cleanup(for_ever, limit=0.05, limit_cancelled=60) is None

    anyio.run(play)


def test_winding_up_is_done_also_where_we_were_cancelled_and_is_bounded_then() -> None:
    found: list[str | None] = []

    async def wind() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            try:
                found.append(await run_cleanup(quick, limit=60, limit_cancelled=60))
            finally:
                # Without the second limit this would hang.
                await run_cleanup(for_ever, limit=600, limit_cancelled=0.05)

    async def play() -> None:
        async with task_group() as group:
            group.start_soon(wind)
            await anyio.sleep(0.01)
            group.cancel_scope.cancel()

    anyio.run(play)
    assert found == ["whole"]


# Code for a process that may start no processes or threads; for root there is no such limit.
LIMITED = """
import os, resource, signal
import anyio
from quizmatrix.core import process
from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import HostError

async def warm_up():
    await process.run(["true"])

async def one_of_each():
    # Each in its own task group, as in a cell.
    starts = (lambda: process.run(["true"]), lambda: process.start(["true"]))
    for work in (*starts, lambda: in_thread(os.getpid)):
        try:
            async with task_group() as group:
                group.start_soon(anyio.sleep_forever)
                await work()
        except HostError as error:
            print(error, "|", error.next_step)

anyio.run(warm_up)
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
anyio.run(one_of_each)
"""


def test_a_host_that_gives_no_more_processes_is_named(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, check=False, cwd=tmp_path)
    said = done.stdout.decode().splitlines()
    assert done.stderr == b""
    assert len(said) == 3
    for line in said[:2]:
        assert line.startswith("cannot start true: Resource temporarily unavailable | `ulimit -u`")
    assert said[2].startswith("cannot start a thread: can't start new thread | `ulimit -u`")


COMMANDS = [
    ["--help"],
    ["cells", "endian"],
    ["completion", "bash"],
    ["doctor"],
    ["image", "list"],
    ["kernel", "build", "path:TOY"],
    ["kernel", "list"],
    ["module", "list"],
    ["nightly", "status"],
    ["prepare", "--only", "path:TOY-x86_64"],
    ["run", "endian", "--dry-run", "--", "true"],
    ["run", "endian", "--dry-run", "--json", "-", "--", "true"],
    ["runs", "list"],
    ["runs", "list", "--json"],
    ["runs", "prune"],
    ["clean"],
]


@pytest.mark.parametrize("argv", COMMANDS, ids=" ".join)
def test_a_reader_that_went_away_is_no_fault(argv: list[str], toy: Path, tmp_path: Path) -> None:
    """`quizmatrix ... | head`: no traceback, and the exit status of a broken pipe."""
    reader, writer = os.pipe()
    os.close(reader)
    toy.rename(tmp_path / "toy")
    words = [word.replace("TOY", str(tmp_path / "toy")) for word in argv]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "quizmatrix", *words],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            env=dict(os.environ) | {"QUIZMATRIX_STATE_DIR": str(tmp_path / "state")},
        )
    finally:
        os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"internal error" not in done.stderr
    assert done.returncode == 141, done.stderr.decode()
