"""Processes of orders, forked off a server: real ones."""

import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import HostError
from quizmatrix.hosts.cellprocess import ORDER
from quizmatrix.hosts.forked import ForkServer
from quizmatrix.hosts.forkserver import SAID
from tests.vm.processes import children_of, is_running, wait_for


def play(scene: Callable[[ForkServer], Awaitable[None]]) -> None:
    async def with_server() -> None:
        processes = ForkServer()
        try:
            await scene(processes)
        finally:
            await processes.stop()

    anyio.run(with_server)


async def run(processes: ForkServer, folder: Path) -> int:
    return await processes.run(folder, lambda line: pytest.fail(f"it told {line!r}"))


def servers() -> list[int]:
    return [pid for pid in children_of(os.getpid()) if is_running(pid)]


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
    async def scene(processes: ForkServer) -> None:
        await processes.start()
        assert [await run(processes, broken) for _ in range(3)] == [1, 1, 1]

    play(scene)
    assert "what another host says is no order" in (broken / SAID).read_text()
    assert not servers()


def test_processes_run_side_by_side_and_one_that_is_not_wanted_is_ended(broken: Path, unending: Path) -> None:
    async def scene(processes: ForkServer) -> None:
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
    async def scene(processes: ForkServer) -> None:
        async def check() -> None:
            assert await run(processes, unending) == -signal.SIGSEGV

        async with task_group() as group:
            group.start_soon(check)
            _, pid = await forked()
            os.kill(pid, signal.SIGSEGV)

    play(scene)


def test_what_a_killed_server_has_forked_dies_and_the_next_order_gets_another(
    broken: Path, unending: Path
) -> None:
    async def scene(processes: ForkServer) -> None:
        async def check() -> None:
            assert await run(processes, unending) == -signal.SIGKILL

        async with task_group() as group:
            group.start_soon(check)
            server, pid = await forked()
            os.kill(server, signal.SIGKILL)
            await anyio.to_thread.run_sync(wait_for, lambda: not is_running(pid))
        assert await run(processes, broken) == 1
        assert server not in servers()

    play(scene)


def test_a_server_that_does_not_answer_is_an_error_and_the_next_order_gets_another(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(processes: ForkServer) -> None:
        await processes.start()
        (server,) = servers()
        os.kill(server, signal.SIGSTOP)
        monkeypatch.setattr("quizmatrix.hosts.forked._ANSWER_LIMIT", 0.5)
        with pytest.raises(HostError, match="does not answer"):
            await run(processes, broken)
        monkeypatch.undo()
        assert not is_running(server)
        assert await run(processes, broken) == 1

    play(scene)
