"""A person's session in a guest, over a port of its own; `exec` and `cp` reach the same guest over SSH."""

from __future__ import annotations

import os
import signal
import socket
from importlib import import_module
from pathlib import Path

from quizmatrix.core.concurrency import in_thread, task_group
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.model.spec import Session
from quizmatrix.run.channel import Port
from quizmatrix.terminal import attach
from quizmatrix.terminal.attach import Reply
from quizmatrix.terminal.frames import FrameKind, Frames
from quizmatrix.terminal.tty import Terminal


class SessionHost:
    """The host's side of a session.

    status: its exit status, once it has ended; 128 + SIGHUP where the terminal went away, however the session
    took that: a shell may still end with 0.
    """

    def __init__(self, terminal: Terminal, user: str) -> None:
        """`user`: of the guest."""
        self.status: int | None = None
        self._terminal = terminal
        self._user = user

    async def serve(self, port: Port, ssh: Port | None, folder: Path) -> None:
        """Run the session to its end. ssh: the port of its sshd, if it has one. folder: the cell's."""
        frames = Frames(port)
        async with task_group() as group:

            async def send_typed() -> None:
                async for data in self._terminal.typed():
                    await frames.type(data)
                await frames.end_typing()
                if self._terminal.is_tty:
                    # It is gone, and hang-ups are ignored (nohup(1)), or a signal would have ended us.
                    self.status = 128 + signal.SIGHUP
                    group.cancel_scope.cancel()

            async def resize() -> None:
                async for window in self._terminal.resized():
                    await frames.resize(window)

            await frames.resize(self._terminal.size())
            if ssh is not None:
                group.start_soon(self._serve_clients, frames, ssh, folder)
            with self._terminal.raw():
                group.start_soon(resize)
                group.start_soon(send_typed)
                await self._show(frames)
            group.cancel_scope.cancel()

    async def _show(self, frames: Frames) -> None:
        """Show what the guest writes, until it tells the status, or is gone."""
        while (frame := await frames.receive()) is not None:
            kind, data = frame
            if kind is FrameKind.STATUS:
                self.status = data[0] if data else 255
                return
            await self._terminal.show(1 if kind is FrameKind.OUTPUT else 2, data)

    async def _serve_clients(self, frames: Frames, port: Port, folder: Path) -> None:
        """Serve `exec` and `cp`. The guest starts its SSH server when the first of them comes."""
        with attach.listening(folder) as listener:
            client = await attach.accept(listener)
            # asyncssh takes a third of a second to be imported.
            await in_thread(lambda: import_module("quizmatrix.terminal.ssh"))
            from quizmatrix.terminal import ssh
            from quizmatrix.terminal.keys import Keys

            keys = Keys()
            await frames.run_beside(keys.script)
            try:
                async with ssh.connected(port.host, keys, self._user) as connection:
                    await ssh.serve_clients(connection, listener, client)
            except UnpreparedError as error:
                await self._refuse_clients(listener, client, str(error))

    async def _refuse_clients(self, listener: socket.socket, client: socket.socket, why: str) -> None:
        while True:
            with client:
                if (received := await attach.receive(client)) is not None:
                    for stream in received[1]:
                        os.close(stream)
                    attach.answer(client, Reply(status=255, problem=why))
            client = await attach.accept(listener)


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
        self._host = SessionHost(terminal, self._user or "root")
        term = terminal.kind if terminal.size() else ""
        return Session(command=self.words, term=term, user=self._user, has_sshd=has_sshd), self._host
