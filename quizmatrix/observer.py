"""Who looks on while a cell runs, and who sits at its terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from quizmatrix.channel import Port
from quizmatrix.verdict import Stage


class TerminalHost(Protocol):
    """The host's half of a terminal session."""

    def write(self, layer: Path) -> None:
        """Put what the guest needs into its run layer; OSError where the disk does not take it."""

    async def serve(self, port: Port) -> None:
        """Conduct the session over the guest's port, to its end."""

    def ended_with(self, status: int) -> None:
        """Hear from the guest how the session ended."""


class Observer(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks on while a cell runs; every part may be absent.

    stage: the next stage is reached. console: the console's last line changed. stdout, stderr:
    the command's output as it comes. terminal: has the session that the specification asks for.
    """

    stage: Callable[[Stage], None] = lambda _stage: None
    console: Callable[[str], None] = lambda _line: None
    stdout: Callable[[bytes], Awaitable[None]] | None = None
    stderr: Callable[[bytes], Awaitable[None]] | None = None
    terminal: TerminalHost | None = None


NOBODY = Observer()
