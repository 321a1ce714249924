"""Processes of orders, forked off a server: real ones."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import HostError
from quizmatrix.hosts import forkserver
from quizmatrix.hosts.cellprocess import ORDER
from quizmatrix.hosts.forker import Forker
from quizmatrix.hosts.forkserver import SAID
from tests.vm.processes import children_of, is_running, running_children, wait_for


def play(scene: Callable[[Forker], Awaitable[None]]) -> None:
    async def with_server() -> None:
        processes = Forker()
        try:
            await scene(processes)
        finally:
            await processes.stop()

    anyio.run(with_server)


async def run(processes: Forker, folder: Path) -> int:
    return await processes.run(folder, lambda line: pytest.fail(f"it told {line!r}"))


async def ends_with(processes: Forker, folder: Path, status: int) -> None:
    assert await run(processes, folder) == status


def servers() -> list[int]:
    return running_children(forkserver.__name__)


async def forked() -> tuple[int, int]:
    """The server, and the process that it forks, once it has."""
    with anyio.fail_after(60):
        while True:
            for server in servers():
                for pid in children_of(server):
                    return server, pid
            await anyio.sleep(0.05)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The folder of an order that is none."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / ORDER).write_text("no order")
    return folder


@pytest.fixture
def unending(tmp_path: Path) -> Path:
    """The folder of an order that is never read to its end."""
    folder = tmp_path / "unending"
    folder.mkdir()
    os.mkfifo(folder / ORDER)
    return folder


def test_a_process_that_fails_says_why_in_its_folder(broken: Path) -> None:
    async def scene(processes: Forker) -> None:
        await processes.start()
        assert [await run(processes, broken) for _ in range(3)] == [1, 1, 1]

    play(scene)
    assert "what another host says is no order" in (broken / SAID).read_text()
    assert not servers()


def test_processes_run_side_by_side_and_one_that_is_not_wanted_is_ended(broken: Path, unending: Path) -> None:
    async def scene(processes: Forker) -> None:
        async with task_group() as group:
            group.start_soon(run, processes, unending)
            _, pid = await forked()
            assert await run(processes, broken) == 1
            assert is_running(pid)
            group.cancel_scope.cancel()
        assert not is_running(pid)
        # The server goes on, and has reaped both.
        assert await run(processes, broken) == 1
        (server,) = servers()
        assert children_of(server) == []

    play(scene)


def test_one_that_dies_has_the_status_of_its_signal(unending: Path) -> None:
    async def scene(processes: Forker) -> None:
        async with task_group() as group:
            group.start_soon(ends_with, processes, unending, -signal.SIGSEGV)
            _, pid = await forked()
            os.kill(pid, signal.SIGSEGV)

    play(scene)


def test_what_a_killed_server_has_forked_dies_and_the_next_order_gets_another(
    broken: Path, unending: Path
) -> None:
    async def scene(processes: Forker) -> None:
        async with task_group() as group:
            group.start_soon(ends_with, processes, unending, -signal.SIGKILL)
            server, pid = await forked()
            os.kill(server, signal.SIGKILL)
            await anyio.to_thread.run_sync(wait_for, lambda: not is_running(pid))
        assert await run(processes, broken) == 1
        assert server not in servers()

    play(scene)


def test_a_server_that_does_not_answer_is_an_error_and_the_next_order_gets_another(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(processes: Forker) -> None:
        await processes.start()
        (server,) = servers()
        os.kill(server, signal.SIGSTOP)
        monkeypatch.setattr("quizmatrix.hosts.forker._ANSWER_LIMIT", 0.5)
        with pytest.raises(HostError, match="does not answer"):
            await run(processes, broken)
        monkeypatch.undo()
        assert not is_running(server)
        assert await run(processes, broken) == 1

    play(scene)


def test_one_that_does_not_end_is_killed(unending: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(processes: Forker) -> None:
        async with task_group() as group:
            group.start_soon(run, processes, unending)
            _, pid = await forked()
            # A stopped process acts on SIGKILL alone.
            os.kill(pid, signal.SIGSTOP)
            monkeypatch.setattr("quizmatrix.core.process.TERM_GRACE", 0.2)
            group.cancel_scope.cancel()
        assert not is_running(pid)

    play(scene)


def test_an_answer_that_nobody_waits_for_is_not_taken_for_another(broken: Path, unending: Path) -> None:
    async def scene(processes: Forker) -> None:
        await run(processes, broken)
        (server,) = servers()
        os.kill(server, signal.SIGSTOP)
        # As dask does it: no scope of anyio shields from that.
        first = asyncio.create_task(run(processes, unending))
        await anyio.sleep(0.2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        os.kill(server, signal.SIGCONT)
        assert [await run(processes, broken) for _ in range(3)] == [1, 1, 1]
        assert servers() == [server]
        # What was forked for nobody does not run on.
        assert not any(map(is_running, children_of(server)))

    play(scene)


def test_a_server_that_ends_ends_for_good(broken: Path) -> None:
    async def scene(processes: Forker) -> None:
        await processes.start()
        async with task_group() as group:
            group.start_soon(processes.stop)
            group.start_soon(processes.stop)
        with pytest.raises(HostError, match="the worker is ending"):
            await run(processes, broken)
        assert not servers()

    play(scene)


def test_signals_to_all_processes_of_a_worker_leave_the_server_to_the_worker(broken: Path) -> None:
    async def scene(processes: Forker) -> None:
        await run(processes, broken)
        (server,) = servers()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(server, number)
        assert await run(processes, broken) == 1
        assert servers() == [server]

    play(scene)


def test_a_fork_that_fails_is_an_error_of_that_order(
    broken: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr("quizmatrix.core.forking.fork", refuse)
    ours, its = socket.socketpair()
    with ours, its:
        answer = forkserver._fork(tmp_path, its.fileno(), ours)

    async def refused(*_: object) -> str:
        return answer.decode()

    async def scene(processes: Forker) -> None:
        monkeypatch.setattr(processes, "_ask", refused)
        with pytest.raises(HostError, match="Resource temporarily unavailable") as caught:
            await run(processes, broken)
        assert "ulimit -u" in caught.value.next_step

    play(scene)
