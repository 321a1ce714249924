"""Whole folders: how much disk space one takes, and its removal."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import anyio

from quizmatrix.core import process
from quizmatrix.core.errors import HostError


def remove_tree(folder: Path) -> None:
    """Remove a folder with rm(1), which no depth of folders stops; HostError where it cannot."""
    done = anyio.run(process.run, ["rm", "-rf", "--", str(folder)])
    if done.status != 0:
        raise HostError(f"cannot remove {folder}", cause=done.last_words)


def disk_usage(folder: Path, links: set[tuple[int, int]] | None = None) -> int:
    """Bytes on disk below `folder`.

    links: the files of several names (device, inode) that were counted elsewhere; those found are added.
    """
    links = set() if links is None else links
    total = 0
    folders = [str(folder)]
    # Not os.walk, which recurses: a guest decides how deep its run's folder is.
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    folders.append(entry.path)
                elif facts.st_nlink > 1:
                    if (facts.st_dev, facts.st_ino) in links:
                        continue
                    links.add((facts.st_dev, facts.st_ino))
                total += facts.st_blocks * 512
    return total
