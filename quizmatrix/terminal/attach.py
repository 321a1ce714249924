"""How `exec` and `cp` reach a guest: through the quizmatrix process that has a terminal open in it.

That process listens on a socket in the cell's folder. Its client, `exec` or `cp`, sends a request and its own
standard streams (unix(7), SCM_RIGHTS), so nothing is copied between the two processes.
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
# Seconds until the next try to accept a client, after a failure.
_PAUSE = 0.1


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder to copy. host: an absolute path. into_guest: the direction."""

    host: str
    guest: str
    into_guest: bool


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request: a command (its words), or a copy.

    window: columns and rows of the client's terminal; None without one. term: its type.
    """

    command: list[str] = []
    copy: Copy | None = None
    window: tuple[int, int] | None = None
    term: str = "dumb"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """How the request ended. status: an exit status. problem: why it failed, or a remark; may be empty."""

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
    """A socket for clients in a cell's folder; it is removed at the block's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        with _at(folder) as address:
            listener.bind(address)
        try:
            listener.listen()
            listener.setblocking(False)
            yield listener
        finally:
            (folder / _SOCKET).unlink(missing_ok=True)


class ClientTerminal(Terminal):
    """A client's streams. Changes of its window come through its socket."""

    def __init__(self, client: socket.socket, request: Request, streams: tuple[int, int, int]) -> None:
        """Takes over the streams: `close` closes them."""
        super().__init__(streams)
        self.kind = request.term
        self._client = client
        self._window = request.window

    def size(self) -> tuple[int, int] | None:
        """Columns and rows, as the client last sent them."""
        return self._window

    async def resized(self) -> AsyncIterator[tuple[int, int]]:
        """Columns and rows, each time they change; ends when the client has gone."""
        while True:
            await anyio.wait_readable(self._client)
            try:
                data = self._client.recv(_LONGEST)
                self._window = msgspec.json.decode(data, type=tuple[int, int])
            except (OSError, msgspec.MsgspecError):  # the client has gone, or sent something else
                return
            yield self._window

    def close(self) -> None:
        """Close the streams."""
        for stream in self.streams:
            os.close(stream)


async def accept(listener: socket.socket) -> socket.socket:
    """The next client."""
    while True:
        await anyio.wait_readable(listener)
        try:
            client, _ = listener.accept()
        except OSError:  # it has gone again, or we have no descriptor left
            await anyio.sleep(_PAUSE)
            continue
        client.setblocking(False)
        return client


async def receive(client: socket.socket) -> tuple[Request, tuple[int, int, int]] | None:
    """A client's request and streams; None if it has gone, or sent something else."""
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


async def refuse(client: socket.socket, why: str) -> None:
    """Take a client's request, and send why nothing comes of it."""
    with client:
        if (received := await receive(client)) is not None:
            for stream in received[1]:
                os.close(stream)
            answer(client, Reply(status=255, problem=why))


def answer(client: socket.socket, reply: Reply) -> None:
    """Send a client how its request ended; nothing happens if it has gone."""
    try:
        client.send(encode(reply))
    except OSError:
        return


async def ask(folder: Path, cell: str, request: Request, terminal: Terminal) -> Reply:
    """Send a request and our streams to the process that has a terminal in the guest of `cell`; its reply.

    Raises UsageError where no process has one.
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
