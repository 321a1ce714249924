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

# Seconds between two tries for a lock while another process removes the artifact.
_PAUSE = 0.2

# A line of /proc/locks (proc(5)): the pid, and the device and inode of the locked file.
_LOCK = re.compile(r"\d+: FLOCK +\S+ +\S+ (\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.ASCII)

# Characters of a command line that are shown.
_MAX_COMMAND = 100


class Uses:
    """The artifacts of the cache that one run uses, until `release` or the end of its process."""

    def __init__(self) -> None:
        self._held: dict[Path, IO[bytes]] = {}
        self.release = weakref.finalize(self, _close, self._held)

    async def hold(self, artifact: Path) -> bool:
        """Protect a file or folder of the cache from removal; False if it does not exist any more.

        Waits while another process removes it. A path outside the cache is not locked. Raises HostError if
        the lock file cannot be created.
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
    """Whether nobody uses an artifact. If so, it is locked exclusively until the block ends."""
    lock = _lock_of(artifact)
    if lock is None:
        yield True
        return
    try:
        held = paths.open_locked(lock, patience=0)
    except OSError:
        # The cache is not writable for us, so nothing in it can be removed by us.
        held = None
    if held is None:
        yield False
        return
    with held, _removing_lock_of(artifact, lock):
        yield True


@contextmanager
def removing(artifact: Path, what: str) -> Iterator[None]:
    """Lock an artifact exclusively in order to remove it. If it is in use, HostError says by whom.

    what: the artifact's name in the error message.
    """
    lock = _lock_of(artifact)
    if lock is None:
        yield
        return
    with exclusive_lock(lock, what), _removing_lock_of(artifact, lock):
        yield


@contextmanager
def _removing_lock_of(artifact: Path, lock: Path) -> Iterator[None]:
    """When the block ends, remove an artifact's lock file (we hold it) if the artifact is gone."""
    try:
        yield
    finally:
        if not artifact.exists():
            lock.unlink(missing_ok=True)


@contextmanager
def using_cache(tell: Callable[[str], None]) -> Iterator[None]:
    """Use the cache: nobody empties it before the block ends. Waits while another process empties it.

    tell: called once if that has to be waited for.
    """
    held, told = None, False
    # If the cache is not writable, whoever has to write to it reports that.
    with suppress(OSError):
        while (held := paths.open_locked(_cache_lock(), shared=True, patience=_PAUSE)) is None:
            if not told:
                told = True
                tell(f"waiting for the cache to be emptied: {holders(_cache_lock())}")
    try:
        yield
    finally:
        if held is not None:
            held.close()


@contextmanager
def emptying_cache() -> Iterator[None]:
    """Lock the whole cache exclusively in order to empty it; the lock files are removed at the end.

    If the cache is in use, HostError says by whom.
    """
    locks = _cache_lock().parent
    if not paths.cache_dir().is_dir():
        yield
        return
    with ExitStack() as stack:
        held = [_cache_lock(), *sorted(set(locks.glob("*.lock")) - {_cache_lock()})]
        for lock in held:
            stack.enter_context(exclusive_lock(lock, f"the cache {paths.cache_dir()}"))
        try:
            yield
        finally:
            # While we still hold them: a waiting process then sees that its file is gone, and makes it anew.
            for lock in held:
                lock.unlink(missing_ok=True)
            with suppress(OSError):
                locks.rmdir()


@contextmanager
def exclusive_lock(lock: Path, what: str) -> Iterator[None]:
    """Hold an exclusive lock. If it is taken, HostError says that `what` is in use, and by whom."""
    try:
        held = paths.open_locked(lock)
    except OSError as error:
        raise host_error(f"lock {what}", error) from error
    if held is None:
        raise _in_use(what, lock)
    with held:
        yield


def _cache_lock() -> Path:
    return paths.lock_file("cache")


def _lock_of(artifact: Path) -> Path | None:
    """The lock file of an artifact; None if the artifact is outside the cache."""
    # A store's folder is named without symlinks.
    cache = paths.cache_dir()
    if not artifact.is_relative_to(cache) and not artifact.is_relative_to(cache.resolve()):
        return None
    return paths.lock_file(f"used-{paths.cache_name(artifact)}")


def _in_use(what: str, lock: Path) -> HostError:
    return HostError(
        f"{what} is in use",
        cause=holders(lock),
        next_step="Wait until it ends, or end it; then run this again.",
    )


def holders(path: Path) -> str:
    """The processes that hold a lock on a file or folder, with command and start time, as text for a user."""
    try:
        status = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return "by another process"
    found = [match for line in lines if (match := _LOCK.match(line)) and int(match[4]) == status.st_ino]
    # A file system on several disks may have another device number here than in stat(2).
    device = (os.major(status.st_dev), os.minor(status.st_dev))
    ours = [match for match in found if (int(match[2], 16), int(match[3], 16)) == device] or found
    words = [_describe_process(int(match[1])) for match in ours if int(match[1]) > 0]
    # No process is found if the holder is on another host or in another container.
    return "; ".join(dict.fromkeys(words)) or "by another process"


def _describe_process(pid: int) -> str:
    """`by process 4711 (quizmatrix run -- true), since 2026-11-25 02:00`, in local time."""
    words = f"by process {pid}" + (" (this one)" if pid == os.getpid() else "")
    try:
        argv = [os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
        # Field 22 is the start time. Fields are counted after the program's name, which may contain blanks
        # (proc(5)).
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return words
    named = [number for number, word in enumerate(argv) if Path(word).name == "quizmatrix"]
    command = shlex.join(["quizmatrix", *argv[named[0] + 1 :]] if named else argv)
    if len(command) > _MAX_COMMAND:
        command = f"{command[:_MAX_COMMAND]}..."
    began = time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    since = datetime.fromtimestamp(began, UTC).astimezone()
    return f"{words} ({clean_line(command)}), since {since:%Y-%m-%d %H:%M}"
