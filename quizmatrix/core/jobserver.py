"""A GNU make jobserver: one pool of CPUs that all builds of this process share.

Every make(1) gets the pool in MAKEFLAGS and takes a token for each job beyond its first. The token for the
first job is held by the process that starts make (GNU make manual, "POSIX Jobserver Interaction").
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from quizmatrix.core import pipes


class JobServer:
    """A pool of tokens; a process needs one to compute."""

    def __init__(self, cpus: int) -> None:
        """cpus: how many processes may compute at a time."""
        self.cpus = cpus
        self._read, self._write = os.pipe()
        # make(1) sets this too: it shares the open file with us.
        os.set_blocking(self._read, False)
        os.write(self._write, b"+" * cpus)
        self._holders = 0
        self._queue = anyio.Lock()

    @property
    def descriptors(self) -> tuple[int, int]:
        """The descriptors that make(1) has to inherit."""
        return self._read, self._write

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables by which make(1) finds the pool."""
        return {"MAKEFLAGS": f" -j{self.cpus} --jobserver-auth={self._read},{self._write}"}

    @property
    def share(self) -> int:
        """How many processes the holder of a token may run at once, if it does not support jobservers."""
        return max(1, self.cpus // max(1, self._holders))

    @asynccontextmanager
    async def token(self) -> AsyncIterator[None]:
        """Hold one token: for the first job of a make(1), or for a program that is not make."""
        # One waiter at a time, in order: anyio allows only one task to wait for a descriptor.
        async with self._queue:
            taken = await self._take()
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            self._give_back(taken)

    def _give_back(self, taken: bytes) -> None:
        """Return a token; when nobody holds one, all are there again, whatever became of those of make(1).

        A make that is killed returns none, and a build from elsewhere can fill the pipe: a write would block.
        """
        there = pipes.waiting(self._read)
        if there >= self.cpus:
            os.read(self._read, there - self.cpus)
        elif self._holders:
            os.write(self._write, taken)
        else:
            os.write(self._write, b"+" * (self.cpus - there))

    async def _take(self) -> bytes:
        while True:
            try:
                return os.read(self._read, 1)
            except BlockingIOError:
                await anyio.wait_readable(self._read)

    def close(self) -> None:
        """Close the pool after the last build has ended."""
        os.close(self._read)
        os.close(self._write)
