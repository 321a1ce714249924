"""The kernel source `path`: a source tree of the user's, built beside it and never written to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from quizmatrix.arch import Arch
from quizmatrix.errors import UnpreparedError
from quizmatrix.kernel import build
from quizmatrix.kernel.build import Order
from quizmatrix.kernel.tree import Tree, read_version

# What is no part of the source, and may change without changing the kernel.
_APART = frozenset({".git", ".svn", ".hg"})


def check(wanted: str) -> str:
    """The folder as it was written; ValueError where it is no kernel's source."""
    read_version(Path(wanted))
    return wanted


def recipe(wanted: str, arch: Arch) -> str:
    """Names all that a build depends on, the state of the tree among it."""
    return f"{build.recipe(wanted, arch)} {_state_of(Path(wanted))}"


async def fetch(wanted: str, order: Order) -> str:
    """Have a kernel of the tree in the cache; returns its key. Raises UnpreparedError where it fails."""
    path = Path(wanted).resolve()
    try:
        version = read_version(path)
    except ValueError as error:
        raise UnpreparedError(str(error)) from error
    tree = Tree(
        path=path,
        version=version,
        key=_state_of(path),
        origin=str(path),
        work=build.lasting_work(path, order),
    )
    return await build.build(tree, order)


def _state_of(tree: Path) -> str:
    """Names the state of a tree by every file's path, size and time of change.

    Reading 80,000 files would take longer than the build of a small change.
    """
    digest = hashlib.sha256(str(tree.resolve()).encode())
    for top, folders, names in os.walk(tree):
        folders[:] = sorted(set(folders) - _APART)
        # os.walk has links to folders among the folders, and does not follow them.
        for name in sorted([*names, *(name for name in folders if Path(top, name).is_symlink())]):
            try:
                now = os.lstat(f"{top}/{name}")
            except OSError:
                continue
            digest.update(f"{top}/{name}\0{now.st_size} {now.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]
