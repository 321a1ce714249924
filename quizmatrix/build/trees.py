"""The kinds of work trees that profiles are built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from quizmatrix.prepare.provided import Taken
from quizmatrix.prepare.worktree import tree_around


def builds_for(taken: Taken | None) -> bool:
    """Whether the current folder is of a work tree that a profile which a command took is built from."""
    if taken is None or not taken.built_from:
        return False
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return False
    return any(_KINDS[kind](here) for kind in taken.built_from if kind in _KINDS)


def _is_openzfs(folder: Path) -> bool:
    return tree_around(folder) is not None


# By the name that a profile.toml has for it (`built_from`): whether a folder is of such a tree. Selftests
# need none.
_KINDS: dict[str, Callable[[Path], bool]] = {"openzfs": _is_openzfs}
