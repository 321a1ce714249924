"""The folders that quizmatrix uses on the host, atomic writes, and lock files."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import anyio
import platformdirs

from quizmatrix.core.errors import FOLDERS, HostError, host_error

_PACKAGE = Path(__file__).resolve().parents[1]


def data_dir(name: str) -> Path:
    """A folder that ships with the project: `arch`, `guest`, `matrices` or `kernel-configs`.

    In a wheel they lie inside the package; in a checkout, beside it.
    """
    installed = _PACKAGE / "data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def cache_dir() -> Path:
    """What can be fetched or built again: QUIZMATRIX_CACHE_DIR, or the user's cache directory."""
    return _place("QUIZMATRIX_CACHE_DIR", platformdirs.user_cache_path)


def state_dir() -> Path:
    """What a user would miss, the runs: QUIZMATRIX_STATE_DIR, or the user's state directory."""
    return _place("QUIZMATRIX_STATE_DIR", platformdirs.user_state_path)


def config_dir() -> Path:
    """The user's own settings: QUIZMATRIX_CONFIG_DIR, or the user's config directory."""
    return _place("QUIZMATRIX_CONFIG_DIR", platformdirs.user_config_path)


def standing_layer() -> Path | None:
    """The user layer that every run has where it exists: `layer` in the user's data directory, if any."""
    try:
        layer = platformdirs.user_data_path("quizmatrix").absolute() / "layer"
    except RuntimeError:  # a user without a home
        return None
    return layer if layer.is_dir() else None


def current_folder() -> Path:
    """The current folder; HostError where it was removed."""
    try:
        return Path.cwd()
    except OSError as error:
        raise host_error("find the current folder", error) from error


def _place(variable: str, find: Callable[[str], Path]) -> Path:
    """The folder that a variable names, or else one in the user's home; HostError where there is neither."""
    if named := os.environ.get(variable):
        return Path(named).absolute()
    try:
        return find("quizmatrix").absolute()
    except RuntimeError as error:
        raise no_home(f"Set HOME, or {variable} (all of them: {FOLDERS}).") from error


def home() -> Path:
    """The user's home; HostError where they have none."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise no_home("Set HOME.") from error


def has_home() -> bool:
    """Whether the user has one."""
    try:
        home()
    except HostError:
        return False
    return True


def no_home(next_step: str) -> HostError:
    """The error of a user without a home, as a container may have."""
    return HostError(
        "this user has no home directory",
        cause=f"HOME is not set, and no user has the number {os.getuid()}",
        next_step=next_step,
    )


def mark_of(folder: Path) -> str:
    """Names a folder of the user's in the cache, by its name and its place; make(1) takes it (no spaces)."""
    name = re.sub(r"[^\w.+-]", "_", folder.name, flags=re.ASCII)
    return f"{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


@functools.cache
def usual_mode() -> int:
    """The mode of a new file of this user's (umask(2)).

    Read, since asking the system call for it sets it, for all threads.
    """
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 0o666 & ~int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o644


def write_atomic(path: Path, data: bytes | Iterable[bytes], *, mode: int = 0o644) -> None:
    """Replace `path` by `data` (or its pieces) in one step: a reader sees the old file or the new, whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    made = Path(name)
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
    """A folder that appears as `final` when the block ends well, and not at all otherwise.

    Where another process was first, its result (the same, since names come from content) stays.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
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
            shutil.rmtree(made, ignore_errors=True)


# Seconds in which a lock may be held by a child that a killed process had just begun, or by who only looks.
LOCK_PATIENCE = 1.0

# Of each file system without locks that was met: a folder there, and what the kernel said.
_without_locks: dict[int, tuple[str, str]] = {}


def without_locks() -> list[str]:
    """What a person has to know who works on a file system without locks, where one was met."""
    return [
        f"the file system of {folder} has no locks ({said}): let no two quizmatrix work there at a time"
        for folder, said in _without_locks.values()
    ]


def note_no_locks(folder: Path, error: OSError) -> None:
    """Have `without_locks` tell of a folder's file system."""
    with contextlib.suppress(OSError):
        said = error.strerror or str(error)
        _without_locks.setdefault(folder.stat().st_dev, (str(folder), said))


def take_lock(handle: int, patience: float = LOCK_PATIENCE, *, shared: bool = False) -> bool:
    """Lock an open file or folder (flock(2)) until it is closed; False where another process has it.

    patience: seconds for which it is tried again, with no turn for other tasks. shared: others may have the
    same. On a file system without locks everybody has it, and `without_locks` says so.
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
    """Make a lock file and hold its lock until it is closed; None where another process has it.

    patience, shared: see take_lock. OSError where it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("ab")
        if not take_lock(file.fileno(), patience, shared=shared):
            file.close()
            return None
        # Whoever removed the file while we waited had the lock of a file that is none any more.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()
        path.parent.mkdir(parents=True, exist_ok=True)


@contextlib.asynccontextmanager
async def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold an advisory lock on `path` (flock(2)), so that two processes do not make one thing twice.

    `on_wait` is called once where another process holds it. The kernel frees the lock of a
    process that dies. flock offers nothing to await without blocking a thread that no
    cancellation could end, hence the pause between tries. HostError where the lock cannot be made.
    """
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
