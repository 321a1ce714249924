"""`quizmatrix module`: kernel modules of the user's, built for the cells of a matrix."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import anyio
import msgspec

from quizmatrix.build.module.build import (
    Module,
    ModuleOptions,
    check_options,
    find_module,
    modules_dir,
    references,
    removing,
)
from quizmatrix.build.module.hint import BUILT, names_of
from quizmatrix.build.module.sweep import BuiltModules, ModuleSweep
from quizmatrix.cli import buildoutput
from quizmatrix.core import process
from quizmatrix.core.errors import UsageError
from quizmatrix.core.folders import remove_tree
from quizmatrix.core.text import clean_line
from quizmatrix.kernel import buildlayer
from quizmatrix.model.cells import Cell
from quizmatrix.model.matrix import shipped_matrices
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.prepare import selection
from quizmatrix.prepare.preparer import Policy, Preparer


def build(args: argparse.Namespace) -> int:
    """Build modules for every cell; 125 where one cannot be built."""
    modules = _modules(args)
    options = ModuleOptions(make=tuple(args.make))
    check_options(options)
    cells = selection.selected_cells(args, selection.limits_of(args), built_here=True)
    results = _build_cells(args, modules, options, cells)
    print(table(results, modules))
    errors = buildoutput.explain((found.cell, result.error) for found in results for result in found.results)
    if errors:
        print(f"\n{errors}", file=sys.stderr)
    names = {
        name
        for found in results
        for result in found.results
        if result.built is not None
        for name in buildlayer.module_names(result.built.layer)
    }
    if names and not args.quiet:
        print(f"\nIn their guests:\n  {process.printable(_how_to_run(args, cells, sorted(names)))}")
    return EXIT_NO_VERDICT if errors else EXIT_OK


def _modules(args: argparse.Namespace) -> list[Module]:
    """The modules in the folders that were named; a MATRIX behind them is taken for that.

    One that was typed behind an option the parser has found, where it is one.
    """
    words = [*args.folder, *([args.matrix] if args.matrix is not None else [])]
    args.matrix = None
    if len(words) > 1 and (words[-1] in shipped_matrices() or not Path(words[-1]).is_dir()):
        args.matrix = words.pop()
    found = {module.mark: module for module in map(find_module, words)}
    return list(found.values())


def _build_cells(
    args: argparse.Namespace, modules: list[Module], options: ModuleOptions, cells: list[Cell]
) -> list[BuiltModules]:
    jobs = selection.checked("-j", args.jobs, selection.whole_number(1)) if args.jobs else None
    tell = buildoutput.teller(args)
    preparer = Preparer(Policy(offline=args.offline, refresh=args.refresh))

    async def main() -> list[BuiltModules]:
        return await ModuleSweep(modules, options, preparer, jobs or process.usable_cpus(), tell).run(cells)

    return anyio.run(main)


def table(results: list[BuiltModules], modules: list[Module]) -> str:
    """A row for each cell, a column for each module: built, reused or failed."""
    from tabulate import tabulate

    heads = [clean_line(module.path.name) for module in modules] if len(modules) > 1 else ["module"]
    rows = [[found.cell, *map(buildoutput.words, found.results)] for found in results]
    return tabulate(rows, headers=["cell", *heads], disable_numparse=True)


def _how_to_run(args: argparse.Namespace, cells: list[Cell], names: list[str]) -> list[str]:
    """The command line that runs something in the very cells that were built for.

    Without --source, `run` takes Debian's ready-made kernels where there are such.
    """
    typed = [args.matrix] if args.matrix else []
    for option in ("only", "skip", "kernels", "arches", "profiles"):
        typed += [word for value in getattr(args, option) for word in (f"--{option}", value)]
    if args.source:
        typed += ["--source", args.source]
    if args.image:
        typed += ["--image", args.image]
    wanted = [(cell.id, cell.kernel_spec) for cell in cells]
    for source in (args.source, BUILT):
        again = argparse.Namespace(**vars(args) | {"source": source})
        got = selection.selected_cells(again, selection.limits_of(args))
        if [(cell.id, cell.kernel_spec) for cell in got] == wanted:
            added = ["--source", BUILT] if source != args.source else []
            break
    else:
        # Kernels of several sources: each named in full.
        spots = [msgspec.structs.replace(cell, kernel=cell.kernel_spec).id for cell in cells]
        typed, added = ["--only", ",".join(spots)], []
    return ["quizmatrix", "run", *typed, *added, "--", "modprobe", names[0]]


def list_modules(_: argparse.Namespace) -> int:
    """Print which module of which folder the guests of which kernel get."""
    from tabulate import tabulate

    rows = [
        [", ".join(sorted(names_of(reference))), key, reference.origin]
        for key in buildlayer.kernels()
        for reference in references(key)
    ]
    if rows:
        print(tabulate(sorted(rows), headers=["module", "kernel", "from"], disable_numparse=True))
    else:
        print("No module was built yet.")
    return EXIT_OK


def remove(args: argparse.Namespace) -> int:
    """Have no guest get a module any more, and remove what was built of it."""
    for asked in args.module:
        path = Path(asked).resolve()
        marks = {
            reference.name
            for key in buildlayer.kernels()
            for reference in references(key)
            if asked in names_of(reference) or reference.origin == str(path)
        }
        # Of one that could never be built there is only the folder.
        if (own := Module(path=path)).work.is_dir():
            marks.add(own.mark)
        if not marks:
            raise UsageError(f"no module was built of `{asked}`", next_step="quizmatrix module list")
        for mark in sorted(marks):
            with removing(mark):
                for key in buildlayer.kernels():
                    buildlayer.forget(key, mark)
                remove_tree(modules_dir() / mark)
            print(f"removed {mark}")
    return EXIT_OK
