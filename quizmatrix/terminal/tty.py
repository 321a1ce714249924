"""The user's terminal: raw while a guest's session uses it, restored afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio

from quizmatrix.core.concurrency import in_thread

_CHUNK = 1 << 16


class Terminal:
    """Three standard streams, our own by default. Without a terminal on stdin they are passed through."""

    def __init__(self, streams: tuple[int, int, int] = (0, 1, 2)) -> None:
        """Changes nothing yet."""
        self.streams = streams
        self.kind = os.environ.get("TERM", "dumb")
        self._input = streams[0]
        self.is_tty = os.isatty(self._input)

    def size(self) -> tuple[int, int] | None:
        """Columns and rows; None where there is no terminal."""
        if not self.is_tty:
            return None
        packed = fcntl.ioctl(self._input, termios.TIOCGWINSZ, bytes(8))
        rows, columns, _, _ = struct.unpack("HHHH", packed)
        return columns or 80, rows or 24

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Send every key to the guest, Ctrl-C included, until the block ends."""
        if not self.is_tty:
            yield
            return
        before = termios.tcgetattr(self._input)
        tty.setraw(self._input)
        try:
            yield
        finally:
            with contextlib.suppress(termios.error):  # it may have been closed meanwhile
                termios.tcsetattr(self._input, termios.TCSADRAIN, before)

    async def typed(self) -> AsyncIterator[bytes]:
        """The bytes of stdin, as they arrive."""
        while True:
            try:
                await anyio.wait_readable(self._input)
                data = os.read(self._input, _CHUNK)
            except BlockingIOError:
                continue
            except OSError:  # a file cannot be waited for; a terminal may be gone
                data = b"" if self.is_tty else await in_thread(self._read)
            if not data:
                return
            yield data

    def _read(self) -> bytes:
        return os.read(self._input, _CHUNK)

    async def resized(self) -> AsyncIterator[tuple[int, int]]:
        """Columns and rows, each time they change."""
        with anyio.open_signal_receiver(signal.SIGWINCH) as signals:
            async for _ in signals:
                size = self.size()
                if size is not None:
                    yield size

    async def show(self, stream: int, data: bytes) -> bool:
        """Write to stdout (1) or stderr (2). Whether somebody reads it."""
        descriptor = self.streams[stream]

        def write_all() -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

        # A closed terminal is noticed by the end of its input and by SIGHUP.
        try:
            await in_thread(write_all)
        except OSError:
            return False
        return True
