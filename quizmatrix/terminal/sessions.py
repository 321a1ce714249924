"""A person's terminal session in a guest: over SSH, or on a console where the image has no SSH server."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

import anyio

from quizmatrix.core.concurrency import task_group
from quizmatrix.model.spec import Session, TerminalKind
from quizmatrix.run.channel import Port
from quizmatrix.terminal.tty import Terminal


def _import_ssh() -> None:
    with suppress(Exception):  # `serve` imports it, and tells
        import_module("quizmatrix.terminal.ssh")


class SshHost:
    """A session over SSH."""

    def __init__(self, terminal: Terminal, user: str) -> None:
        """`user`: of the guest."""
        from quizmatrix.terminal.keys import Keys

        self._terminal = terminal
        self._user = user
        self._keys = Keys()
        self._folder = Path()
        self.status: int | None = None

    def write(self, layer: Path) -> None:
        """Put the guest's keys into its run layer. The guest starts next: meanwhile asyncssh is imported."""
        with suppress(RuntimeError):  # this host has no more threads
            Thread(target=_import_ssh, daemon=True).start()
        self._keys.write(layer)
        self._folder = layer.parent

    async def serve(self, port: Port) -> None:
        """Connect, and run the session to its end."""
        from quizmatrix.terminal import ssh

        async with (
            ssh.connected(port.host, self._keys, self._user) as connection,
            task_group() as group,
        ):
            group.start_soon(ssh.serve_clients, connection, self._folder)
            with self._terminal.raw():
                self.status = await ssh.session(
                    connection, "exec /bin/sh /.quizmatrix/session", self._terminal
                )
            group.cancel_scope.cancel()

    def ended_with(self, status: int) -> None:
        """Nothing to do: sshd's exit status is not the session's."""


# The guest sends this byte when the session has taken over the console. Input sent earlier would be lost.
_TAKEN = b"\0"
# The end of the input, for a terminal's line discipline (termios(3), VKILL and VEOF), and the seconds until
# it is sent again: a shell with line editing reads one that arrives during a command as NUL.
_END_OF_INPUT = b"\x15\x04"
_AGAIN = 1.0


class ConsoleHost:
    """A session on a console, with the guest's line discipline. It cannot be told a new window size."""

    def __init__(self, terminal: Terminal) -> None:
        """Sends nothing until `serve`."""
        self._terminal = terminal
        self.status: int | None = None

    def write(self, _layer: Path) -> None:
        """Nothing to do: a console needs no keys."""

    async def serve(self, port: Port) -> None:
        """Pass keys and output on until the guest ends it."""

        async def send_typed() -> None:
            data = b"\n"
            async for data in self._terminal.typed():
                await port.send(data)
            if self._terminal.is_tty:
                # The terminal is gone, and hang-ups are ignored (nohup(1)), or a signal would have ended us.
                self.status = 128 + signal.SIGHUP
                group.cancel_scope.cancel()
                return
            if not data.endswith(b"\n"):
                # A shell with line editing takes the end of input on an empty line only.
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
        """Keep the session's exit status, which the guest reported."""
        self.status = status


class UserSession:
    """A session that the user asked for (`shell`, `-S`), of the kind that the guest's image supports."""

    def __init__(self, command: list[str], user: str | None) -> None:
        """command: its words; none: an interactive shell. user: of the guest, instead of root."""
        self.words = command
        self._user = user
        self._host: SshHost | ConsoleHost | None = None

    @property
    def status(self) -> int | None:
        """How the session ended; None where there was none."""
        return self._host.status if self._host else None

    def open(self, has_sshd: bool) -> tuple[Session, SshHost | ConsoleHost]:
        """The session, and the object that runs it."""
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
