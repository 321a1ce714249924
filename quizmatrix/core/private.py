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

# Our entries in the state directory; the directory may have other files of the user.
_IN_STATE = ("runs", "nightly", "disks", "guesses", "history.*")


def folder(path: Path) -> Path:
    """Create one of our directories if it is missing, with access only for its owner; OSError on failure."""
    path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    close_to_others(path)
    return path


def state_dir() -> Path:
    """The state directory, created if it is missing. Our entries in it become accessible only to their owner.

    The directory itself does too if we create it, or if it is the default one. A directory that
    QUIZMATRIX_STATE_DIR names keeps its mode: it may contain other files, for other people.
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
    """Remove the group's and others' permissions; does nothing to a symlink or another user's file."""
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        if mode & 0o077 and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & 0o700)


def append_to(path: Path) -> IO[bytes]:
    """Open a file for appending; create it if it is missing. Raises OSError on failure."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE), "ab")


def write(path: Path, data: bytes) -> None:
    """Like paths.write_atomic, for a file that only its owner may read."""
    paths.write_atomic(path, data, mode=FILE_MODE)
