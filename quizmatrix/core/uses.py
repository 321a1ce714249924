"""Locks on the cache's artifacts: nothing is removed while another process uses it.

Each artifact has a lock file (flock(2)). Users of the artifact hold it shared; whoever removes the artifact
holds it exclusively. One more lock is for the whole cache: every command that fetches, builds or boots
holds it shared.
"""

from __future__ import annotations

import os
import re
import shlex
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import anyio

from quizmatrix.core import paths
from quizmatrix.core.errors import HostError, host_error
from quizmatrix.core.text import clean_line

# Seconds between two looks at what another process is just removing.
_PAUSE = 0.2

# A lock in /proc/locks (proc(5)): the process, its file's device and inode.
_LOCK = re.compile(r"\d+: FLOCK +\S+ +\S+ (\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.ASCII)

# Characters of a command line that are shown.
_SHOWN = 100


class Uses:
    """What one run uses of the cache, until `release`, or the end of its process."""

    def __init__(self) -> None:
        self._held: dict[Path, IO[bytes]] = {}
        self.release = weakref.finalize(self, _close, self._held)

    async def hold(self, artifact: Path) -> bool:
        """Keep a file or folder of the cache from being removed; False where there is none any more.

        Waits where somebody is removing it. What does not lie in the cache is its owner's affair. HostError
        where the lock cannot be made.
        """
        lock = _lock_of(artifact)
        while lock is not None and artifact not in self._held:
            try:
                held = paths.open_locked(lock, shared=True, patience=0)
            except OSError as error:
                raise host_error("write the cache", error) from error
            if held is not None:
                self._held[artifact] = held
            else:
                await anyio.sleep(_PAUSE)
        return artifact.exists()


def _close(held: dict[Path, IO[bytes]]) -> None:
    for file in held.values():
        file.close()
    held.clear()


@contextmanager
def unused(artifact: Path) -> Iterator[bool]:
    """Whether nobody uses an artifact; then nobody begins to before the block's end."""
    lock = _lock_of(artifact)
    if lock is None:
        yield True
        return
    try:
        held = paths.open_locked(lock, patience=0)
    except OSError:
        # In a cache that we may not write, nothing is ours to remove.
        held = None
    if held is None:
        yield False
        return
    with held, _gone_with(artifact, lock):
        yield True


@contextmanager
def removing(artifact: Path, what: str) -> Iterator[None]:
    """Alone with an artifact, to remove it. HostError says who uses `what` it is."""
    lock = _lock_of(artifact)
    if lock is None:
        yield
        return
    with alone(lock, what), _gone_with(artifact, lock):
        yield


@contextmanager
def _gone_with(artifact: Path, lock: Path) -> Iterator[None]:
    """Remove an artifact's lock file, which we hold, at the block's end if the artifact is gone by then."""
    try:
        yield
    finally:
        if not artifact.exists():
            lock.unlink(missing_ok=True)


@contextmanager
def of_the_cache(tell: Callable[[str], None]) -> Iterator[None]:
    """The cache is used: nobody empties it meanwhile. Waits where somebody is doing that; `tell` hears."""
    held, told = None, False
    # A cache that cannot be written is said where it has to be.
    with suppress(OSError):
        while (held := paths.open_locked(_whole(), shared=True, patience=_PAUSE)) is None:
            if not told:
                told = True
                tell(f"waiting for the cache to be emptied: {holders(_whole())}")
    try:
        yield
    finally:
        if held is not None:
            held.close()


@contextmanager
def removing_the_cache() -> Iterator[None]:
    """Alone with the whole cache, to empty it; HostError says who uses it. The lock files go at the end."""
    locks = _whole().parent
    if not paths.cache_dir().is_dir():
        yield
        return
    with ExitStack() as stack:
        held = [_whole(), *sorted(set(locks.glob("*.lock")) - {_whole()})]
        for lock in held:
            stack.enter_context(alone(lock, f"the cache {paths.cache_dir()}"))
        try:
            yield
        finally:
            # While they are held: whoever waits for one sees that it is gone, and makes it anew.
            for lock in held:
                lock.unlink(missing_ok=True)
            with suppress(OSError):
                locks.rmdir()


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Hold a lock file's lock alone. HostError says who uses `what` it is for."""
    try:
        held = paths.open_locked(lock)
    except OSError as error:
        raise host_error(f"lock {what}", error) from error
    if held is None:
        raise _in_use(what, lock)
    with held:
        yield


def _whole() -> Path:
    return paths.cache_dir() / "locks" / "cache.lock"


def _lock_of(artifact: Path) -> Path | None:
    """The lock of an artifact, by its place in the cache; None where it lies elsewhere."""
    if not artifact.is_relative_to(paths.cache_dir()):
        return None
    return paths.cache_dir() / "locks" / f"used-{paths.mark_of(artifact)}.lock"


def _in_use(what: str, lock: Path) -> HostError:
    return HostError(
        f"{what} is in use", cause=holders(lock), next_step="Wait for its end, or end it; then this again."
    )


def holders(path: Path) -> str:
    """Who has a lock on a file or folder: process, command and since when that runs; in words."""
    try:
        status = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return "by another process"
    found = [match for line in lines if (match := _LOCK.match(line)) and int(match[4]) == status.st_ino]
    # A file system of several disks has another number here than there.
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    ours = [match for match in found if (int(match[2], 16), int(match[3], 16)) == device] or found
    words = [_words_of(int(match[1])) for match in ours if int(match[1]) > 0]
    # On another host, or in a container of its own.
    return "; ".join(dict.fromkeys(words)) or "by another process"


def _words_of(pid: int) -> str:
    """`by process 4711 (quizmatrix run -- true), since 2026-11-25 02:00`, in local time."""
    words = f"by process {pid}" + (" (this one)" if pid == os.getpid() else "")
    try:
        argv = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
        # The words behind the program's name, which may have blanks in it (proc(5)): the 22nd is its start.
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return words
    named = [number for number, word in enumerate(argv) if Path(word).name == "quizmatrix"]
    command = shlex.join(["quizmatrix", *argv[named[0] + 1 :]] if named else argv)
    if len(command) > _SHOWN:
        command = f"{command[:_SHOWN]}..."
    began = time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    since = datetime.fromtimestamp(began, UTC).astimezone()
    return f"{words} ({clean_line(command)}), since {since:%Y-%m-%d %H:%M}"
