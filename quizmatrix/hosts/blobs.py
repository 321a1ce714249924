"""The blobs and the folders of this host that travel, or have come from another one."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quizmatrix.core import folders, paths, units, uses
from quizmatrix.core.checksum import sha256_of
from quizmatrix.core.errors import DamagedError, QuizmatrixError, UsageError
from quizmatrix.core.store import Store

# Everything below this folder of the cache can be read by the user alone: a work tree has what its owner's
# umask hid, and a layer may have setuid programs.
FOLDER = "travel"

BLOBS = Store(what="blob", folder=f"{FOLDER}/blobs", lock="blob-{}")
TREES = Store(what="folder", folder=f"{FOLDER}/trees", lock="tree-{}")

# The variable with the size that all of it may have, and the size in bytes without it.
BUDGET_VARIABLE = "QUIZMATRIX_TRAVEL"
_BUDGET = 20 << 30

# Seconds after which a file that nobody finished is removed.
_LEFT_BEHIND = 7 * 86400.0


def prepare() -> None:
    """Make the folders. Raises OSError."""
    top = paths.cache_dir() / FOLDER
    top.mkdir(parents=True, exist_ok=True)
    top.chmod(0o700)
    for store in (BLOBS, TREES):
        store.root.mkdir(exist_ok=True)


def keep(made: Path) -> str:
    """Take a file into the blobs; returns its name. It must be on the same file system. Raises OSError."""
    digest = sha256_of(made)
    made.replace(BLOBS.path(digest))
    return digest


def keep_bytes(data: bytes) -> str:
    """Like `keep`, for a small content."""
    with unfinished() as made:
        made.write_bytes(data)
        return keep(made)


@contextmanager
def unfinished() -> Iterator[Path]:
    """A new path beside the blobs, for one that is being made; it is removed unless it was kept."""
    made = BLOBS.root / f".{os.getpid()}-{time.monotonic_ns()}"
    try:
        yield made
    finally:
        made.unlink(missing_ok=True)


def check(path: Path, digest: str) -> None:
    """Raise DamagedError where a blob's content is not what its name says."""
    if sha256_of(path) != digest:
        raise DamagedError(f"{path} has another content than its name says")


def budget() -> int:
    """The bytes that all blobs and folders may have. Raises UsageError where the variable is no size."""
    text = os.environ.get(BUDGET_VARIABLE, "")
    if not text:
        return _BUDGET
    try:
        return units.parse_size(text) << 20
    except ValueError as error:
        raise UsageError(f"{BUDGET_VARIABLE}={text}", cause=str(error), next_step="Write 20G.") from error


def keep_to_budget() -> None:
    """Remove what was used longest ago, as far as all is larger than the budget and nobody uses it."""
    left = budget()
    found = []
    for store in (BLOBS, TREES):
        for path in store.root.glob("*"):
            with suppress(OSError):
                facts = path.lstat()
                if path.name.startswith("."):
                    if facts.st_mtime < time.time() - _LEFT_BEHIND:
                        _remove(path)
                    continue
                found.append((facts.st_mtime, _size(path), path, store))
    for _, size, path, store in sorted(found, key=lambda one: one[0], reverse=True):
        left -= size
        if left < 0:
            with suppress(OSError, QuizmatrixError), uses.unused(path) as nobody_uses_it:
                if nobody_uses_it:
                    store.discard(path)


def _size(path: Path) -> int:
    return folders.disk_usage(path) if path.is_dir() else path.lstat().st_blocks * 512


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
