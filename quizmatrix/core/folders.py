"""Measures the disk usage of a folder, and removes a folder with all its content."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import anyio

from quizmatrix.core import process
from quizmatrix.core.errors import HostError


def remove_tree(folder: Path) -> None:
    """Remove a folder with rm(1), which works at any depth; HostError if it fails."""
    done = anyio.run(process.run, ["rm", "-rf", "--", str(folder)])
    if done.status != 0:
        raise HostError(f"cannot remove {folder}", cause=done.last_words)


def disk_usage(folder: Path, links: set[tuple[int, int]] | None = None) -> int:
    """Bytes on disk below `folder`.

    links: hard-linked files (device, inode) that were counted already; those found here are added.
    """
    links = set() if links is None else links
    total = 0
    folders = [str(folder)]
    # Not os.walk, which recurses: a guest decides how deep the folder is.
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
