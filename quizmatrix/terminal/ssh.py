"""SSH to a guest over one of its ports: no network, and a key pair made for this guest alone.

The only module that imports asyncssh: the import is slow.
"""

from __future__ import annotations

import getpass
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import asyncssh

from quizmatrix.core.concurrency import task_group
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.text import clean_detail, clean_line
from quizmatrix.run.runlayer import exec_line
from quizmatrix.terminal import attach
from quizmatrix.terminal.attach import Copy, Reply
from quizmatrix.terminal.fetch import Fetch
from quizmatrix.terminal.keys import Keys
from quizmatrix.terminal.tty import Terminal

Connection = asyncssh.SSHClientConnection

# Seconds for the connection to come up in a guest that is emulated and busy.
_CONNECT_LIMIT = 120.0
# Seconds for the connection to close.
_CLOSE_LIMIT = 2.0


def _have_a_name() -> None:
    """Give asyncssh a user name and a home directory: it looks them up, and some users have none."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"  # as Debian's system users have it


@asynccontextmanager
async def connected(port: socket.socket, keys: Keys) -> AsyncIterator[Connection]:
    """root's connection over `port` to the guest of these keys; UnpreparedError where it fails."""
    _have_a_name()
    connection = None
    # A duplicate: asyncssh closes its socket, and the port belongs to the caller.
    own = port.dup()
    own.setblocking(False)
    try:
        with anyio.fail_after(_CONNECT_LIMIT):
            connection = await asyncssh.connect(
                "guest",  # a name for messages: a socket pair has no addresses
                sock=own,
                username="root",
                client_keys=[asyncssh.import_private_key(keys.client)],
                known_hosts=([asyncssh.import_public_key(keys.host)], [], []),
                config=None,
                agent_path=None,
                compression_algs=None,
            )
    except (TimeoutError, OSError, asyncssh.Error) as error:
        own.close()
        raise UnpreparedError(
            "no connection to the guest's sshd", cause=str(error) or "it was silent"
        ) from error
    try:
        yield connection
    except asyncssh.Error as error:
        raise UnpreparedError("the guest's sshd gave no session", cause=str(error)) from error
    finally:
        # sshd has to be told to end: it would not notice a closed socket, as the port stays open.
        connection.close()
        with anyio.move_on_after(_CLOSE_LIMIT, shield=True):
            await connection.wait_closed()


async def session(
    connection: Connection,
    command: str | None,
    terminal: Terminal,
) -> int:
    """Run `command` (None: a login shell) in the guest with this terminal; its exit status.

    128 + n where signal n ended it; 255 where the connection broke, as ssh(1) has it. 128 + SIGHUP where the
    terminal went away, however the command in the guest took that: a shell may still end with 0.
    """
    window = terminal.size()
    hung_up = False
    async with (
        await connection.create_process(
            command,
            encoding=None,
            request_pty="force" if window else False,
            term_type=terminal.kind if window else None,
            term_size=window or (),
        ) as process,
        task_group() as group,
    ):

        async def send() -> None:
            nonlocal hung_up
            async for data in terminal.typed():
                process.stdin.write(data)
            if terminal.is_tty:
                # The terminal is gone, and hang-ups are ignored (nohup(1)), or a signal would have ended us.
                hung_up = True
                process.close()
            else:
                process.stdin.write_eof()

        async def resize() -> None:
            async for columns, rows in terminal.resized():
                process.change_terminal_size(columns, rows)

        async def show(stream: asyncssh.SSHReader[bytes], descriptor: int) -> None:
            while data := await stream.read(1 << 16):
                await terminal.show(descriptor, data)

        group.start_soon(send)
        group.start_soon(resize)
        async with task_group() as outputs:
            outputs.start_soon(show, process.stdout, 1)
            outputs.start_soon(show, process.stderr, 2)
        await process.wait_closed()
        group.cancel_scope.cancel()
    return 128 + signal.SIGHUP if hung_up else _exit_status(process.returncode)


def _exit_status(status: int | None) -> int:
    """As a shell has it. asyncssh gives a signal as its negative number, and a broken connection as None."""
    if status is None:
        return 255
    return status if status >= 0 else 128 - status


async def serve_clients(
    connection: Connection, listener: socket.socket, client: socket.socket, user: str | None
) -> None:
    """Serve a client and those that come after it, each over an SSH channel of its own; never returns.

    user: of the guest, who runs their commands instead of root.
    """
    async with task_group() as group:
        while True:
            group.start_soon(_serve, connection, client, user)
            client = await attach.accept(listener)


async def _serve(connection: Connection, client: socket.socket, user: str | None) -> None:
    with client:
        received = await attach.receive(client)
        if received is None:
            return
        request, streams = received
        terminal = attach.ClientTerminal(client, request, streams)
        try:
            if request.copy is not None:
                reply = await _copy_for(client, connection, request.copy)
            else:
                line = exec_line(request.command, user)
                reply = Reply(status=await session(connection, line, terminal))
        except (OSError, asyncssh.Error) as error:
            reply = Reply(status=255, problem=str(error))
        finally:
            terminal.close()
        attach.answer(client, reply)


async def _copy_for(client: socket.socket, connection: asyncssh.SSHClientConnection, copy: Copy) -> Reply:
    """`_copy`, but until the client goes away: a guest may make a copy last for ever."""
    reply = Reply(status=128 + signal.SIGHUP)
    async with task_group() as group:

        async def leave() -> None:
            await anyio.wait_readable(client)
            group.cancel_scope.cancel()

        group.start_soon(leave)
        reply = await _copy(connection, copy)
        group.cancel_scope.cancel()
    return reply


async def _copy(connection: asyncssh.SSHClientConnection, copy: Copy) -> Reply:
    """Copy a file, or a folder with its content, over SFTP."""
    async with await connection.start_sftp_client() as sftp:
        try:
            if copy.into_guest:
                await sftp.put(copy.host, copy.guest, preserve=True, recurse=True)
            else:
                odd = await Fetch(sftp).copy(copy.guest, Path(copy.host))
                return Reply(status=0, problem=clean_line(odd))
        except (asyncssh.SFTPError, OSError) as error:
            ends = (copy.host, copy.guest) if copy.into_guest else (copy.guest, copy.host)
            return Reply(status=1, problem=f"{' to '.join(ends)}: {clean_detail(str(error))}")
    return Reply(status=0)
