"""Starts a program before anyio is there: importing that takes longer than the start of most programs."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

# What Python ignores, and other programs should not.
_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)

# Milliseconds for a killed process to die; one that hangs in the kernel does not.
_KILL_LIMIT = 1000

# The status of a child that somebody else has awaited, or nobody: whoever started us may ignore SIGCHLD.
_UNKNOWN = 255


class Spawned:
    """A child of this process. returncode: its exit status, or the negative signal number; None before."""

    def __init__(self, pid: int) -> None:
        """Nobody else waits for it."""
        self.pid = pid
        self.returncode: int | None = None

    async def wait(self) -> int:
        """Wait until it has ended; its `returncode`. Raises OSError if no descriptor is free."""
        import anyio

        with suppress(ProcessLookupError):
            ended = os.pidfd_open(self.pid)
            try:
                while self.returncode is None:
                    await anyio.wait_readable(ended)
                    self.look()
            finally:
                os.close(ended)
        self.look()
        return _UNKNOWN if self.returncode is None else self.returncode

    def look(self) -> None:
        """Set `returncode` if it has ended."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.returncode = _UNKNOWN
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None

    def kill(self) -> None:
        """Kill it, and wait for a second at most until it has died: its files are free then."""
        self.look()
        if self.returncode is None:
            with suppress(OSError):
                ended = os.pidfd_open(self.pid)
                os.kill(self.pid, signal.SIGKILL)
                poll = select.poll()
                poll.register(ended)
                poll.poll(_KILL_LIMIT)
                os.close(ended)
            self.look()


def spawn(argv: Sequence[str], *, pass_fds: Sequence[int], output: int) -> Spawned:
    """Start a program in a session of its own. argv[0]: its path. output: receives stdout and stderr.

    pass_fds: descriptors that it inherits, and no others. This process has one thread. Raises OSError.
    """
    # Without them nobody could wait for it.
    os.close(os.pidfd_open(os.getpid()))
    # No program that we start gets them; subprocess closes them by itself.
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor > 2:
            with suppress(OSError):  # that of the list
                os.set_inheritable(descriptor, descriptor in pass_fds)
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
