"""Finds that a tree changed while it was built, such as by `git checkout`."""

from __future__ import annotations

import os
import time
from pathlib import Path

from quizmatrix.build.zfs.tree import ZfsTree
from quizmatrix.core import checksum, process
from quizmatrix.core.errors import UnpreparedError
from quizmatrix.core.text import first_of


class Snapshot:
    """The files of a tree, and what was checked out, as they are when this is made.

    With git, what it does not track does not count: logs, say. Without it, what editors keep beside the files
    that are edited does not.
    """

    def __init__(self, tree: ZfsTree, *, without: frozenset[str] = frozenset()) -> None:
        """without: top-level folders that are ignored."""
        self.began = time.time()
        self.head = tree.head()
        self._tree = tree
        self._without = without
        self._files = self._read()

    def change(self) -> UnpreparedError | None:
        """What changed since then, as an error; None where nothing did."""
        files = self._read()
        if files == self._files:
            return None
        now, written = self._tree.head(), sorted({name for name, _ in files.items() ^ self._files.items()})
        return UnpreparedError(
            f"{self._tree.path} changed during the build",
            cause=f"{self.head} was checked out, and now {now}"
            if now != self.head
            else f"{first_of(written, 1)} changed",
            next_step="Build again: what was compiled meanwhile is compiled again.",
        )

    def _read(self) -> dict[str, tuple[int, int]]:
        """Size and mtime by path."""
        found = checksum.files_of(self._tree.path, without=self._without)
        tracked = self._tracked() if self.head else set()
        return {
            name: (status.st_size, status.st_mtime_ns)
            for name, status in found.items()
            if (name in tracked if tracked else not _is_of_an_editor(Path(name).name))
        }

    def _tracked(self) -> set[str]:
        listed = process.run_blocking(["git", "-C", str(self._tree.path), "ls-files", "-z"])
        return set(listed.output.decode(errors="surrogateescape").split("\0")) - {""}


def _is_of_an_editor(name: str) -> bool:
    return name.startswith((".", "#")) or name.endswith("~")


def make_older(folder: Path, began: float) -> None:
    """Set the mtimes of what a build wrote to a folder to before its beginning.

    make(1) would take an object for up to date whose source changed while the compiler read it.
    """
    before = began - 1
    for top, _, names in os.walk(folder):
        for name in names:
            path = Path(top, name)
            # A link leads to the tree, which is never written to.
            if not path.is_symlink() and path.is_file() and path.stat().st_mtime > before:
                os.utime(path, (before, before))
