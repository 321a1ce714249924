"""`quizmatrix zfs`: OpenZFS, built for the cells of a matrix."""

from __future__ import annotations

import argparse
import sys

import anyio

from quizmatrix.build.zfs.build import CONFIGURE, STEPS
from quizmatrix.build.zfs.options import ZfsOptions, recall, remember
from quizmatrix.build.zfs.sweep import BuiltZfs, ZfsSweep
from quizmatrix.build.zfs.tree import ZfsTree, find_tree, last_tree
from quizmatrix.cli import buildoutput
from quizmatrix.core import process
from quizmatrix.core.errors import QuizmatrixError, UsageError
from quizmatrix.model.cells import Cell
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.prepare import selection
from quizmatrix.prepare.preparer import Policy, Preparer

# The profile whose cells want it.
PROFILE = "zfs"


def build(args: argparse.Namespace) -> int:
    """Configure, compile and install what is out of date, for every cell; 125 where one cannot be built."""
    return _run(args, STEPS)


def step(args: argparse.Namespace) -> int:
    """Take one single step for one cell."""
    return _run(args, (args.step,))


def _run(args: argparse.Namespace, steps: tuple[str, ...]) -> int:
    jobs = selection.checked("-j", args.jobs, selection.whole_number(1)) if args.jobs else None
    tree = find_tree(args.source_tree)
    cells = selection.selected_cells(args, selection.limits_of(args), built_here=True)
    if steps != STEPS and len(cells) != 1:
        raise UsageError("a single step is for a single cell", next_step="--cell 6.1-x86_64")
    if CONFIGURE in steps:
        options = ZfsOptions(
            debug=args.debug, experimental=args.experimental, configure=tuple(args.configure)
        )
        remember(tree, options)
    else:
        options = recall(tree)
    results = _build_cells(args, tree, options, cells, steps, cpus=jobs or process.usable_cpus())
    print(_table(results))
    errors = buildoutput.explain((result.cell, result.error) for result in results)
    if errors:
        print(f"\n{errors}", file=sys.stderr)
    return EXIT_NO_VERDICT if errors else EXIT_OK


def bring_up_to_date(
    args: argparse.Namespace, cells: list[Cell], seconds: float | None
) -> dict[str, QuizmatrixError]:
    """Build what is out of date of the tree around the current folder, or of the one built last.

    With the options of its last build, and for so many seconds at most. Returns why cells have no OpenZFS of
    this state, by their ids, as far as that is known; UsageError where no cell wants one.
    """
    wanted = [cell for cell in cells if any(use.name == PROFILE for use in cell.profiles)]
    if not wanted:
        raise UsageError(
            "--build has nothing to build", cause="no cell has the profile zfs", next_step="Add -p zfs."
        )
    tree = last_tree()
    results = _build_cells(
        args, tree, recall(tree), wanted, STEPS, cpus=process.usable_cpus(), seconds=seconds
    )
    if results and len(wanted) > 1 and not args.quiet:
        print(f"{_table(results)}\n", file=sys.stderr)
    return {result.cell: result.error for result in results if result.error is not None}


def _build_cells(
    args: argparse.Namespace,
    tree: ZfsTree,
    options: ZfsOptions,
    cells: list[Cell],
    steps: tuple[str, ...],
    *,
    cpus: int,
    seconds: float | None = None,
) -> list[BuiltZfs]:
    """Take the steps for the cells on so many CPUs, and say what is going on; no results where the seconds
    were over before.
    """
    tell = buildoutput.teller(args)
    preparer = Preparer(Policy(offline=args.offline, refresh=args.refresh))

    async def main() -> list[BuiltZfs]:
        with anyio.move_on_after(seconds):
            return await ZfsSweep(tree, options, preparer, cpus, tell).run(cells, steps)
        return []

    return anyio.run(main)


def _table(results: list[BuiltZfs]) -> str:
    """A row for each cell: what was built, what was reused, what failed."""
    from tabulate import tabulate

    rows = [
        [
            result.cell,
            buildoutput.words(result.userland),
            # Without a kernel there are none.
            buildoutput.words(result.modules if result.kernel.error is None else result.kernel),
        ]
        for result in results
    ]
    return tabulate(rows, headers=["cell", "userland", "modules"], disable_numparse=True)
