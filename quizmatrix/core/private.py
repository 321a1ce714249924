"""Files that only their owner may read: runs, history, nightly jobs. Commands may contain secrets."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import IO

from quizmatrix.core import paths

FILE_MODE = 0o600
_FOLDER_MODE = 0o700

# All that is ours in the state directory, which may be a folder of the user's.
_IN_STATE = ("runs", "nightly", "disks", "history.*")


def folder(path: Path) -> Path:
    """Make a directory of ours where it is not there, and close it to others; OSError where it cannot be."""
    path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    close_to_others(path)
    return path


def state_dir() -> Path:
    """The state directory, made where it is not there; what is ours in it is closed to others.

    The directory itself is closed where we make it, and where it is the usual one: what a variable names
    may hold other things, for other people.
    """
    state = paths.state_dir()
    state.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    if "QUIZMATRIX_STATE_DIR" not in os.environ:
        close_to_others(state)
    for name in _IN_STATE:
        for path in state.glob(name):
            close_to_others(path)
    return state


def close_to_others(path: Path) -> None:
    """Take from others what rights they have; nothing where it is not ours, or a link."""
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        if mode & 0o077 and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & 0o700)


def append_to(path: Path) -> IO[bytes]:
    """Open a file for adding to its end; made where it is not there. OSError where it cannot be."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE), "ab")


def write(path: Path, data: bytes) -> None:
    """As paths.write_atomic, for a file that nobody else may read."""
    paths.write_atomic(path, data, mode=FILE_MODE)
