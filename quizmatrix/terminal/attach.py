"""Visits: `exec` and `cp` reach a guest through the process whose terminal keeps it open.

That process listens on a socket in the cell's folder, and is handed the visitor's own standard
streams (unix(7), SCM_RIGHTS): nothing is copied in between.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import msgspec

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UsageError
from quizmatrix.core.json import encode
from quizmatrix.terminal.tty import Terminal

_SOCKET = "shell.sock"
_LONGEST = 1 << 17


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder to copy; paths are absolute on the host. into_guest: which way."""

    host: str
    guest: str
    into_guest: bool


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a visitor wants: a command (its words), or a copy. window: of his terminal, if he has one."""

    command: list[str] = []
    copy: Copy | None = None
    window: tuple[int, int] | None = None
    term: str = "dumb"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended. problem: why it could not be done at all."""

    status: int
    problem: str = ""


@contextmanager
def _at(folder: Path) -> Iterator[str]:
    """The socket's address, however long the folder's name is (unix(7): 108 bytes)."""
    descriptor = os.open(folder, os.O_PATH)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)


@contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """A socket for visitors in a cell's folder; it goes with the block."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        with _at(folder) as address:
            listener.bind(address)
        try:
            listener.listen()
            listener.setblocking(False)
            yield listener
        finally:
            (folder / _SOCKET).unlink(missing_ok=True)


class VisitorTerminal(Terminal):
    """The streams that a visitor handed over; his window's changes come over his socket."""

    def __init__(self, client: socket.socket, request: Request, streams: tuple[int, int, int]) -> None:
        """The streams are this object's from now on."""
        super().__init__(streams)
        self.kind = request.term
        self._client = client
        self._window = request.window

    def size(self) -> tuple[int, int] | None:
        """As the visitor said."""
        return self._window

    async def resized(self) -> AsyncIterator[tuple[int, int]]:
        """Columns and rows, each time they change; ends when the visitor has gone."""
        while True:
            await anyio.wait_readable(self._client)
            try:
                data = self._client.recv(_LONGEST)
                self._window = msgspec.json.decode(data, type=tuple[int, int])
            except (OSError, msgspec.MsgspecError):  # he has gone, or says something else
                return
            yield self._window

    def close(self) -> None:
        """Give the streams back."""
        for stream in self.streams:
            os.close(stream)


async def receive(client: socket.socket) -> tuple[Request, tuple[int, int, int]] | None:
    """A visitor's request and streams; None where he went away, or it is none."""
    await anyio.wait_readable(client)
    try:
        data, streams, _, _ = socket.recv_fds(client, _LONGEST, 3)
    except OSError:
        return None
    try:
        request = msgspec.json.decode(data, type=Request)
        first, second, third = streams
    except (msgspec.MsgspecError, ValueError):
        for stream in streams:
            os.close(stream)
        return None
    return request, (first, second, third)


def answer(client: socket.socket, reply: Reply) -> None:
    """Tell a visitor how it ended; one who has gone need not know."""
    try:
        client.send(encode(reply))
    except OSError:
        return


async def visit(folder: Path, cell: str, request: Request, terminal: Terminal) -> Reply:
    """Have the process that keeps the guest of `cell` open do what is wanted, with our streams.

    Raises UsageError where no guest is open there.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        try:
            with _at(folder) as address:
                client.connect(address)
        except OSError as error:
            raise UsageError(
                f"no guest of {cell} is open",
                cause="" if isinstance(error, FileNotFoundError) else error.strerror or str(error),
                next_step="quizmatrix shell and `run -S` keep one open, where its image has an SSH server.",
            ) from error
        socket.send_fds(client, [encode(request)], [0, 1, 2])
        client.setblocking(False)
        async with task_group() as group:

            async def tell_of_windows() -> None:
                async for window in terminal.resized():
                    client.send(msgspec.json.encode(window))

            if request.window is not None:
                group.start_soon(tell_of_windows)
            with terminal.raw():
                await anyio.wait_readable(client)
            data = client.recv(_LONGEST)
            group.cancel_scope.cancel()
    if not data:
        return Reply(status=128 + signal.SIGHUP, problem="the guest went away")
    return msgspec.json.decode(data, type=Reply)
