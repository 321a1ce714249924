"""Interfaces for code that observes a running cell or attaches a terminal to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from quizmatrix.model.spec import CellSpec
from quizmatrix.model.stage import Stage
from quizmatrix.run.channel import Port


class TerminalHost(Protocol):
    """The host's side of a person's session."""

    async def serve(self, port: Port, ssh: Port | None, folder: Path) -> None:
        """Run the session over the guest's port until it ends.

        ssh: the port of its SSH server, if it has one. folder: the cell's.
        """


class InputSource(Protocol):
    """The source of the command's standard input.

    consumed: whether bytes were read that cannot be read again.
    """

    consumed: bool

    async def read(self) -> bytes:
        """The next bytes; empty at the end. OSError if they cannot be read."""

    def close(self) -> None:
        """Called when the guest reads no more input."""


async def _nothing(_spec: CellSpec, _why: str) -> None:
    pass


class Observer(msgspec.Struct, frozen=True, kw_only=True):
    """Callbacks and streams for a running cell; all are optional.

    placed: called with the name of the other host that runs the cell.
    specified: called before the guest starts, with its specification and why it has its accelerator.
    stage: called when the next stage begins.
    note: called with what a user may want to know.
    console: called with the console's last line when it has changed.
    stdin: the command's input, if the specification says `-`.
    stdout, stderr: called with the command's output as it arrives.
    terminal: runs the session that the specification asks for.
    """

    placed: Callable[[str], None] = lambda _host: None
    specified: Callable[[CellSpec, str], Awaitable[None]] = _nothing
    stage: Callable[[Stage], None] = lambda _stage: None
    note: Callable[[str], None] = lambda _text: None
    console: Callable[[str], None] = lambda _line: None
    stdin: InputSource | None = None
    stdout: Callable[[bytes], Awaitable[None]] | None = None
    stderr: Callable[[bytes], Awaitable[None]] | None = None
    terminal: TerminalHost | None = None


NOBODY = Observer()
