"""`quizmatrix clean`: gives the disk space of the cache back."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path

import anyio

from quizmatrix import paths, process, store
from quizmatrix.errors import HostError
from quizmatrix.outcome import EXIT_OK

# All that quizmatrix puts into its cache: nothing else is touched, whatever folder that is.
CACHE_FOLDERS = (
    "accelerator",
    "apt",
    "build-layers",
    "builds",
    "images",
    "initramfs",
    "kernels",
    "locks",
    "modules",
    "packages",
    "sources",
    "sysroots",
    "zfs",
)


def clean(args: argparse.Namespace) -> int:
    """Remove the cache, and with --runs the kept runs."""
    doomed = [paths.cache_dir() / name for name in CACHE_FOLDERS]
    if args.runs:
        doomed.append(store.runs_dir())
    freed = 0
    for folder in doomed:
        if folder.is_dir():
            size = disk_usage(folder)
            freed += size
            print(f"{'would remove' if args.dry_run else 'removing'} {folder} ({size // 1_000_000} MB)")
            if not args.dry_run:
                remove_tree(folder)
    if not freed:
        print(f"There is nothing in {paths.cache_dir()}.")
    return EXIT_OK


def remove_tree(folder: Path) -> None:
    """Remove a folder with rm(1), which no depth of folders stops; HostError where it cannot."""
    done = anyio.run(process.run, ["rm", "-rf", "--", str(folder)])
    if done.status != 0:
        raise HostError(f"cannot remove {folder}", cause=done.last_words)


def disk_usage(folder: Path) -> int:
    """Bytes on disk below `folder`."""
    total = 0
    folders = [str(folder)]
    # Not os.walk, which recurses: a guest decides how deep its run's folder is.
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return total
