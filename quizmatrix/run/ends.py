"""What a QEMU is connected to: pipes and sockets whose other ends it inherits.

Imports little, as headstart does.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import NamedTuple

# Bytes that a console's pipe can hold; a serial port drops bytes when the pipe is full.
_CONSOLE_ROOM = 1 << 18

# Names of the ends: of the console, of the port that the guest is told on what to do, and of QEMU's own.
CONSOLE, CONTROL, QMP = "console", "control", "qmp"

Pair = tuple[socket.socket, socket.socket]


class Ends(NamedTuple):
    """The ends of each, ours and QEMU's; -1: a pipe's that was closed. ports: by name."""

    console: tuple[int, int]
    log: tuple[int, int]
    ports: dict[str, Pair]

    @property
    def passed(self) -> dict[str, int]:
        """By name, the descriptors that QEMU inherits, but for its own output."""
        return {name: its.fileno() for name, (_, its) in self.ports.items()} | {CONSOLE: self.console[1]}

    def given(self) -> Ends:
        """What is left to us once QEMU has its ends: we notice its end only if our copies are closed."""
        for _, its in self.ports.values():
            its.close()
        for pipe in (self.console, self.log):
            os.close(pipe[1])
        return Ends(console=(self.console[0], -1), log=(self.log[0], -1), ports=self.ports)

    def close(self) -> None:
        """Close all of them."""
        for pair in self.ports.values():
            _close_ports(pair)
        _close_pipe(self.console)
        _close_pipe(self.log)


def make_ends(ports: Iterable[str]) -> Ends:
    """New ones, with ports of these names. Raises OSError."""
    with ExitStack() as stack:
        pairs: dict[str, Pair] = {}
        for name in ports:
            pairs[name] = port_pair()
            stack.callback(_close_ports, pairs[name])
        console = console_pipe()
        stack.callback(_close_pipe, console)
        made = Ends(console=console, log=log_pipe(), ports=pairs)
        stack.pop_all()
    return made


def _close_ports(pair: Pair) -> None:
    for end in pair:
        end.close()


def _close_pipe(pair: tuple[int, int]) -> None:
    for end in pair:
        if end >= 0:
            os.close(end)


def console_pipe() -> tuple[int, int]:
    """The ends of a console: ours, and QEMU's."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    # The kernel may refuse more than the default size to a user who has many pipes.
    with suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _CONSOLE_ROOM)
    return reader, writer


def log_pipe() -> tuple[int, int]:
    """The ends for QEMU's own output: ours, and QEMU's."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # Blocking for QEMU, so that it waits for us and loses no output.
    os.set_blocking(writer, True)
    return reader, writer


def port_pair() -> Pair:
    """The ends of a port: ours, and QEMU's."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    return ours, its
