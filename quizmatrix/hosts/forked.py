"""Runs each order in a process of its own, which a server forks."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import anyio
from anyio.abc import Process

import quizmatrix
from quizmatrix.core import process
from quizmatrix.core.errors import HostError
from quizmatrix.hosts import forkserver

# The longest line that an order's process tells, in bytes.
_LONGEST_LINE = 1 << 26
# Seconds for the server to answer.
_ANSWER_LIMIT = 60.0
# How often it is asked whether a process that tells nothing any more has ended, and seconds in between.
_QUESTIONS, _PAUSE = 500, 0.01
# The longest answer of the server, in bytes: a number.
_ANSWER = 64


class _Server(NamedTuple):
    """A server that runs. control: it is asked on that."""

    process: Process
    control: socket.socket


class ForkServer:
    """Starts the server, and asks it for processes. They die with it, and it dies with this process."""

    def __init__(self) -> None:
        self._server: _Server | None = None
        self._asking = anyio.Lock()

    async def start(self) -> None:
        """Start the server ahead: it takes a moment. Raises HostError if it cannot be started."""
        await self._running()

    async def stop(self) -> None:
        """End the server, and with it what it forked."""
        if self._server is not None:
            with anyio.CancelScope(shield=True):
                await process.kill(self._server.process)
            self._server.control.close()
            self._server = None

    async def run(self, folder: Path, take: Callable[[bytes], None]) -> int:
        """Run the process of the order in `folder` until it ends; returns its exit status.

        take: is called with each line that it tells. Cancellation ends the process: SIGTERM, five seconds,
        SIGKILL. Raises HostError if none can be started.
        """
        ours, its = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LONGEST_LINE)
        try:
            with its:
                pid = int(await self._ask(os.fsencode(folder), [its.fileno()]))
            try:
                while line := await reader.readline():
                    take(line)
            finally:
                with anyio.CancelScope(shield=True):
                    status = await self._end(pid, reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return status

    async def _end(self, pid: int, reader: asyncio.StreamReader) -> int:
        """End the process, unless it has; returns its exit status, or that of SIGKILL where it hangs.

        Only the server reaps it, and only when it is asked: until then the pid is no other process's.
        """
        for number, grace in ((signal.SIGTERM, process.TERM_GRACE), (signal.SIGKILL, process.KILL_GRACE)):
            if reader.at_eof():
                break
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            with anyio.move_on_after(grace):
                while await reader.read(_LONGEST_LINE):
                    pass
        for _ in range(_QUESTIONS):
            if not self._runs:
                # What it had forked died with it.
                break
            if answer := (await self._ask(str(pid).encode())).strip():
                return int(answer)
            await anyio.sleep(_PAUSE)
        return -signal.SIGKILL

    async def _ask(self, question: bytes, passed: Sequence[int] = ()) -> bytes:
        """Ask the server. Raises HostError if it does not answer."""
        async with self._asking:
            # An answer that nobody waits for would be taken for that to the next question.
            with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _ANSWER_LIMIT):
                control = await self._running()
                with suppress(OSError):
                    socket.send_fds(control, [question], passed)
                    await anyio.wait_readable(control)
                    if answer := control.recv(_ANSWER):
                        return answer
            await self.stop()
        raise HostError("cannot start a process for a cell", cause="what forks them does not answer")

    async def _running(self) -> socket.socket:
        """What the server is asked on, which is started anew if it has died."""
        if self._server is None or not self._runs:
            await self.stop()
            self._server = await _start()
        return self._server.control

    @property
    def _runs(self) -> bool:
        return self._server is not None and self._server.process.returncode is None


async def _start() -> _Server:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with its:
        started = await process.start(
            [sys.executable, "-P", "-m", forkserver.__name__, str(its.fileno())],
            pass_fds=[its.fileno()],
            env={"PYTHONPATH": str(Path(quizmatrix.__file__).resolve().parents[1])},
            output=sys.stderr.fileno(),
        )
    return _Server(started, ours)
