"""Takes over what was built of another work tree with the same content, as `git worktree` makes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from quizmatrix.build.parts import Installed
from quizmatrix.build.zfs.part import ZfsPart
from quizmatrix.build.zfs.state import state_of
from quizmatrix.build.zfs.tree import ZfsTree, find_tree
from quizmatrix.core import checksum, paths
from quizmatrix.core.errors import UsageError
from quizmatrix.kernel import buildlayer

# autoconf's own cache, with the paths of its tree.
_LEFT_OUT = frozenset({"autom4te.cache"})


def find(part: ZfsPart) -> Path | None:
    """The layer of the same part that was built of a tree with the same content; None where there is none."""
    for other in _other_trees(part.tree):
        installed, state = Installed(part=part.name, store=other.store), state_of(part, other)
        if not installed.is_current(state):
            continue
        without = part.without | _LEFT_OUT
        if checksum.has_same_content(part.tree.path, other.path, without=without):
            return installed.layer(state)
    return None


def _other_trees(tree: ZfsTree) -> Iterator[ZfsTree]:
    keys = buildlayer.kernels()
    origins = {built.origin for key in keys for built in buildlayer.builds_of_trees(key)}
    for origin in sorted(origins - {str(tree.path)}):
        try:
            yield find_tree(origin)
        except UsageError:
            continue  # it is gone


def copy(layer: Path, into: Path) -> None:
    """Make a layer with hard links to the files of another. Raises OSError where that is gone meanwhile."""
    with paths.new_dir(into) as made:
        shutil.copytree(layer, made, symlinks=True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
