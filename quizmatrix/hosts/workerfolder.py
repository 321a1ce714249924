"""The folder of a worker's files, which lives as long as the worker; those of killed ones are removed."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from quizmatrix.core import paths, untrusted
from quizmatrix.core.store import key_of
from quizmatrix.hosts import blobs

_NAME = "worker"

# Seconds after which the folder of another host's worker, or of one before this host's last boot, is removed.
_LEFT_BEHIND = 30 * 86400.0


async def make(stack: ExitStack) -> Path:
    """Make the folder of a new worker; it is removed when the stack is closed. Raises OSError, HostError."""
    top = blobs.BLOBS.root.parent
    own = f".{_NAME}-{_host()}."
    # No other worker takes it for one that was left behind before it is locked.
    async with paths.locked(paths.lock_file(f"{_NAME}s-{_host()}")):
        for folder in top.glob(f".{_NAME}-*"):
            await _remove_if_left(folder, is_own=folder.name.startswith(own))
        made = Path(stack.enter_context(paths.scratch(top, own.strip("."))))
        handle = _open(made)
        stack.callback(os.close, handle)
        paths.take_lock(handle, patience=0)
    return made


def _host() -> str:
    """A name for the kernel that runs here: locks hold among its processes, whatever file system it is."""
    return key_of([Path("/proc/sys/kernel/random/boot_id").read_text()], 12)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


async def _remove_if_left(folder: Path, *, is_own: bool) -> None:
    """Remove a folder that no worker has any more. A guest may have left anything there."""
    with suppress(OSError):
        if not is_own:
            if folder.lstat().st_mtime < time.time() - _LEFT_BEHIND:
                await untrusted.remove(folder)
            return
        handle = _open(folder)
        try:
            # Where the file system has no locks, nobody knows.
            if paths.take_lock(handle, patience=0) and not paths.without_locks():
                await untrusted.remove(folder)
        finally:
            os.close(handle)
