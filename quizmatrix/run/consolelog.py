"""Reads a guest's console: writes console.log and finds panics and other findings in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel

from quizmatrix.console.watch import ConsoleWatch
from quizmatrix.run.channel import ConsolePipe, write_all

# Bytes of a console that are kept in console.log.
LIMIT = 64 << 20

# Bytes of a console that are read without a pause; with the shortest lines this takes 30 ms.
_PIECE = 1 << 15

# Seconds between two reads of the console.
_PAUSE = 0.02


class ConsoleLog:
    """The console of one guest.

    watch: its findings.
    dying: set when the kernel panics or restarts.
    ended: set when all messages that were printed during the command have arrived.
    received: the number of bytes so far.
    was_cut: whether the file lacks its end.
    """

    def __init__(
        self, pipe: ConsolePipe, path: Path, show: Callable[[str], None], before: bytes = b""
    ) -> None:
        """Reads nothing. show: is called with the last line when it has changed.

        before: what the guest had printed when it was saved, if it is restored.
        """
        self.pipe = pipe
        self.watch = ConsoleWatch()
        self.dying = anyio.Event()
        self.ended = anyio.Event()
        self.was_cut = False
        self.received = 0
        self._before = before
        self._path = path
        self._show = show

    async def pump(self) -> None:
        """Read it until QEMU is gone. Raises OSError if the file cannot be written."""
        with self._path.open("wb", buffering=0) as file:
            shown = ""
            while data := self._before or await self.pipe.receive():
                self._before = b""
                self.received += len(data)
                if file.tell() < LIMIT:
                    await write_all(file, data)
                else:
                    self.was_cut = True
                for start in range(0, len(data), _PIECE):
                    self.watch.feed(data[start : start + _PIECE])
                    await anyio.lowlevel.checkpoint()
                if self.watch.last_line != shown:
                    shown = self.watch.last_line
                    self._show(shown)
                if self.watch.panic is not None or self.watch.restarted:
                    self.dying.set()
                if self.watch.ended:
                    self.ended.set()
                # A console delivers single bytes: reading each at once would take CPU time from the guest.
                await anyio.sleep(_PAUSE)

    async def printed(self) -> int:
        """How many bytes the guest, which is stopped, has printed."""
        while self.pipe.waiting:  # noqa: ASYNC110 - `pump` takes it after its own pause
            await anyio.sleep(_PAUSE)
        return self.received

    @property
    def cut(self) -> str:
        """A sentence if the file lacks its end; empty otherwise."""
        return f"its console was longer than the {LIMIT >> 20} MiB that are kept" if self.was_cut else ""
