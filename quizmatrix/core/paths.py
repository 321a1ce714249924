"""The folders that quizmatrix uses on the host, atomic writes, and lock files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import platformdirs

from quizmatrix.core.errors import FOLDERS, HostError, host_error

if TYPE_CHECKING:
    import tempfile

_PACKAGE = Path(__file__).resolve().parents[1]


def data_dir(name: str) -> Path:
    """A folder that ships with quizmatrix: `arch`, `guest`, `matrices` or `kernel-configs`.

    A wheel has them inside the package, a checkout beside it.
    """
    installed = _PACKAGE / "data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def cache_dir() -> Path:
    """For files that can be fetched or built again: QUIZMATRIX_CACHE_DIR, or the user's cache directory."""
    return _place("QUIZMATRIX_CACHE_DIR", platformdirs.user_cache_path)


def cache_folders() -> list[Path]:
    """The cache, and those of its folders that are elsewhere: a user may have put some on another disk."""
    cache = cache_dir()
    return [cache, *(entry.resolve() for entry in sorted(cache.iterdir()) if entry.is_symlink())]


def state_dir() -> Path:
    """For data that a user wants to keep (runs): QUIZMATRIX_STATE_DIR, or the user's state directory."""
    return _place("QUIZMATRIX_STATE_DIR", platformdirs.user_state_path)


def config_dir() -> Path:
    """For the user's settings: QUIZMATRIX_CONFIG_DIR, or the user's config directory."""
    return _place("QUIZMATRIX_CONFIG_DIR", platformdirs.user_config_path)


def standing_layer() -> Path | None:
    """The user layer that is added to every run: `layer` in the user's data directory; None if absent."""
    try:
        layer = platformdirs.user_data_path("quizmatrix").absolute() / "layer"
    except RuntimeError:  # a user without a home
        return None
    return layer if layer.is_dir() else None


def current_folder() -> Path:
    """The working directory; HostError if it was removed."""
    try:
        return Path.cwd()
    except OSError as error:
        raise host_error("find the current folder", error) from error


def _place(variable: str, find: Callable[[str], Path]) -> Path:
    """The folder that a variable names, else one in the user's home; HostError if the user has no home."""
    if named := os.environ.get(variable):
        return Path(named).absolute()
    try:
        return find("quizmatrix").absolute()
    except RuntimeError as error:
        raise no_home(f"Set HOME, or {variable} (all of them: {FOLDERS}).") from error


def home() -> Path:
    """The user's home directory; HostError if there is none."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise no_home("Set HOME.") from error


def has_home() -> bool:
    """Whether the user has a home directory."""
    try:
        home()
    except HostError:
        return False
    return True


def no_home(next_step: str) -> HostError:
    """The error for a user without a home directory, as in some containers."""
    return HostError(
        "this user has no home directory",
        cause=f"HOME is not set, and no user has the number {os.getuid()}",
        next_step=next_step,
    )


def cache_name(folder: Path) -> str:
    """A name for one of the user's folders in the cache, unique by its path. No spaces, for make(1)."""
    import hashlib  # slow to import

    name = re.sub(r"[^\w.+-]", "_", folder.name, flags=re.ASCII)
    return f"{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


@functools.cache
def new_file_mode() -> int:
    """The mode that new files of this user get (umask(2)).

    Read from /proc, because the system call also sets the umask, for all threads.
    """
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 0o666 & ~int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o644


def _unused_name(final: Path) -> Path:
    """A name beside `final` that no other process has."""
    return final.with_name(f".{final.name}.{os.urandom(4).hex()}")


def write_atomic(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o644) -> None:
    """Replace `path` by `data` (or its pieces) atomically: a reader sees the old file or the new one."""
    made = _unused_name(path)
    handle = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        made.chmod(mode)
        made.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            made.unlink()
        raise


@contextlib.contextmanager
def new_dir(final: Path) -> Iterator[Path]:
    """A new folder that is renamed to `final` if the block succeeds, and removed otherwise.

    If another process was faster, its folder stays: it is equal, because names come from the content.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    made = _unused_name(final)
    made.mkdir(0o700)
    try:
        made.chmod(0o755)
        yield made
        try:
            made.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
    finally:
        if made.exists():
            remove_tree(made)


def scratch(folder: Path, name: str) -> tempfile.TemporaryDirectory[str]:
    """A new temporary folder inside `folder`, so on the same file system.

    What cannot be removed at its end stays: that is no reason for what was made in it to fail.
    """
    import tempfile  # slow to import, as it imports random

    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.", ignore_cleanup_errors=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be."""
    import shutil  # slow to import, as it imports what compresses

    shutil.rmtree(folder, ignore_errors=True)


# Seconds after which what a killed process may have left belongs to nobody.
_LEFT_BEHIND = 3600.0


def remove_left_behind(found: Iterable[Path]) -> None:
    """Remove those of these folders that processes which were killed have left, as far as that can be."""
    for path in found:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < time.time() - _LEFT_BEHIND:
                remove_tree(path)


def lock_file(name: str) -> Path:
    """The path of a lock file in the cache."""
    return cache_dir() / "locks" / f"{name}.lock"


# Seconds to try for a lock. It may be held briefly by a child that a killed process had just started, or by
# a process that only checks the lock.
LOCK_PATIENCE = 1.0

# File systems without locks that were met, by device number: a folder there, and the kernel's error.
_without_locks: dict[int, tuple[str, str]] = {}


def without_locks() -> list[str]:
    """Warnings about file systems without locks that were met, a line each."""
    return [
        f"the file system of {folder} has no locks ({said}): do not run quizmatrix twice there at a time"
        for folder, said in _without_locks.values()
    ]


def note_no_locks(folder: Path, error: OSError) -> None:
    """Record that a folder's file system has no locks, for `without_locks`."""
    with contextlib.suppress(OSError):
        said = error.strerror or str(error)
        _without_locks.setdefault(folder.stat().st_dev, (str(folder), said))


def take_lock(handle: int, patience: float = LOCK_PATIENCE, *, shared: bool = False) -> bool:
    """Lock an open file or folder (flock(2)) until it is closed; False if another process holds the lock.

    patience: seconds to keep trying; this blocks the event loop. shared: take a shared lock.
    A file system without locks always gives True, and `without_locks` reports it.
    """
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        except OSError as error:
            note_no_locks(Path(f"/proc/self/fd/{handle}").readlink().parent, error)
            return True
        else:
            return True


def open_locked(path: Path, patience: float = LOCK_PATIENCE, *, shared: bool = False) -> IO[bytes] | None:
    """Create a lock file and hold its lock until it is closed; None if another process holds the lock.

    patience, shared: see take_lock. Raises OSError if the file cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab")
        if not take_lock(file.fileno(), patience, shared=shared):
            file.close()
            return None
        # Another process may have removed the file while we waited: then we hold the lock of a deleted file.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()
        path.parent.mkdir(parents=True, exist_ok=True)


@contextlib.asynccontextmanager
async def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold an advisory lock on `path` (flock(2)), so that two processes do not make the same thing.

    on_wait: called once if another process holds the lock. The kernel frees the lock of a process that dies.
    The lock is polled: a blocking flock would need a thread that cancellation cannot end.
    Raises HostError if the lock file cannot be created.
    """
    import anyio  # slow to import, and QEMU's head start needs our folders

    told = False
    while True:
        try:
            file = open_locked(path, patience=0)
        except OSError as error:
            raise host_error("write the cache", error) from error
        if file is not None:
            break
        if not told:
            on_wait()
            told = True
        await anyio.sleep(0.2)
    with file:
        yield
