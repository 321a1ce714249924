"""`quizmatrix module`: builds modules for many cells, prints progress; lists and removes what was built."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import anyio

from quizmatrix.build import output
from quizmatrix.build.module import package
from quizmatrix.build.module.build import ModuleOptions, check_options, removing
from quizmatrix.build.module.module import Module, find_module, modules_dir
from quizmatrix.build.module.sweep import BuiltModules, ModuleSweep
from quizmatrix.build.parts import Done
from quizmatrix.core import process
from quizmatrix.core.errors import UsageError
from quizmatrix.core.folders import remove_tree
from quizmatrix.core.text import clean_line
from quizmatrix.kernel import buildlayer
from quizmatrix.model.cells import Cell
from quizmatrix.model.options import RunOptions
from quizmatrix.model.outcome import EXIT_NO_VERDICT, EXIT_OK
from quizmatrix.prepare.preparer import Policy, Preparer
from quizmatrix.prepare.selection import selected_cells

# How many names of one package's modules `module list` prints.
_NAMES_AT_MOST = 3


def build(sources: list[str], module_options: ModuleOptions, options: RunOptions) -> int:
    """Build the modules for every cell. Returns exit status 125 where one fails.

    sources: folders, .deb files, and `apt:` with the name of a package.
    """
    check_options(module_options)
    cells = selected_cells(options)
    found_modules = [find_module(folder) for asked in sources for folder in _folders(asked, options)]
    modules = list({module.mark: module for module in found_modules}.values())
    results = _build_cells(options, modules, module_options, cells)
    print(table(results, modules))
    if reasons := _reasons(results, modules):
        print(f"\n{reasons}")
    errors = output.explain((found.cell, result.error) for found in results for result in found.results)
    if errors:
        print(f"\n{errors}", file=sys.stderr)
    names = Counter(
        name
        for found in results
        for result in found.results
        if result.built is not None
        for name in sorted(buildlayer.module_names(result.built.layer))
    )
    if names and not options.results.quiet:
        # The one that is there in most cells.
        words = _how_to_run(options, max(sorted(names), key=names.__getitem__))
        print(f"\nIn their guests:\n  {process.printable(words)}")
    return EXIT_NO_VERDICT if errors else EXIT_OK


def _folders(asked: str, options: RunOptions) -> list[str]:
    """The folders of modules that a word means; a package is unpacked."""
    if not package.is_package(asked):
        return [asked]
    tell = output.progress_printer(quiet=options.results.quiet)

    async def main() -> list[Path]:
        return await package.obtain(asked, lambda said: tell(asked, said), is_offline=options.conduct.offline)

    return [str(folder) for folder in anyio.run(main)]


def _build_cells(
    options: RunOptions, modules: list[Module], module_options: ModuleOptions, cells: list[Cell]
) -> list[BuiltModules]:
    conduct = options.conduct
    tell = output.progress_printer(quiet=options.results.quiet)
    preparer = Preparer(Policy.asked(conduct))
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


def _reasons(results: list[BuiltModules], modules: list[Module]) -> str:
    """A line for each module and each reason why it is not for some kernels."""
    cells: dict[str, list[str]] = {}
    for found in results:
        for module, result in zip(modules, found.results, strict=True):
            if result.why:
                cells.setdefault(f"{clean_line(module.path.name)}: {result.why}", []).append(found.cell)
    return "\n".join(f"{', '.join(names)}: {Done.NOT_FOR_KERNEL}: {why}" for why, names in cells.items())


def _how_to_run(options: RunOptions, name: str) -> list[str]:
    """The command line that runs something in the cells for which modules were built."""
    asked = RunOptions(selection=options.selection, limits=options.limits)
    matrix = [asked.selection.matrix] if asked.selection.matrix else []
    return ["quizmatrix", "run", *matrix, *asked.words(), "--", "modprobe", name]


def _module_names_of(reference: buildlayer.LayerReference) -> set[str]:
    """The names of the built modules, as `modprobe` takes them."""
    return {name for layer in reference.layers for name in buildlayer.module_names(Path(layer))}


def print_list() -> None:
    """Print all built modules, each with its kernel and the folder of its source."""
    from tabulate import tabulate

    rows = [
        [_shortened(sorted(_module_names_of(reference))), key, _origin(reference.origin)]
        for key in buildlayer.kernels()
        for reference in buildlayer.module_references(key)
    ]
    if rows:
        print(tabulate(sorted(rows), headers=["module", "kernel", "from"], disable_numparse=True))
    else:
        print("No module was built yet.")


def _shortened(names: list[str]) -> str:
    """`xt_ACCOUNT, xt_CHAOS and 30 more`: a package may have many modules."""
    if len(names) <= _NAMES_AT_MOST:
        return ", ".join(names)
    shown = names[: _NAMES_AT_MOST - 1]
    return f"{', '.join(shown)} and {len(names) - len(shown)} more"


def _origin(folder: str) -> str:
    """The folder of a module's source; of one that was unpacked from a package, its name in that."""
    path = Path(folder)
    return path.name if path.is_relative_to(package.SOURCES.root) else folder


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
            if asked in (*_module_names_of(reference), _origin(reference.origin))
            or reference.origin == str(path)
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
