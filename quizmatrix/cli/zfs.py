"""`quizmatrix zfs`: OpenZFS, built for the cells of a matrix."""

from __future__ import annotations

import argparse
import sys

import anyio

from quizmatrix import process
from quizmatrix.cells import Cell
from quizmatrix.cli import selection
from quizmatrix.errors import UsageError
from quizmatrix.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.prepare import Policy, Preparer
from quizmatrix.progress import Screen
from quizmatrix.units import format_seconds
from quizmatrix.zfs.build import STEPS, Options
from quizmatrix.zfs.sweep import CellBuild, Done, PartResult, Sweep
from quizmatrix.zfs.tree import Tree, find_tree

# The profile whose cells it is built for: its kernels are those that are built here.
PROFILE = "zfs"


def build(args: argparse.Namespace) -> int:
    """Configure, compile and install what is out of date, for every cell; 125 where one cannot be built."""
    tree = find_tree(args.source_tree)
    return _run(args, tree, STEPS)


def step(args: argparse.Namespace) -> int:
    """Take one single step for one cell."""
    tree = find_tree(args.source_tree)
    return _run(args, tree, (args.step,))


def _run(args: argparse.Namespace, tree: Tree, steps: tuple[str, ...]) -> int:
    args.profiles = [*args.profiles, PROFILE]
    cells = selection.selected_cells(args, selection.limits_of(args))
    if steps != STEPS and len(cells) != 1:
        raise UsageError("a single step is for a single cell", next_step="--cell 6.1-x86_64")
    results = build_cells(args, tree, cells, steps)
    print(table(results))
    errors = explain(results)
    if errors:
        print(f"\n{errors}", file=sys.stderr)
    return EXIT_NO_VERDICT if errors else EXIT_OK


def options_of(args: argparse.Namespace) -> Options:
    """How OpenZFS is built."""
    return Options(debug=args.debug, experimental=args.experimental, configure=tuple(args.configure))


def build_cells(
    args: argparse.Namespace, tree: Tree, cells: list[Cell], steps: tuple[str, ...] = STEPS
) -> list[CellBuild]:
    """Take the steps for the cells, and say what is going on."""
    jobs = selection.checked("-j", args.jobs, selection.whole_number(1)) if args.jobs else None
    screen = Screen(sys.stderr)

    def tell(what: str, said: str) -> None:
        if not args.quiet:
            screen.print(f"{what}: {said}")

    preparer = Preparer(Policy(offline=args.offline, refresh=args.refresh))

    async def main() -> list[CellBuild]:
        return await Sweep(tree, options_of(args), preparer, jobs or process.usable_cpus(), tell).run(
            cells, steps
        )

    return anyio.run(main)


def table(results: list[CellBuild]) -> str:
    """A row for each cell: what was built, what was reused, what failed."""
    from tabulate import tabulate

    rows = [[result.cell, _words(result.userland), _words(result.modules)] for result in results]
    return tabulate(rows, headers=["cell", "userland", "modules"], disable_numparse=True)


def _words(part: PartResult) -> str:
    shows_time = part.done is Done.BUILT
    return f"{part.done}  {format_seconds(part.seconds)}" if shows_time else str(part.done)


def explain(results: list[CellBuild]) -> str:
    """A paragraph for each error; cells that have the same share one."""
    alike: dict[str, list[str]] = {}
    for result in results:
        if result.error is not None:
            alike.setdefault(result.error.render(), []).append(result.cell)
    return "\n\n".join(f"{', '.join(cells)}: {text}" for text, cells in alike.items())
