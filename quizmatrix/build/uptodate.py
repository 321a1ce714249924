"""Builds what the cells of a run need and is out of date: OpenZFS, and selftests of their kernels."""

from __future__ import annotations

from collections.abc import Sequence

from quizmatrix.build.trees import builds_for
from quizmatrix.core.errors import QuizmatrixError
from quizmatrix.model import profile
from quizmatrix.model.cells import Cell, unsharded
from quizmatrix.model.options import RunOptions
from quizmatrix.prepare.provided import Taken

# How a profile.toml says that each cell's kernel has the source (`built_from`).
_OF_KERNELS = "selftests"


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
    if wanted and (options.conduct.build or builds_for(taken)):
        from quizmatrix.build.zfs import update

        errors |= update.bring_up_to_date(options, wanted, seconds)
    tested = [cell for cell in wanted if cell.id not in errors and _has_selftests(cell)]
    if tested:
        from quizmatrix.build import kselftest

        if targets := kselftest.targets_of(command):
            errors |= kselftest.bring_up_to_date(options, tested, targets, seconds)
    return errors


def _has_selftests(cell: Cell) -> bool:
    return any(profile.facts_of(use.name, cell.id).built_from == _OF_KERNELS for use in cell.profiles)
