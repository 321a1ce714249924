"""Reaps child processes in the event loop's thread; Python 3.11 needs this, later versions do it themselves.

Python 3.11 waits for each child in a thread of its own. If the host refuses a new thread, that fails after
the fork, and the child is lost. And a child that such a thread has reaped still looks alive to the loop: a
signal may then reach another process that has got the same pid since.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")


def use_pidfds() -> None:
    """Watch the children of all event loops through pidfd_open(2), if this host supports it."""
    if sys.version_info >= (3, 12) or isinstance(asyncio.get_child_watcher(), _PidfdWatcher):
        return
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel, or a container that forbids it
        return
    asyncio.set_child_watcher(_PidfdWatcher())


if sys.version_info < (3, 12):

    class _PidfdWatcher(asyncio.AbstractChildWatcher):
        """Like asyncio.PidfdChildWatcher of Python 3.12, which works for the loops of all threads."""

        def __enter__(self) -> _PidfdWatcher:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def is_active(self) -> bool:
            return True

        def attach_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
            pass

        def close(self) -> None:
            pass

        def add_child_handler(
            self, pid: int, callback: Callable[[int, int, *Ts], object], *args: *Ts
        ) -> None:
            loop = asyncio.get_running_loop()
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:
                # No descriptor is free, so nobody could wait for the child.
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise
            loop.add_reader(descriptor, self._reap, loop, pid, descriptor, callback, args)

        def remove_child_handler(self, pid: int) -> bool:
            # Not needed by the loop: a handler is removed when its child is reaped.
            return False

        def _reap(
            self,
            loop: asyncio.AbstractEventLoop,
            pid: int,
            descriptor: int,
            callback: Callable[[int, int, *Ts], object],
            args: tuple[*Ts],
        ) -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            try:
                _, status = os.waitpid(pid, 0)
            except ChildProcessError:
                callback(pid, 255, *args)
            else:
                callback(pid, os.waitstatus_to_exitcode(status), *args)
