"""`quizmatrix clean`: gives the disk space of the cache back."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from quizmatrix import paths, store
from quizmatrix.outcome import EXIT_OK

# All that quizmatrix puts into its cache: nothing else is touched, whatever folder that is.
CACHE_FOLDERS = ("accelerator", "apt", "builds", "images", "initramfs", "kernels", "locks", "sources")


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
                store.remove(folder)
    if not freed:
        print(f"There is nothing in {paths.cache_dir()}.")
    return EXIT_OK


def disk_usage(folder: Path) -> int:
    """Bytes on disk below `folder`."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(top) / name).lstat().st_blocks * 512
            except OSError:
                continue
    return total
