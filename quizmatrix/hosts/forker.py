"""Runs each order in a process of its own, which a server forks."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio.abc import Process

from quizmatrix.core import process
from quizmatrix.core.errors import HostError
from quizmatrix.core.offload import own_module
from quizmatrix.hosts import forkserver

# The longest line that an order's process tells, in bytes.
_LONGEST_LINE = 1 << 26
# Seconds for the server to answer.
_ANSWER_LIMIT = 60.0
# How often it is asked whether a process that tells nothing any more has ended, and seconds in between.
_QUESTIONS, _PAUSE = 500, 0.01
# The longest answer of the server, in bytes: two numbers.
_ANSWER = 64

# The status of what dies with its server.
_KILLED = -signal.SIGKILL


class _Server(NamedTuple):
    """A server that runs. control: it is asked on that."""

    process: Process
    control: socket.socket

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None


class Forker:
    """Starts the server, and asks it for processes. They die with it, and it dies with this process."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._asking = anyio.Lock()
        self._asked = 0
        # Questions for a process whose answers nobody waits for any more.
        self._given_up: set[bytes] = set()
        self._is_stopped = False

    async def start(self) -> None:
        """Start the server ahead, as it takes a moment. Raises HostError if it cannot be started."""
        await self._running()

    async def stop(self) -> None:
        """End the server, and with it what it forked. There is no further one."""
        self._is_stopped = True
        await self._drop()

    async def run(self, folder: Path, take: Callable[[bytes], None]) -> int:
        """Run the process of the order in `folder` until it ends; returns its exit status.

        take: is called with each line that it tells. Cancellation ends the process: SIGTERM, five seconds,
        SIGKILL. Raises HostError if none can be started.
        """
        ours, its = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        try:
            with its:
                server, pid = await self._fork(folder, its)
            try:
                while line := await reader.readline():
                    take(line)
            finally:
                with anyio.CancelScope(shield=True):
                    status = await self._end(server, pid, reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return status

    async def _fork(self, folder: Path, out: socket.socket) -> tuple[_Server, int]:
        async with self._asking:
            with anyio.CancelScope(shield=True):
                server = await self._running()
                try:
                    answer = await self._ask(server, os.fsencode(folder), [out.fileno()])
                except BaseException:
                    self._given_up.add(str(self._asked).encode())
                    raise
        if answer is None:
            raise HostError("cannot start a process for an order", cause="what forks them does not answer")
        pid = int(answer)
        if pid < 0:
            raise process.cannot_start("a process for an order", OSError(-pid, os.strerror(-pid)))
        return server, pid

    async def _end(self, server: _Server, pid: int, reader: asyncio.StreamReader) -> int:
        """End the process, unless it has; returns its exit status, or that of SIGKILL where it is unknown.

        The server reaps it only when it is asked: until then the pid is no other process's.
        """
        for number, grace in ((signal.SIGTERM, process.TERM_GRACE), (signal.SIGKILL, process.KILL_GRACE)):
            if reader.at_eof() or not server.is_running:
                break
            _send(pid, number)
            with anyio.move_on_after(grace):
                while await reader.read(_LONGEST_LINE):
                    pass
        for _ in range(_QUESTIONS):
            async with self._asking:
                # What a server has forked dies with it.
                answer = await self._ask(server, str(pid).encode()) if server.is_running else None
            if answer is None:
                break
            if answer:
                return int(answer)
            await anyio.sleep(_PAUSE)
        return _KILLED

    async def _ask(self, server: _Server, question: bytes, passed: Sequence[int] = ()) -> str | None:
        """Ask the server; None if it does not answer, and is dropped."""
        self._asked += 1
        number = str(self._asked).encode()
        with anyio.move_on_after(_ANSWER_LIMIT), suppress(OSError):
            socket.send_fds(server.control, [b"%s %s" % (number, question)], passed)
            while True:
                await anyio.wait_readable(server.control)
                of, _, answer = server.control.recv(_ANSWER).partition(b" ")
                if of == number:
                    return answer.decode()
                if not of:
                    break
                if of in self._given_up and int(answer) > 0:
                    # dask cancels where a shield does not help. The server reaps it at its end.
                    _send(int(answer), signal.SIGKILL)
        if server is self._server:
            await self._drop()
        return None

    async def _drop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with anyio.CancelScope(shield=True):
                await process.kill(server.process)
            anyio.notify_closing(server.control)
            server.control.close()

    async def _running(self) -> _Server:
        """The server, which is started anew if it has died. Raises HostError."""
        if self._is_stopped:
            raise HostError("cannot start a process for an order", cause="the worker is ending")
        if self._server is None or not self._server.is_running:
            await self._drop()
            self._server = await _start()
        return self._server


async def _start() -> _Server:
    argv, environment = own_module(forkserver.__name__)
    # As for each helper: what the processes read and write does not depend on the worker's language.
    environment["LC_ALL"] = os.environ.get("LC_ALL", "C.UTF-8")
    with ExitStack() as stack:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(ours.close)
        ours.setblocking(False)
        with its:
            started = await process.start(
                [*argv, str(its.fileno())],
                pass_fds=[its.fileno()],
                env=environment,
                output=sys.stderr.fileno(),
            )
        stack.pop_all()
    return _Server(started, ours)


def _send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and its helpers."""
    with suppress(ProcessLookupError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # it has no session of its own yet
            os.kill(pid, number)
