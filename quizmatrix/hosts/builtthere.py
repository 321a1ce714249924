"""Stores here what a worker has built: `run --build-on workers`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from quizmatrix.core.concurrency import in_thread
from quizmatrix.core.errors import DamagedError
from quizmatrix.core.process import Tell
from quizmatrix.hosts.packing import unpack_folder
from quizmatrix.kernel import artifact

_KEY = re.compile(r"\w[\w.+~-]*", re.ASCII)

# Bytes that a kernel with its modules may have.
_MOST = 16 << 30


async def store(key: str, packed: Path, tell: Tell) -> None:
    """Store a kernel of this key, packed as a folder, unless the cache has it.

    Raises DamagedError where it is not what it says, HostError where it cannot be written.
    """
    if not _KEY.fullmatch(key):
        raise DamagedError(f"another host has built a kernel {key!r}")

    async def make(folder: Path) -> None:
        await in_thread(partial(unpack_folder, packed, folder, _MOST))

    waiting = partial(tell, "waiting for another quizmatrix that stores it")
    action = f"store the kernel {key}"
    await artifact.KERNELS.get_or_make(key, make, action=action, waiting=waiting, find=artifact.load)
