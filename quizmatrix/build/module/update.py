"""`quizmatrix module`: builds modules for many cells, prints progress; lists and removes what was built."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import msgspec

from quizmatrix.build import output
from quizmatrix.build.module.build import (
    Module,
    ModuleOptions,
    check_options,
    find_module,
    modules_dir,
    removing,
)
from quizmatrix.build.module.hint import BUILT, module_names_of
from quizmatrix.build.module.sweep import BuiltModules, ModuleSweep
from quizmatrix.core import process
from quizmatrix.core.errors import UsageError
from quizmatrix.core.folders import remove_tree
from quizmatrix.core.text import clean_line
from quizmatrix.kernel import buildlayer
from quizmatrix.model.cells import Cell
from quizmatrix.model.options import RunOptions, SelectionOptions, with_values
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.selection import selected_cells


def build(folders: list[str], module_options: ModuleOptions, options: RunOptions) -> int:
    """Build the modules in these folders for every cell. Returns exit status 125 where one fails."""
    modules = list({module.mark: module for module in map(find_module, folders)}.values())
    check_options(module_options)
    cells = selected_cells(options, built_here=True)
    results = _build_cells(options, modules, module_options, cells)
    print(table(results, modules))
    errors = output.explain((found.cell, result.error) for found in results for result in found.results)
    if errors:
        print(f"\n{errors}", file=sys.stderr)
    names = {
        name
        for found in results
        for result in found.results
        if result.built is not None
        for name in buildlayer.module_names(result.built.layer)
    }
    if names and not options.results.quiet:
        print(f"\nIn their guests:\n  {process.printable(_how_to_run(options, cells, sorted(names)))}")
    return EXIT_NO_VERDICT if errors else EXIT_OK


def _build_cells(
    options: RunOptions, modules: list[Module], module_options: ModuleOptions, cells: list[Cell]
) -> list[BuiltModules]:
    conduct = options.conduct
    tell = output.progress_printer(quiet=options.results.quiet)
    preparer = Preparer(Policy(offline=conduct.offline, refresh=conduct.refresh))
    cpus = conduct.jobs or process.usable_cpus()

    async def main() -> list[BuiltModules]:
        return await ModuleSweep(modules, module_options, preparer, cpus, tell).run(cells)

    return anyio.run(main)


def table(results: list[BuiltModules], modules: list[Module]) -> str:
    """A row for each cell, a column for each module: built, reused or failed."""
    from tabulate import tabulate

    heads = [clean_line(module.path.name) for module in modules] if len(modules) > 1 else ["module"]
    rows = [[found.cell, *map(output.words, found.results)] for found in results]
    return tabulate(rows, headers=["cell", *heads], disable_numparse=True)


def _how_to_run(options: RunOptions, cells: list[Cell], names: list[str]) -> list[str]:
    """The command line that runs something in the cells for which modules were built.

    It may need --source: without it, `run` takes Debian's ready-made kernels where they exist.
    """
    wanted = [(cell.id, cell.kernel_spec) for cell in cells]
    for source in (options.selection.source, BUILT):
        asked = with_values(
            RunOptions(selection=options.selection, limits=options.limits), {"source": source}
        )
        if [(cell.id, cell.kernel_spec) for cell in selected_cells(asked)] == wanted:
            break
    else:
        # The kernels are of several sources, so each is named with its source.
        spots = [msgspec.structs.replace(cell, kernel=cell.kernel_spec).id for cell in cells]
        asked = RunOptions(selection=SelectionOptions(only=[",".join(spots)]))
    matrix = [asked.selection.matrix] if asked.selection.matrix else []
    return ["quizmatrix", "run", *matrix, *asked.words(), "--", "modprobe", names[0]]


def print_list() -> None:
    """Print all built modules, each with its kernel and the folder of its source."""
    from tabulate import tabulate

    rows = [
        [", ".join(sorted(module_names_of(reference))), key, reference.origin]
        for key in buildlayer.kernels()
        for reference in buildlayer.module_references(key)
    ]
    if rows:
        print(tabulate(sorted(rows), headers=["module", "kernel", "from"], disable_numparse=True))
    else:
        print("No module was built yet.")


def remove(names: list[str]) -> None:
    """Remove modules from the guests of all kernels, and all that was built of them.

    names: names of modules, or folders. Raises UsageError where one was not built.
    """
    for asked in names:
        path = Path(asked).resolve()
        marks = {
            reference.name
            for key in buildlayer.kernels()
            for reference in buildlayer.module_references(key)
            if asked in module_names_of(reference) or reference.origin == str(path)
        }
        # A module whose build always failed has no reference, only a folder.
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
