"""Interfaces for code that observes a running cell or attaches a terminal to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from quizmatrix.model.stage import Stage
from quizmatrix.run.channel import Port


class TerminalHost(Protocol):
    """The host's half of a terminal session."""

    def write(self, layer: Path) -> None:
        """Put what the guest needs into its run layer; OSError where the disk does not take it."""

    async def serve(self, port: Port) -> None:
        """Conduct the session over the guest's port, to its end."""

    def ended_with(self, status: int) -> None:
        """Hear from the guest how the session ended."""


class InputSource(Protocol):
    """Where the command's standard input comes from.

    consumed: whether it has given any bytes that it cannot give again.
    """

    consumed: bool

    async def read(self) -> bytes:
        """The next bytes; none at the end. OSError where they cannot be had."""

    def close(self) -> None:
        """Hear that nobody reads it any more."""


class Observer(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks on while a cell runs; every part may be absent.

    stage: the next stage is reached. console: the console's last line changed. stdin: what the command reads,
    where the specification says so. stdout, stderr: the command's output as it comes. terminal: has the
    session that the specification asks for.
    """

    stage: Callable[[Stage], None] = lambda _stage: None
    console: Callable[[str], None] = lambda _line: None
    stdin: InputSource | None = None
    stdout: Callable[[bytes], Awaitable[None]] | None = None
    stderr: Callable[[bytes], Awaitable[None]] | None = None
    terminal: TerminalHost | None = None


NOBODY = Observer()
