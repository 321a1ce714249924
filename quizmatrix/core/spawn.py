"""Starts a program before anyio is there: importing that takes longer than the start of most programs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

# What Python ignores, and other programs should not.
_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)


class Spawned:
    """A child of this process. returncode: its exit status, or the negative signal number; None before."""

    def __init__(self, pid: int) -> None:
        """Nobody else waits for it."""
        self.pid = pid
        self.returncode: int | None = None

    async def wait(self) -> int:
        """Wait until it has ended; its `returncode`. Raises OSError if no descriptor is free."""
        import anyio

        ended = os.pidfd_open(self.pid)
        try:
            while self.returncode is None:
                await anyio.wait_readable(ended)
                self.look()
        finally:
            os.close(ended)
        return self.returncode

    def look(self) -> None:
        """Set `returncode` if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None

    def kill(self) -> None:
        """Kill it. It may hang in the kernel, so nobody waits."""
        self.look()
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def spawn(argv: Sequence[str], *, pass_fds: Sequence[int], output: int) -> Spawned:
    """Start a program in a session of its own. argv[0]: its path. output: receives stdout and stderr.

    pass_fds: descriptors that it inherits. This process has one thread. Raises OSError.
    """
    # Without them nobody could wait for it.
    os.close(os.pidfd_open(os.getpid()))
    for descriptor in pass_fds:
        os.set_inheritable(descriptor, True)
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigdef=_SIGNALS,
        )
    finally:
        for descriptor in pass_fds:
            os.set_inheritable(descriptor, False)
    return Spawned(pid)
