"""Removes the cache, and if asked also the kept runs and their history (`quizmatrix clean`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from quizmatrix.core import paths, uses
from quizmatrix.core.errors import HostError
from quizmatrix.core.folders import disk_usage, remove_tree
from quizmatrix.runs import directory
from quizmatrix.runs.history import database

# All folders that quizmatrix makes in its cache. Others are left alone, since the user chooses the cache's
# path.
CACHE_FOLDERS = (
    "accelerator",
    "apt",
    "available",
    "build-layers",
    "builds",
    "debug-information",
    "images",
    "initramfs",
    "kernels",
    "kselftest",
    "locks",
    "module-sources",
    "modules",
    "packages",
    "sources",
    "sysroots",
    "templates",
    "toolchains",
    "travel",
    "trees",
    "zfs",
)


def clear(*, with_runs: bool, dry_run: bool) -> None:
    """Remove the cache, and with_runs also the kept runs and the history.

    dry_run: only print what would be removed. Raises HostError, and removes nothing, where any is in use.
    """
    doomed = [paths.cache_dir() / name for name in CACHE_FOLDERS]
    if with_runs:
        doomed.append(directory.runs_dir())
    links: set[tuple[int, int]] = set()
    if with_runs:
        # The history goes first, since it could be made again from the runs' folder.
        doomed[:0] = history_files(paths.state_dir())
    # Measured before anything is removed: a file that is hard-linked into two folders counts once.
    sizes = {
        folder: disk_usage(folder, links) if folder.is_dir() else folder.stat().st_size
        for folder in doomed
        if folder.exists()
    }
    said = {folder: f"{folder} ({size // 1_000_000} MB)" for folder, size in sizes.items()}
    if dry_run:
        print("".join(f"would remove {words}\n" for words in said.values()), end="")
    else:
        with _locked(with_runs=with_runs):
            for folder, words in said.items():
                print(f"removing {words}")
                # The lock files are removed last, together with their locks.
                if folder != paths.cache_dir() / "locks":
                    remove_tree(folder)
    if not any(sizes.values()):
        print(f"There is nothing in {paths.cache_dir()}.")


@contextlib.contextmanager
def _locked(*, with_runs: bool) -> Iterator[None]:
    """Lock the cache (and the runs) against use. Raises HostError where a process uses it, and names that."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(uses.emptying_cache())
        if with_runs:
            for folder, results in directory.list_runs():
                has_ended = results is not None and results.finished is not None
                if not has_ended and directory.is_going_on(folder):
                    raise HostError(
                        f"the run {folder.name} is still going on",
                        cause=uses.holders(folder),
                        next_step="Wait until it ends, or end it; then run this again.",
                    )
            if paths.state_dir().is_dir():
                stack.enter_context(database.locked())
                stack.callback((paths.state_dir() / database.LOCK).unlink, missing_ok=True)
        yield


def history_files(state: Path) -> list[Path]:
    """All files of the history, including damaged ones that were moved aside."""
    names = [database.FILE, *(database.FILE + end for end in database.COMPANIONS)]
    names += [database.LOCK, database.DOT_LOCK]
    return [state / name for name in names] + sorted(state.glob(f"{database.FILE}.corrupt-*"))
