"""Passes bytes on to a stream of our own, whose reader may be slow or go away."""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Awaitable, Callable

from quizmatrix.core.concurrency import in_thread


def pass_on_to(descriptor: int, on_gone: Callable[[], None]) -> Callable[[bytes], Awaitable[None]]:
    """Writes to one of our own streams; `on_gone` is called where nobody reads it any more."""
    is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)

    def write_all(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # whoever gave us this stream has made it so
                select.select([], [descriptor], [])

    async def write(data: bytes) -> None:
        try:
            if is_file:
                write_all(data)
            else:
                # In a thread: while nobody reads, the rest of the run, Ctrl-C included, goes on.
                await in_thread(lambda: write_all(data))
        except OSError as error:
            # EIO: the terminal is gone.
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            on_gone()

    return write
