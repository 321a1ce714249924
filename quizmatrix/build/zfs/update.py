"""Rebuilds what is out of date in OpenZFS for the cells of a run, and prints progress."""

from __future__ import annotations

import sys

import anyio

from quizmatrix.build import output
from quizmatrix.build.zfs.build import STEPS
from quizmatrix.build.zfs.options import ZfsOptions, recall
from quizmatrix.build.zfs.sweep import BuiltZfs, ZfsSweep
from quizmatrix.build.zfs.tree import ZfsTree, last_tree
from quizmatrix.core import process
from quizmatrix.core.errors import QuizmatrixError, UsageError
from quizmatrix.model.cells import Cell
from quizmatrix.model.options import RunOptions
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.selection import BUILT_PROFILE


def bring_up_to_date(
    options: RunOptions, cells: list[Cell], seconds: float | None
) -> dict[str, QuizmatrixError]:
    """Rebuild OpenZFS from the tree around the current folder, or from the one built last.

    It uses the options of the last build. seconds: the time limit. Returns the errors by cell id; after the
    time limit there are none. Raises UsageError where no cell has its profile, with --no-provide.
    """
    if not any(use.name == BUILT_PROFILE for cell in cells for use in cell.profiles):
        raise UsageError(
            "--build has nothing to build",
            cause=f"no cell has the profile {BUILT_PROFILE}, and --no-provide takes none",
            next_step=f"Add -p {BUILT_PROFILE}.",
        )
    tree = last_tree()
    results = build_cells(
        options, tree, recall(tree), cells, STEPS, cpus=process.usable_cpus(), seconds=seconds
    )
    if results and len(cells) > 1 and not options.results.quiet:
        print(f"{table(results)}\n", file=sys.stderr)
    return {result.cell: result.error for result in results if result.error is not None}


def build_cells(
    options: RunOptions,
    tree: ZfsTree,
    zfs_options: ZfsOptions,
    cells: list[Cell],
    steps: tuple[str, ...],
    *,
    cpus: int,
    seconds: float | None = None,
) -> list[BuiltZfs]:
    """Do the steps for the cells, and print progress. Returns no results where the time limit was exceeded.

    cpus: the number of compilers at a time. seconds: the time limit.
    """
    tell = output.progress_printer(quiet=options.results.quiet)
    preparer = Preparer(Policy.asked(options.conduct, boots_here=options.hosts.on is None))

    async def main() -> list[BuiltZfs]:
        with anyio.move_on_after(seconds):
            return await ZfsSweep(tree, zfs_options, preparer, cpus, tell).run(cells, steps)
        return []

    return anyio.run(main)


def table(results: list[BuiltZfs]) -> str:
    """A table with a row for each cell: what was built, reused, or failed."""
    from tabulate import tabulate

    rows = [
        [
            result.cell,
            output.words(result.userland),
            # Without a kernel there are no modules, so its error is shown.
            output.words(result.modules if result.kernel.error is None else result.kernel),
        ]
        for result in results
    ]
    return tabulate(rows, headers=["cell", "userland", "modules"], disable_numparse=True)
