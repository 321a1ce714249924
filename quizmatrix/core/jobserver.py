"""A GNU make jobserver: one pool of CPUs that all builds of this process share.

Every make(1) gets the pool in MAKEFLAGS and takes a token for each job beyond its first. The token for the
first job is held by the process that starts make (GNU make manual, "POSIX Jobserver Interaction").
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class JobServer:
    """A number of tokens, each of which lets one process compute."""

    def __init__(self, cpus: int) -> None:
        """cpus: how many processes may compute at a time."""
        self.cpus = cpus
        self._read, self._write = os.pipe()
        # make sets this too: the descriptors are shared with it.
        os.set_blocking(self._read, False)
        os.write(self._write, b"+" * cpus)
        self._holders = 0
        self._queue = anyio.Lock()

    @property
    def descriptors(self) -> tuple[int, int]:
        """What a make(1) has to inherit."""
        return self._read, self._write

    @property
    def environment(self) -> dict[str, str]:
        """What a make(1) finds the pool by."""
        return {"MAKEFLAGS": f" -j{self.cpus} --jobserver-auth={self._read},{self._write}"}

    @property
    def share(self) -> int:
        """How many processes one who holds a token and knows no jobserver may start at a time."""
        return max(1, self.cpus // max(1, self._holders))

    @asynccontextmanager
    async def token(self) -> AsyncIterator[None]:
        """Hold a token, as the first job of a make(1) needs one, or a program that is none."""
        # One at a time, in their order: anyio lets a descriptor be awaited once.
        async with self._queue:
            taken = await self._take()
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            os.write(self._write, taken)

    async def _take(self) -> bytes:
        while True:
            try:
                return os.read(self._read, 1)
            except BlockingIOError:
                await anyio.wait_readable(self._read)

    def close(self) -> None:
        """Close the pool, once no build is left."""
        os.close(self._read)
        os.close(self._write)
