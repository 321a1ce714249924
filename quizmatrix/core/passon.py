"""Writes bytes to our stdout or stderr without blocking the event loop, even if their reader is slow."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Awaitable, Callable

from quizmatrix.core.concurrency import in_thread


def pass_on_to(descriptor: int, on_gone: Callable[[], None]) -> Callable[[bytes], Awaitable[None]]:
    """A function that writes to one of our streams. on_gone: called if nobody reads the stream any more."""
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write_all(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # another process has made the stream non-blocking
                select.select([], [descriptor], [])

    async def write(data: bytes) -> None:
        try:
            if is_file:
                write_all(data)
            else:
                # In a thread: a reader that does not read must not block the run, or Ctrl-C.
                await in_thread(lambda: write_all(data))
        except OSError as error:
            # EIO: the terminal is gone.
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            on_gone()

    return write
