"""The host's halves of a terminal session: over SSH, or on a console where the image has no SSH server."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio

from quizmatrix.core.concurrency import task_group
from quizmatrix.model.spec import Session, TerminalKind
from quizmatrix.run.channel import Port
from quizmatrix.terminal.tty import Terminal


class SshHost:
    """A session over SSH."""

    def __init__(self, terminal: Terminal, user: str) -> None:
        """`user`: of the guest."""
        from quizmatrix.terminal import ssh

        self._terminal = terminal
        self._user = user
        self._keys = ssh.Keys()
        self._folder = Path()
        self.status: int | None = None

    def write(self, layer: Path) -> None:
        """Put the guest's keys into its run layer."""
        self._keys.write(layer)
        self._folder = layer.parent

    async def serve(self, port: Port) -> None:
        """Connect, and conduct the session to its end."""
        from quizmatrix.terminal import ssh

        async with (
            ssh.connected(port.host, self._keys, self._user) as connection,
            task_group() as group,
        ):
            group.start_soon(ssh.receive_visitors, connection, self._folder)
            with self._terminal.raw():
                self.status = await ssh.session(
                    connection, "exec /bin/sh /.quizmatrix/session", self._terminal
                )
            group.cancel_scope.cancel()

    def ended_with(self, status: int) -> None:
        """sshd's own status says nothing of the session's."""


# By this byte the guest says that the session has the console: what came earlier would be lost.
_TAKEN = b"\0"
# What a terminal's line discipline takes for the end of the input (termios(3), VKILL and VEOF), and the
# seconds until it is said again: a shell that edits its lines reads one that came during a command as NUL.
_END_OF_INPUT = b"\x15\x04"
_AGAIN = 1.0


class ConsoleHost:
    """A session on a console: the guest's own line discipline, and no way to tell it of a new window size."""

    def __init__(self, terminal: Terminal) -> None:
        """Nothing is sent before the guest has a console."""
        self._terminal = terminal
        self.status: int | None = None

    def write(self, _layer: Path) -> None:
        """A console needs nothing."""

    async def serve(self, port: Port) -> None:
        """Pass keys and output on until the guest ends it."""

        async def send_typed() -> None:
            data = b"\n"
            async for data in self._terminal.typed():
                await port.send(data)
            if self._terminal.is_tty:
                # It is gone, which is no news where hang-ups are ignored (nohup(1)).
                self.status = 128 + signal.SIGHUP
                group.cancel_scope.cancel()
                return
            if not data.endswith(b"\n"):
                # A shell that edits its lines itself ends at an empty one alone.
                await port.send(b"\n")
            while True:
                await port.send(_END_OF_INPUT)
                await anyio.sleep(_AGAIN)

        with self._terminal.raw():
            async with task_group() as group:
                data = await port.receive()
                while data and _TAKEN not in data:
                    data = await port.receive()
                group.start_soon(send_typed)
                data = data.partition(_TAKEN)[2] or await port.receive()
                while data:
                    await self._terminal.show(1, data)
                    data = await port.receive()
                group.cancel_scope.cancel()

    def ended_with(self, status: int) -> None:
        """Take the status from the guest's word."""
        self.status = status


class Sitting:
    """What a person at this terminal asked for: one session, of the kind that the guest's image has."""

    def __init__(self, command: list[str], user: str | None) -> None:
        """command: its words; none: an interactive shell. user: of the guest, instead of root."""
        self.words = command
        self._user = user
        self._host: SshHost | ConsoleHost | None = None

    @property
    def status(self) -> int | None:
        """How the session ended; None where there was none."""
        return self._host.status if self._host else None

    def take_place(self, has_sshd: bool) -> tuple[Session, SshHost | ConsoleHost]:
        """The session, and who conducts it."""
        terminal = Terminal()
        kind = TerminalKind.SSH if has_sshd else TerminalKind.CONSOLE
        if kind is TerminalKind.CONSOLE:
            print(
                "quizmatrix: the image has no SSH server: this is a plain console, and keeps its size",
                file=sys.stderr,
            )
        self._host = SshHost(terminal, self._user or "root") if has_sshd else ConsoleHost(terminal)
        window = terminal.size() or (80, 24)
        return Session(kind=kind, command=self.words, window=window, term=terminal.kind), self._host
