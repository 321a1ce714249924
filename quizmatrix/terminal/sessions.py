"""A person's session in a guest, over a port of its own; `exec` and `cp` reach the same guest over SSH."""

from __future__ import annotations

import signal
import socket
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import anyio

from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model.spec import Session
from quizmatrix.run.channel import Port
from quizmatrix.terminal import attach
from quizmatrix.terminal.frames import FrameKind, Frames
from quizmatrix.terminal.tty import Terminal

# Seconds for a guest to start a session.
_START_LIMIT = 120.0


class SessionHost:
    """The host's side of a session.

    status: its exit status, once it has ended; 128 + SIGHUP where the terminal went away, however the session
    took that: a shell may still end with 0.
    """

    def __init__(self, terminal: Terminal, user: str | None) -> None:
        """`user`: of the guest, instead of root."""
        self.status: int | None = None
        self._terminal = terminal
        self._user = user
        # Whether the guest's SSH server has ended.
        self._sshd_ended = anyio.Event()

    async def serve(self, port: Port, ssh: Port | None, folder: Path) -> None:
        """Run the session to its end. ssh: the port of its sshd, if it has one. folder: the cell's.

        Raises UnpreparedError where the guest starts none.
        """
        frames = Frames(port)
        first = None
        # Until then the terminal is as it was, and Ctrl-C ends us.
        with anyio.move_on_after(_START_LIMIT):
            first = await frames.receive()
        if first is None or first[0] is not FrameKind.RUNNING:
            raise UnpreparedError(
                "the guest started no session", cause="it was silent, or said something else"
            )
        has_terminal = first[1] == b"\1"
        async with task_group() as group:
            if ssh is not None:
                group.start_soon(self._serve_clients, frames, ssh, folder)
            with self._terminal.raw() if has_terminal else nullcontext():
                group.start_soon(self._send_windows, frames)
                group.start_soon(self._send_typed, frames, group.cancel_scope)
                await self._show(frames)
            group.cancel_scope.cancel()

    async def _send_typed(self, frames: Frames, scope: anyio.CancelScope) -> None:
        async for data in self._terminal.typed():
            await frames.type(data)
        if self._terminal.is_tty:
            # It is gone, and hang-ups are ignored (nohup(1)), or a signal would have ended us.
            self.status = 128 + signal.SIGHUP
            scope.cancel()
        await frames.end_typing()

    async def _send_windows(self, frames: Frames) -> None:
        async for window in self._terminal.resized():
            await frames.resize(window)

    async def _show(self, frames: Frames) -> None:
        """Show what the guest writes, until it tells the status, or is gone."""
        while (frame := await frames.receive()) is not None:
            kind, data = frame
            if kind is FrameKind.STATUS:
                self.status = data[0] if data else 255
                return
            if kind is FrameKind.BESIDE_ENDED:
                self._sshd_ended.set()
            elif kind in (FrameKind.OUTPUT, FrameKind.ERRORS):
                is_shown = await self._terminal.show(1 if kind is FrameKind.OUTPUT else 2, data)
                if not is_shown:
                    # As in a pipeline whose reader has gone.
                    await frames.close(kind)

    async def _serve_clients(self, frames: Frames, port: Port, folder: Path) -> None:
        """Serve `exec` and `cp`. The guest starts its SSH server when one comes and none runs."""
        with attach.listening(folder) as listener:
            while True:
                client = await attach.accept(listener)
                # asyncssh takes a third of a second to be imported.
                await in_thread(lambda: import_module("quizmatrix.terminal.ssh"))
                if why := await self._serve_over_ssh(frames, port, listener, client):
                    await attach.refuse(client, why)

    async def _serve_over_ssh(
        self, frames: Frames, port: Port, listener: socket.socket, client: socket.socket
    ) -> str:
        """Serve a client and those after it, until the SSH server ends.

        Returns why there is none; empty where the client was served.
        """
        from quizmatrix.terminal import ssh
        from quizmatrix.terminal.keys import Keys

        keys = Keys()
        self._sshd_ended = anyio.Event()
        connection: ssh.Connection | None = None
        why = "no connection to the guest's sshd: it has ended"
        port.drop_received()
        await frames.run_beside(keys.script)
        try:
            async with task_group() as group:

                async def notice_end() -> None:
                    await self._sshd_ended.wait()
                    if connection is not None:
                        connection.abort()
                    group.cancel_scope.cancel()

                group.start_soon(notice_end)
                async with ssh.connected(port.host, keys) as connection:
                    await ssh.serve_clients(connection, listener, client, self._user)
        except UnpreparedError as error:
            why = str(error)
        return "" if connection is not None else why


class UserSession:
    """A session that the user asked for (`shell`, `-S`)."""

    def __init__(self, command: list[str], user: str | None) -> None:
        """command: its words; none: an interactive shell. user: of the guest, instead of root."""
        self.words = command
        self._user = user
        self._host: SessionHost | None = None

    @property
    def status(self) -> int | None:
        """How the session ended; None where there was none."""
        return self._host.status if self._host else None

    def open(self, has_sshd: bool) -> tuple[Session, SessionHost]:
        """The session, and the object that runs it."""
        terminal = Terminal()
        self._host = SessionHost(terminal, self._user)
        window = terminal.size()
        term = terminal.kind if window else ""
        session = Session(command=self.words, window=window, term=term, user=self._user, has_sshd=has_sshd)
        return session, self._host
