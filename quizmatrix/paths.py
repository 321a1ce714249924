"""Where things are on the host, and how files are written: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

import anyio
import platformdirs

from quizmatrix.errors import host_error

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """A folder that ships with the project: `arch`, `guest`, `matrices` or `kernel-configs`.

    In a wheel they lie inside the package; in a checkout, beside it.
    """
    installed = _PACKAGE / "data" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def cache_dir() -> Path:
    """What can be fetched or built again: QUIZMATRIX_CACHE_DIR, or the user's cache directory."""
    return Path(
        os.environ.get("QUIZMATRIX_CACHE_DIR") or platformdirs.user_cache_path("quizmatrix")
    ).absolute()


def state_dir() -> Path:
    """What a user would miss, the runs: QUIZMATRIX_STATE_DIR, or the user's state directory."""
    return Path(
        os.environ.get("QUIZMATRIX_STATE_DIR") or platformdirs.user_state_path("quizmatrix")
    ).absolute()


def config_dir() -> Path:
    """The user's own settings: QUIZMATRIX_CONFIG_DIR, or the user's config directory."""
    return Path(
        os.environ.get("QUIZMATRIX_CONFIG_DIR") or platformdirs.user_config_path("quizmatrix")
    ).absolute()


def standing_layer() -> Path:
    """The user layer that every run has where it exists: `layer` in the user's data directory."""
    return platformdirs.user_data_path("quizmatrix").absolute() / "layer"


def mark_of(folder: Path) -> str:
    """Names a folder of the user's in the cache, by its name and its place; make(1) takes it (no spaces)."""
    name = re.sub(r"[^\w.+-]", "_", folder.name, flags=re.ASCII)
    return f"{name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"


def write_atomic(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Replace `path` by `data` (or its pieces) in one step: a reader sees the old file or the new, whole."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        made.chmod(0o644)
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
_LOCK_PATIENCE = 1.0


def take_lock(handle: int, patience: float = _LOCK_PATIENCE) -> bool:
    """Lock an open file or folder (flock(2)) until it is closed; False where another process has it.

    patience: seconds for which it is tried again, with no turn for other tasks.
    OSError where the file system has no such locks.
    """
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        else:
            return True


@contextlib.asynccontextmanager
async def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold an advisory lock on `path` (flock(2)), so that two processes do not make one thing twice.

    `on_wait` is called once where another process holds it. The kernel frees the lock of a
    process that dies. flock offers nothing to await without blocking a thread that no
    cancellation could end, hence the pause between tries. HostError where the lock cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise host_error("write the cache", error) from error
    with file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    on_wait()
                    told = True
                await anyio.sleep(0.2)
        yield
