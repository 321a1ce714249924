"""Prints which OpenZFS builds there are: for which kernel, and from which work tree."""

from __future__ import annotations

from pathlib import Path

from quizmatrix.core.text import clean_line
from quizmatrix.kernel import buildlayer
from quizmatrix.prepare.worktree import tree_around


def print_list() -> None:
    """Print each build of OpenZFS with its kernel, tree and commit, and whether guests get it here."""
    from tabulate import tabulate

    here = tree_around(Path.cwd())
    rows = []
    for key in buildlayer.kernels():
        taken = {one.origin for one in buildlayer.references_in(key, here) if one.is_of_tree}
        for built in buildlayer.builds_of_trees(key):
            gone = "" if Path(built.origin).is_dir() else " (gone)"
            is_taken = "yes" if built.origin in taken else ""
            rows.append([key, f"{clean_line(built.origin)}{gone}", clean_line(built.head), is_taken])
    if rows:
        print(tabulate(rows, headers=["kernel", "from", "at", "taken here"], disable_numparse=True))
    else:
        print("OpenZFS was not built yet.")
