"""Builds what the cells of a run need and is out of date: OpenZFS, and selftests of their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model import profile
from quizmatrix.model.cells import Cell, unsharded
from quizmatrix.model.options import RunOptions
from quizmatrix.prepare.provided import Taken
from quizmatrix.prepare.worktree import tree_around

# What a profile.toml is `built_from`: an OpenZFS work tree, or the source of each cell's kernel.
_OPENZFS, _OF_KERNELS = "openzfs", "selftests"


def bring_up_to_date(
    options: RunOptions,
    taken: Taken | None,
    cells: Sequence[Cell],
    command: Sequence[str],
    seconds: float | None,
) -> dict[str, QuizmatrixError]:
    """Build it, and print progress; returns the errors by cell id.

    taken: for the command. seconds: the time limit; after it there are no errors. Raises UsageError where the
    command line asks for what cannot be built.
    """
    wanted = unsharded([cell for cell in cells if not cell.skipped])
    errors: dict[str, QuizmatrixError] = {}
    if wanted and (options.conduct.build or builds_openzfs(taken)):
        from quizmatrix.build.zfs import update

        errors |= update.bring_up_to_date(options, wanted, seconds)
    tested = [cell for cell in wanted if cell.id not in errors and _has_selftests(cell)]
    if tested:
        from quizmatrix.build import kselftest

        if targets := kselftest.targets_of(command):
            errors |= kselftest.bring_up_to_date(options, tested, targets, seconds)
    return errors


def builds_openzfs(taken: Taken | None) -> bool:
    """Whether a command took a profile that is built from OpenZFS, and the current folder is of a tree."""
    if taken is None or _OPENZFS not in taken.built_from:
        return False
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return False
    return tree_around(here) is not None


def _has_selftests(cell: Cell) -> bool:
    return any(profile.facts_of(use.name, cell.id).built_from == _OF_KERNELS for use in cell.profiles)
